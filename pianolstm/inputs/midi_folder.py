"""Reads a folder of MIDI files as a data set, and assigns each file to a split."""

import hashlib
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from tqdm import tqdm

from pianolstm.files import InputError
from pianolstm.midi import DroppedNotes, midi_to_roll
from pianolstm.rolls import SPLITS, PackedRolls

_PARALLEL_FILES = 500  # from here on, several processes repay the two seconds of their start
_MAX_DAMAGED = 0.05  # share of the files of a folder

_Parsed = tuple[np.ndarray, DroppedNotes] | str


def find_midi_files(folder: Path) -> list[Path]:
    """Return the MIDI files in a folder and below it, sorted.

    Args:
        folder: where to look. A file counts as MIDI if its name ends in .mid or .midi, or if its
            content starts with MThd.
    """
    return sorted(path for path in folder.rglob("*") if path.is_file() and _is_midi(path))


def read_midi_folder(
    folder: Path, files: Sequence[Path], frame_beats: float, max_minutes: float
) -> tuple[dict[str, PackedRolls], list[str]]:
    """Read MIDI files, split by the folders train/, valid/ and test/ or, without them, by name.

    Args:
        folder: the folder.
        files: what `find_midi_files` returned for it.
        frame_beats: length of a frame in beats.
        max_minutes: longer files are left out.

    Returns:
        {"train", "valid", "test": rolls, (T, 88) bool each}, and remarks, one line each, on what
        was left out.

    Raises:
        InputError: there are no MIDI files, some but not all of the three folders, or more than 5 %
            damaged files.
    """
    folders = {path.name.lower() for path in folder.iterdir() if path.is_dir()}
    present = [split for split in SPLITS if split in folders]
    if present and len(present) < len(SPLITS):
        missing = ", ".join(f"{split}/" for split in SPLITS if split not in folders)
        raise InputError(f"{folder}: has {present[0]}/ but no {missing}; give all three or none")
    top = {path: path.relative_to(folder).parts[0].lower() for path in files}
    # macOS writes a file ._name.mid beside name.mid. It holds metadata, no music.
    music = [path for path in files if not path.name.startswith("._")]
    used = [path for path in music if not present or top[path] in SPLITS]
    unused = [path for path in music if present and top[path] not in SPLITS]
    if not used:
        raise InputError(f"{folder}: no MIDI files in this folder")
    pieces: dict[str, list[np.ndarray]] = {split: [] for split in SPLITS}
    damaged: list[str] = []
    dropped: list[DroppedNotes] = []
    for path, parsed in zip(used, _parse_files(used, frame_beats, max_minutes), strict=True):
        if isinstance(parsed, str):
            damaged.append(parsed)
            continue
        packed, notes = parsed
        pieces[top[path] if present else assign_split(path.name)].append(packed)
        dropped.append(notes)
    if len(damaged) > _MAX_DAMAGED * len(used):
        raise InputError(
            f"{folder}: {len(damaged)} of {len(used)} MIDI files can't be used, the first:"
            f" {damaged[0]}"
        )
    out_of_range, too_short = (sum(counts) for counts in zip(*dropped, strict=True))
    remarks = [
        f"{folder}: {len(dropped)} of {len(used)} MIDI files read; left out: {out_of_range} notes"
        f" outside the 88 pitches, {too_short} notes that round to the same start and end"
    ]
    remarks += [f"{path}: left out, it is in none of train/ valid/ test/" for path in unused]
    if hidden := len(files) - len(music):
        remarks.append(f"{folder}: {hidden} files named ._* left out: metadata of macOS, no music")
    splits = {split: PackedRolls.concatenate(packed) for split, packed in pieces.items()}
    return splits, remarks + damaged


def assign_split(name: str) -> str:
    """Assign a file to a split by its name alone, so that other files never move it.

    Args:
        name: the name, without its folder.

    Returns:
        The split for its SHA-256 modulo 10: 0 to 7 = "train", 8 = "valid", 9 = "test".
    """
    tenth = int(hashlib.sha256(os.fsencode(name)).hexdigest(), 16) % 10
    return {8: "valid", 9: "test"}.get(tenth, "train")


def _parse_files(
    files: Sequence[Path], frame_beats: float, max_minutes: float
) -> Iterator[_Parsed]:
    """Yield the result of `_parse_file` for each file, in order; many files use all cores."""
    parse = partial(_parse_file, frame_beats=frame_beats, max_minutes=max_minutes)
    bar = partial(
        tqdm, total=len(files), desc="reading MIDI", unit=" files", leave=False, disable=None
    )
    if len(files) < _PARALLEL_FILES or (os.cpu_count() or 1) == 1:
        yield from bar(map(parse, files))
        return
    # forkserver: this process has threads (torch's), with which fork is unsafe.
    with ProcessPoolExecutor(mp_context=get_context("forkserver")) as pool:
        yield from bar(pool.map(parse, files, chunksize=32))


def _parse_file(path: Path, frame_beats: float, max_minutes: float) -> _Parsed:
    """Return the packed roll of a file, (T, 11) uint8, and its dropped notes; or an error."""
    try:
        roll, notes = midi_to_roll(path, frame_beats, max_minutes)
    except InputError as error:
        return str(error)
    return np.packbits(roll, axis=1), notes


def _is_midi(path: Path) -> bool:
    if path.suffix.lower() in (".mid", ".midi"):
        return True
    with path.open("rb") as file:
        return file.read(4) == b"MThd"
