"""What was parsed once is not parsed again: the rolls of a file or a folder of MIDI, in one file.

The file is a line with the SHA-256 of all that follows; a line of JSON; then of each split the
lengths of its tunes, int64, and its packed frames (rolls.py), uint8. The frames are mapped into
memory, not read: a set may be larger than it.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import BinaryIO

import numpy as np

from files import whole_file
from rolls import BYTES, Rolls

FORMAT = "rolls, 1"  # another whenever something would be parsed to other rolls
HEADER = 2**24  # bytes of the line, at most
HASHED = 2**20  # bytes at once


def key_of(folder: Path, files: Iterable[Path], frame_beats: float, max_minutes: float) -> str:
    """Return what changes when a file comes, goes or is written to.

    Args:
        folder: where the files are, or the one file itself.
        files: all that are read.
        frame_beats: length of a frame in beats.
        max_minutes: of the longest MIDI file that is read.

    Raises:
        OSError: a file has gone meanwhile.
    """
    digest = hashlib.sha256(
        f"{FORMAT}\n{folder}\n{frame_beats!r} {max_minutes!r}\n".encode(errors="replace")
    )
    for path in files:
        about = path.stat()
        name = path.relative_to(folder).as_posix().encode("utf-8", "surrogateescape")
        digest.update(b"%s\0%d %d\n" % (name, about.st_size, about.st_mtime_ns))
    return digest.hexdigest()


def place_of(cache: Path, folder: Path, frame_beats: float) -> Path:
    """Return where below `cache` the rolls of a file or folder are kept, by frame length."""
    where = f"{folder.resolve()}\n{frame_beats!r}".encode("utf-8", "surrogateescape")
    return cache / f"{hashlib.sha256(where).hexdigest()[:24]}.rolls"


def keep(path: Path, key: str, splits: Mapping[str, Rolls], remarks: list[str]) -> None:
    """Write rolls and what is to be said of them.

    Raises:
        InputError, OSError: the place can't be written to.
    """
    header = {
        "format": FORMAT,
        "key": key,
        "remarks": remarks,
        "splits": {split: [len(rolls), len(rolls.packed)] for split, rolls in splits.items()},
    }
    parts = [json.dumps(header).encode() + b"\n"]
    for rolls in splits.values():
        parts += [rolls.lengths.astype("<i8").tobytes(), rolls.packed.tobytes()]
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    with whole_file(path) as temporary, temporary.open("wb") as file:
        file.write(digest.hexdigest().encode() + b"\n")
        file.writelines(parts)


def find(path: Path, key: str) -> tuple[dict[str, Rolls], list[str]] | None:
    """Return what was kept under this key; None if there is nothing, or it is damaged."""
    try:
        with path.open("rb") as file:
            digest = file.readline(HEADER).strip().decode()
            header = json.loads(file.readline(HEADER))
            if (header["format"], header["key"]) != (FORMAT, key):
                return None
            start = file.tell()
            file.seek(len(digest) + 1)
            if sha256_of(file) != digest:
                return None
        splits = {}
        for split, (tunes, frames) in header["splits"].items():
            lengths = np.fromfile(path, "<i8", tunes, offset=start)
            start += lengths.nbytes
            packed = np.memmap(path, np.uint8, "r", start, (frames, BYTES))
            start += packed.nbytes
            splits[split] = Rolls(packed, lengths)
        return splits, list(header["remarks"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def sha256_of(file: BinaryIO) -> str:
    """Return the SHA-256 of the rest of a file."""
    digest = hashlib.sha256()
    while block := file.read(HASHED):
        digest.update(block)
    return digest.hexdigest()
