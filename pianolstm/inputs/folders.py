"""What a folder of music holds: its files, links followed, and the split of each piece.

A folder may have folders train/, valid/ and test/. Without them, the content of each piece decides
its split, so that copies of a piece never are in two splits.
"""

import hashlib
import os
import stat
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from pianolstm.files import InputError
from pianolstm.rolls import SPLITS

SPLIT_FOLDERS = {  # name of a folder, in any case: split
    "train": "train",
    "valid": "valid",
    "validation": "valid",
    "val": "valid",
    "test": "test",
}
_BOUNDS = {"train": 0.8, "valid": 0.9, "test": 1.0}  # upper ends of the shares of the splits
_FEW_PIECES = 30  # fewer different pieces leave one or two for validation and for the test
_NAMED = 3  # files that a remark on many of them names


# ---- files ---------------------------------------------------------------------------------------


def find_files(folder: Path, wanted: Callable[[Path], bool]) -> list[Path]:
    """Return the files in a folder and below it, sorted; links are followed.

    A folder that several links lead to is read once, and a link to a folder above is passed over.

    Args:
        folder: where to look.
        wanted: whether to return a file; called for links that lead nowhere, too.

    Returns:
        The files, and the folders that can't be opened, so that whoever reads them reports them.

    Raises:
        InputError: the folder itself can't be opened.
    """
    found: list[Path] = []
    home = folder.resolve()
    seen: set[tuple[int, int]] = set()  # (device, inode) of folders
    links: list[Path] = [folder]
    # Real folders come before links, and links named as a split before others: "all -> ." or
    # "best -> train" must not take the files of train/ away.
    while links:
        links.sort(key=lambda path: (path.name.lower() not in SPLIT_FOLDERS, path))
        link = links.pop(0)
        if link != folder and home.is_relative_to(link.resolve()):
            continue
        folders = [link]
        while folders:
            here = folders.pop()
            try:
                status = here.stat()
                if (status.st_dev, status.st_ino) in seen:
                    continue
                seen.add((status.st_dev, status.st_ino))
                entries = list(os.scandir(here))
            except OSError as error:
                if here == folder:
                    raise InputError(f"{folder}: can't be opened ({error.strerror})") from None
                found.append(here)
                continue
            for entry in entries:
                path = here / entry.name
                if entry.is_dir(follow_symlinks=False):
                    folders.append(path)
                elif entry.is_symlink() and path.is_dir():
                    links.append(path)
                elif _may_be_file(path) and wanted(path):
                    found.append(path)
    return sorted(found)


def _may_be_file(path: Path) -> bool:
    """Return whether a path is a file, or a link that can't be followed; not a pipe or socket."""
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except OSError:
        return True


def first_names(paths: Sequence[Path], folder: Path) -> str:
    """Return the names of the first few files, relative to a folder: "a.mid, b.mid and 7 more"."""
    names = ", ".join(str(path.relative_to(folder)) for path in paths[:_NAMED])
    return names + (f" and {len(paths) - _NAMED:,} more" if len(paths) > _NAMED else "")


# ---- folders of splits ---------------------------------------------------------------------------


class Layout(NamedTuple):
    """Which files of a folder to read, and into which split."""

    files: list[Path]
    splits: list[str] | None  # of each file; None = the content of the pieces decides
    remarks: list[str]


def find_splits(folder: Path, files: Sequence[Path]) -> Layout:
    """Find the folders train/, valid/ and test/ among the folders of the files.

    They are in the folder itself or, if nothing else is there, further down. What looks like two
    sets, or like a set beside other files, is refused rather than mixed.

    Args:
        folder: the folder that the user named.
        files: files below it.

    Raises:
        InputError: some but not all of the three folders are there, or they are of several sets.
    """
    roots: dict[Path, dict[Path, str]] = defaultdict(dict)  # {parent of splits: {file: split}}
    lone: dict[Path, set[Path]] = defaultdict(set)  # {parent of splits: folders of splits}
    for path in files:
        parts = path.relative_to(folder).parts[:-1]
        depth = next((i for i, part in enumerate(parts) if part.lower() in SPLIT_FOLDERS), None)
        if depth is not None:
            root = folder.joinpath(*parts[:depth])
            roots[root][path] = SPLIT_FOLDERS[parts[depth].lower()]
            lone[root].add(Path(*parts[: depth + 1]))
    # A folder further down that is named test, alone, need not be a split.
    sets = sorted(r for r, found in roots.items() if r == folder or len({*found.values()}) > 1)
    if not sets:
        names = sorted(name for found in lone.values() for name in found)
        remarks = [f"{folder}: {name}/ is read like any other folder" for name in names]
        return Layout(list(files), None, remarks)
    root = folder if folder in sets else sets[0]
    found = roots[root]
    beside = [path for path in files if path not in found]
    if len(sets) > 1 and root != folder:
        several = ", ".join(f"{path.relative_to(folder)}/" for path in sets[:_NAMED])
        raise InputError(
            f"{folder}: {len(sets)} sets with splits of their own ({several}); name one of them:"
            f" --data {root}"
        )
    if root != folder and beside:
        raise InputError(
            f"{folder}: {root.relative_to(folder)}/ has splits of its own, {_names(found)},"
            f" but there is more beside it ({first_names(beside, folder)}); name it: --data {root}"
        )
    if missing := set(SPLITS) - set(found.values()):
        raise InputError(
            f"{root}: has music in {_names(found)} but none in {_names(missing)}; give all three or"
            " none"
        )
    remarks = []
    if root != folder:
        remarks.append(f"{folder}: the splits are those of {root.relative_to(folder)}/")
    if beside:
        remarks.append(
            f"{folder}: left out, in none of train/ valid/ test/: {first_names(beside, folder)}"
        )
    used = [path for path in files if path in found]
    return Layout(used, [found[path] for path in used], remarks)


