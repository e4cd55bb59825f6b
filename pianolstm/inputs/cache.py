"""Caches the rolls of a file or folder, so that it is parsed once.

An entry is two files: NAME.npy, the packed frames of all splits, (sum of T, 11) uint8, which is
mapped into memory, so that a set may be larger than RAM; and NAME.json, with the key, the lengths
of the pieces and the fingerprint of the frames.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from pianolstm.files import atomic_write, read_json, write_json
from pianolstm.rolls import PackedRolls, fingerprint

_VERSION = "rolls, 3"  # a new one whenever some file would be parsed to other rolls


def cache_key(folder: Path, files: Iterable[Path], *options: object) -> str:
    """Return a hash that changes when a file is added, removed, renamed or written to.

    Args:
        folder: the folder of the files, or the one file itself.
        files: all files that are read.
        options: whatever else decides the rolls, such as the length of a frame.

    Returns:
        64 hexadecimal digits.
    """
    digest = hashlib.sha256(f"{_VERSION}\n{folder}\n{options!r}\n".encode(errors="replace"))
    for path in files:
        try:
            status = path.stat()
        except OSError:  # a link that leads nowhere; the reader reports it
            digest.update(b"%s\0\n" % path.name.encode("utf-8", "surrogateescape"))
            continue
        name = path.relative_to(folder).as_posix().encode("utf-8", "surrogateescape")
        digest.update(b"%s\0%d %d\n" % (name, status.st_size, status.st_mtime_ns))
    return digest.hexdigest()


def cache_path(cache_dir: Path, folder: Path, *frame: object) -> Path:
    """Return the path of the `.npy` file for a file or folder and a frame length.

    Args:
        cache_dir: the folder of the cache.
        folder: the file or folder whose rolls are cached.
        frame: the length of a frame.
    """
    source = f"{folder.resolve()}\n{frame!r}".encode("utf-8", "surrogateescape")
    return cache_dir / f"{hashlib.sha256(source).hexdigest()[:24]}.npy"


def store(path: Path, key: str, splits: Mapping[str, PackedRolls], remarks: Sequence[str]) -> None:
    """Write an entry.

    Args:
        path: of the `.npy` file; the JSON is written beside it.
        key: what `cache_key` returned.
        splits: {"train", "valid", "test": rolls, (T, 88) bool each}.
        remarks: of the reader, returned by `load`.

    Raises:
        InputError: the path is not writable.
        OSError: the disk is full or broken.
    """
    with atomic_write(path) as temporary, temporary.open("wb") as file:
        np.save(file, np.concatenate([rolls.packed for rolls in splits.values()]))
    write_json(
        path.with_suffix(".json"),
        {
            "key": key,
            "fingerprint": fingerprint(splits),
            "remarks": list(remarks),
            "lengths": {split: rolls.lengths.tolist() for split, rolls in splits.items()},
        },
    )


def load(path: Path, key: str) -> tuple[dict[str, PackedRolls], list[str]] | None:
    """Read an entry.

    Args:
        path: of the `.npy` file.
        key: what `cache_key` returns now.

    Returns:
        The rolls, mapped into memory, and the remarks; None if there is no entry, it has another
        key, or it is damaged.
    """
    try:
        entry = read_json(path.with_suffix(".json"))
        if entry["key"] != key:
            return None
        frames = np.load(path, mmap_mode="r", allow_pickle=False)  # (sum of T, 11)
        splits, start = {}, 0
        for split, lengths in entry["lengths"].items():
            stop = start + sum(lengths)
            splits[split] = PackedRolls(frames[start:stop], np.array(lengths, dtype=np.int64))
            start = stop
        if start != len(frames) or fingerprint(splits) != entry["fingerprint"]:
            return None
        return splits, list(entry["remarks"])
    except Exception:  # whatever is wrong with the entry, the source can be parsed again
        return None
