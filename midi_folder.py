"""A folder of MIDI files -> {split: [rolls]}, for data.py."""

import hashlib
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from tqdm import tqdm

from files import InputError
from midi import Counts, midi_to_roll
from rolls import SPLITS, Rolls, Splits

MANY = 500  # files that are worth the two seconds until several processes are up
UNREADABLE_SHARE = 0.05  # a folder with more damaged files than this is refused

Parsed = tuple[np.ndarray, Counts] | str


def midi_files(folder: Path) -> list[Path]:
    """Return all below a folder that look like MIDI."""
    return sorted(path for path in folder.rglob("*") if path.is_file() and looks_like_midi(path))


def read_midi_folder(
    folder: Path, below: Sequence[Path], frame_beats: float, max_minutes: float
) -> tuple[Splits, list[str]]:
    """Read every MIDI file below a folder, split by its folders train/ valid/ test/ if it has them.

    Without them a file's split is decided by its name alone: SHA-256 modulo 10, where 0 to 7 is
    train, 8 valid, 9 test. So a file stays where it is when others come and go.

    Args:
        folder: where they are.
        below: what `midi_files` found there.
        frame_beats: length of a frame in beats.
        max_minutes: files that are longer are left out.

    Raises:
        InputError: no MIDI files, one of the three folders missing, or more than 5 % damaged.
    """
    found = {path.name.lower() for path in folder.iterdir() if path.is_dir()}
    named = [split for split in SPLITS if split in found]
    if named and len(named) < len(SPLITS):
        missing = ", ".join(f"{split}/" for split in SPLITS if split not in found)
        raise InputError(f"{folder}: has {named[0]}/ but no {missing}; give all three or none")
    top = {path: path.relative_to(folder).parts[0].lower() for path in below}
    # What macOS hides beside a tune.mid as ._tune.mid is no music.
    hidden = [path for path in below if path.name.startswith("._")]
    tunes = [path for path in below if not path.name.startswith("._")]
    files = [path for path in tunes if not named or top[path] in SPLITS]
    beside = [path for path in tunes if named and top[path] not in SPLITS]
    if not files:
        raise InputError(f"{folder}: no MIDI files in this folder")
    splits: dict[str, list[np.ndarray]] = {split: [] for split in SPLITS}
    damaged: list[str] = []
    counted: list[Counts] = []
    for path, parsed in zip(files, parse(files, frame_beats, max_minutes), strict=True):
        if isinstance(parsed, str):
            damaged.append(parsed)
            continue
        packed, counts = parsed
        splits[top[path] if named else split_of(path.name)].append(packed)
        counted.append(counts)
    if len(damaged) > UNREADABLE_SHARE * len(files):
        raise InputError(
            f"{folder}: {len(damaged)} of {len(files)} MIDI files can't be used, the first:"
            f" {damaged[0]}"
        )
    off_keys, too_short = (sum(column) for column in zip(*counted, strict=True))
    remarks = [
        f"{folder}: {len(counted)} of {len(files)} MIDI files read; left out: {off_keys} notes off"
        f" the 88 keys, {too_short} notes that begin and end at the same frame"
    ]
    remarks += [f"{path}: left out, it is in none of train/ valid/ test/" for path in beside]
    if hidden:
        remarks.append(f"{folder}: {len(hidden)} files named ._* left out: macOS's own, no music")
    return {split: Rolls.joined(packed) for split, packed in splits.items()}, remarks + damaged


def parse(files: Sequence[Path], frame_beats: float, max_minutes: float) -> Iterator[Parsed]:
    """Yield what `parse_one` makes of each file, in their order; many are shared among cores."""
    one = partial(parse_one, frame_beats=frame_beats, max_minutes=max_minutes)
    bar = partial(
        tqdm, total=len(files), desc="reading MIDI", unit=" files", leave=False, disable=None
    )
    if len(files) < MANY or (os.cpu_count() or 1) == 1:
        yield from bar(map(one, files))
        return
    # A server that has loaded the program once: it is safe to fork, unlike this process.
    with ProcessPoolExecutor(mp_context=get_context("forkserver")) as pool:
        yield from bar(pool.map(one, files, chunksize=32))


def parse_one(path: Path, frame_beats: float, max_minutes: float) -> Parsed:
    """Return the packed roll of a file, (T, 11) uint8, and what is not in it; or what is wrong."""
    try:
        roll, counts = midi_to_roll(path, frame_beats, max_minutes)
    except InputError as error:
        return str(error)
    return np.packbits(roll, axis=1), counts


def looks_like_midi(path: Path) -> bool:
    """Whether a file has MIDI's first four bytes, or its name says that it should."""
    if path.suffix.lower() in (".mid", ".midi"):
        return True
    with path.open("rb") as file:
        return file.read(4) == b"MThd"


def split_of(name: str) -> str:
    """Return the split that a name falls into: 80 % train, 10 % valid, 10 % test."""
    tenth = int(hashlib.sha256(os.fsencode(name)).hexdigest(), 16) % 10
    return {8: "valid", 9: "test"}.get(tenth, "train")