def _names(splits: Collection[str] | dict[Path, str]) -> str:
    """Return the names of splits, as folders, in order."""
    names = splits.values() if isinstance(splits, dict) else splits
    return " ".join(f"{split}/" for split in SPLITS if split in names)


# ---- splits by content ---------------------------------------------------------------------------


def content_hash(roll: np.ndarray) -> str:
    """Return a hash that is the same for rolls that are equal but for transposition.

    Silence before and after the piece does not count.

    Args:
        roll: (T, 88) bool.

    Returns:
        64 hexadecimal digits.
    """
    frames, columns = np.flatnonzero(roll.any(axis=1)), np.flatnonzero(roll.any(axis=0))
    if not len(frames):
        return hashlib.sha256(b"").hexdigest()
    music = roll[frames[0] : frames[-1] + 1, columns[0] : columns[-1] + 1]
    shape = f"{music.shape[0]} {music.shape[1]} ".encode()
    return hashlib.sha256(shape + np.packbits(music).tobytes()).hexdigest()


def deal(hashes: Sequence[str]) -> dict[str, str]:
    """Deal pieces out to the splits, 80/10/10, by their content alone.

    The hash of a piece, as a number from 0 to 1, decides: below 0.8 train, below 0.9 valid, else
    test. So a piece stays where it is when others are added. Where valid or test would be empty,
    the pieces of train with the highest hashes go there, and where train would have fewer pieces
    than the two together, it gets their lowest ones: a few pieces may move when others are added.

    Args:
        hashes: `content_hash` of each piece; copies have the same.

    Returns:
        {hash: split}. A split is empty if there are fewer than three different hashes.
    """
    dealt: dict[str, list[str]] = {split: [] for split in SPLITS}  # hashes, ascending
    for digest in sorted(set(hashes)):
        share = int(digest[:13], 16) / 16**13
        dealt[next(split for split, bound in _BOUNDS.items() if share < bound)].append(digest)
    for split in ("test", "valid"):
        if not dealt[split]:
            donor = max(SPLITS, key=lambda name: len(dealt[name]))
            dealt[split] = [dealt[donor].pop()] if len(dealt[donor]) > 1 else []
    while len(dealt["train"]) < len(dealt["valid"]) + len(dealt["test"]):
        donor = max(("valid", "test"), key=lambda name: len(dealt[name]))
        if len(dealt[donor]) < 2 and dealt["train"]:
            break
        dealt["train"].append(dealt[donor].pop(0))
    return {digest: split for split, members in dealt.items() for digest in members}


def deal_pieces(folder: Path, hashes: Sequence[str]) -> dict[str, str]:
    """Deal pieces out to the splits as `deal` does.

    Args:
        folder: of the pieces, for the message.
        hashes: `content_hash` of each piece.

    Raises:
        InputError: there are too few different pieces for three splits.
    """
    dealt = deal(hashes)
    if len(dealt) < len(SPLITS):
        raise InputError(
            f"{folder}: {len(dealt)} different pieces; {len(SPLITS)} are needed, one for each of"
            " train, valid and test, better many more"
        )
    return dealt


def copy_remarks(folder: Path, of_split: Mapping[str, Sequence[str]]) -> list[str]:
    """Return remarks on copies, and on splits of few pieces.

    Args:
        folder: of the pieces.
        of_split: `content_hash` of each piece, by split.
    """
    every = [digest for hashes in of_split.values() for digest in hashes]
    train = set(of_split["train"])
    remarks = []
    if copies := len(every) - len(set(every)):
        remarks.append(
            f"{folder}: copies among {len(every):,} pieces, equal to another but for"
            f" transposition: {copies:,}"
        )
    for split in ("valid", "test"):
        if leaked := sum(digest in train for digest in of_split[split]):
            remarks.append(
                f"{folder}: pieces of {split} that are in train too, equal but for transposition:"
                f" {leaked:,} of {len(of_split[split]):,}; a model can have memorised them"
            )
    if len(different := set(every)) < _FEW_PIECES:
        valid, test = (len(set(of_split[split])) for split in ("valid", "test"))
        remarks.append(
            f"{folder}: only {len(different)} different pieces, {valid} of them for validation and"
            f" {test} for the test; so few say little about a model"
        )
    return remarks
