"""Reads a folder of MIDI files as a data set, and assigns each piece to a split."""

import hashlib
import os
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from tqdm import tqdm

from pianolstm.files import InputError
from pianolstm.inputs.folders import (
    content_hash,
    copy_remarks,
    deal_pieces,
    find_files,
    find_splits,
    first_names,
)
from pianolstm.midi import MidiAccount, NoRollError, ReadOptions, UnreadableError, read_pieces
from pianolstm.rolls import SPLITS, PackedRolls

_PARALLEL_FILES = 500  # from here on, several processes repay the two seconds of their start
_MAX_DAMAGED = 0.05  # share of the files of a folder; one file may always be damaged
_NAMED_DAMAGED = 10  # damaged files that get a line of their own


@dataclass
class _File:
    """What a file gave."""

    pieces: list[tuple[np.ndarray, str]] = field(default_factory=list)  # (T, 11) uint8, its hash
    left_out: list[str] = field(default_factory=list)  # the reason, for each piece without a roll
    account: MidiAccount = field(default_factory=MidiAccount)
    damaged: str = ""  # the message of a file that is not MIDI or damaged
    unreadable: str = ""  # the message of a file that can't be opened


def find_midi_files(folder: Path) -> list[Path]:
    """Return the MIDI files in a folder and below it, sorted; links are followed.

    Args:
        folder: where to look. A file counts as MIDI if its name ends in .mid or .midi, or if its
            content starts with MThd or is RIFF with MIDI in it.
    """
    return find_files(folder, _is_midi)


def read_midi_folder(
    folder: Path, files: Sequence[Path], options: ReadOptions
) -> tuple[dict[str, PackedRolls], list[str]]:
    """Read MIDI files, split by folders train/, valid/ and test/ or, without them, by content.

    Args:
        folder: the folder.
        files: what `find_midi_files` returned for it.
        options: how notes become frames; longer files are left out.

    Returns:
        {"train", "valid", "test": rolls, (T, 88) bool each}, and remarks, one line each, on what
        was left out.

    Raises:
        InputError: there are no MIDI files, some but not all of the three folders, those of several
            sets, or more than 5 % damaged files.
    """
    # macOS writes a file ._name.mid beside name.mid. It holds metadata, no music.
    music = [path for path in files if not path.name.startswith("._")]
    if not music:
        raise InputError(f"{folder}: no MIDI files in this folder")
    layout = find_splits(folder, music)
    parsed = list(_parse_files(layout.files, options))
    remarks = _file_remarks(folder, layout.files, parsed, options)
    hashes = [digest for file in parsed for _, digest in file.pieces]
    if not hashes:
        details = "; ".join(remark.removeprefix(f"{folder}: ") for remark in remarks[1:4])
        raise InputError(f"{folder}: no music in its {len(parsed):,} MIDI files; {details}")
    dealt = {} if layout.splits else deal_pieces(folder, hashes)
    pieces: dict[str, list[np.ndarray]] = {split: [] for split in SPLITS}
    of_split: dict[str, list[str]] = {split: [] for split in SPLITS}
    for i, file in enumerate(parsed):
        for packed, digest in file.pieces:
            split = layout.splits[i] if layout.splits else dealt[digest]
            pieces[split].append(packed)
            of_split[split].append(digest)
    remarks += copy_remarks(folder, of_split)
    if hidden := len(files) - len(music):
        remarks.append(f"{folder}: {hidden} files named ._* left out: metadata of macOS, no music")
    splits = {split: PackedRolls.concatenate(packed) for split, packed in pieces.items()}
    return splits, remarks + layout.remarks


def assign_split(name: str) -> str:
    """Assign a chorale of music21 to a split by its name.

    Args:
        name: the name, without its folder.

    Returns:
        The split for its SHA-256 modulo 10: 0 to 7 = "train", 8 = "valid", 9 = "test".
    """
    tenth = int(hashlib.sha256(os.fsencode(name)).hexdigest(), 16) % 10
    return {8: "valid", 9: "test"}.get(tenth, "train")


# ---- what a user should know ---------------------------------------------------------------------


def _file_remarks(
    folder: Path, files: Sequence[Path], parsed: Sequence[_File], options: ReadOptions
) -> list[str]:
    """Return remarks on notes and files that were left out.

    Raises:
        InputError: too many files are damaged.
    """
    damaged = [file.damaged for file in parsed if file.damaged]
    unreadable = [file.unreadable for file in parsed if file.unreadable]
    if len(damaged) > max(_MAX_DAMAGED * len(files), 1):
        raise InputError(
            f"{folder}: {len(damaged)} of {len(files)} MIDI files are damaged, the first:"
            f" {damaged[0]}"
        )
    used, count = sum(bool(file.pieces) for file in parsed), sum(len(f.pieces) for f in parsed)
    more = f", {count:,} pieces" if count != used else ""
    remarks = [f"{folder}: {used:,} of {len(files):,} MIDI files read{more}"]
    account = sum((file.account for file in parsed), MidiAccount())
    remarks += [f"{folder}: {remark}" for remark in account.remarks(options)]
    reasons: dict[str, list[Path]] = defaultdict(list)
    for path, file in zip(files, parsed, strict=True):
        for reason in file.left_out:
            reasons[reason].append(path)
    remarks += [
        f"{folder}: left out, {reason}: {first_names(paths, folder)}"
        for reason, paths in sorted(reasons.items())
    ]
    for messages in (unreadable, damaged):
        remarks += messages[:_NAMED_DAMAGED]
        if (more_files := len(messages) - _NAMED_DAMAGED) > 0:
            remarks.append(f"{folder}: {more_files:,} more files like these")
    return remarks


# ---- parsing -------------------------------------------------------------------------------------


def _parse_files(files: Sequence[Path], options: ReadOptions) -> Iterator[_File]:
    """Yield the result of `_parse_file` for each file, in order; many files use all cores."""
    parse = partial(_parse_file, options=options)
    bar = partial(
        tqdm, total=len(files), desc="reading MIDI", unit=" files", leave=False, disable=None
    )
    if len(files) < _PARALLEL_FILES or (os.cpu_count() or 1) == 1:
        yield from bar(map(parse, files))
        return
    # forkserver: this process has threads (torch's), with which fork is unsafe.
    with ProcessPoolExecutor(mp_context=get_context("forkserver")) as pool:
        yield from bar(pool.map(parse, files, chunksize=32))


def _parse_file(path: Path, options: ReadOptions) -> _File:
    """Return the pieces of a file, or why it has none."""
    file = _File()
    try:
        pieces = read_pieces(path, options)
    except NoRollError as error:
        pieces = [error]
    except UnreadableError as error:
        return _File(unreadable=str(error))
    except InputError as error:
        return _File(damaged=str(error))
    for piece in pieces:
        if isinstance(piece, NoRollError):
            file.left_out.append(piece.reason)
            file.account += piece.account
            continue
        roll, account = piece
        file.account += account
        if len(roll) < 2:
            file.left_out.append("shorter than two frames")
        else:
            file.pieces.append((np.packbits(roll, axis=1), content_hash(roll)))
    return file


def _is_midi(path: Path) -> bool:
    if path.suffix.lower() in (".mid", ".midi"):
        return True
    try:
        with path.open("rb") as file:
            head = file.read(12)
    except OSError:
        return False
    return head.startswith(b"MThd") or (head.startswith(b"RIFF") and head.endswith(b"RMID"))
