"""Reads any supported file or folder as rolls, recognised by its content, not by its name.

Forms: lists or arrays of frames in pickles, JSON, `.npy`, `.npz` and `.mat` files; folders of
Standard MIDI Files, or of scores in MusicXML, ABC or Humdrum; and a `.zip` of any of these.
"""

import json
import math
import re
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pianolstm.files import InputError, file_lock, one_line
from pianolstm.inputs import cache
from pianolstm.inputs.archives import unpacked
from pianolstm.inputs.arrays import load_npy, load_npz
from pianolstm.inputs.folders import find_files, first_names
from pianolstm.inputs.frames import to_splits
from pianolstm.inputs.mat import load_mat
from pianolstm.inputs.midi_folder import find_midi_files, read_midi_folder
from pianolstm.inputs.pickles import MAX_BYTES, load_pickle
from pianolstm.inputs.scores import SCORE_SUFFIXES, read_score_folder, score_format
from pianolstm.midi import ReadOptions
from pianolstm.rolls import SPLITS, PackedRolls, read_npz

_Rolls = tuple[dict[str, PackedRolls], list[str]]


def read(
    path: str | Path,
    frame_beats: float,
    cache_dir: Path | None = None,
    max_minutes: float = math.inf,
    *,
    frame_seconds: float | None = None,
    min_frames: int = 0,
    sustain: bool = False,
) -> _Rolls:
    """Read a file of frames, a folder of MIDI files or scores, or a `.zip` of one of these.

    Pieces shorter than two frames are left out: they have no frame to predict from an earlier one.

    Args:
        path: the file or folder.
        frame_beats: length of a frame in beats, for MIDI files and scores; the other forms have
            frames.
        cache_dir: folder of the cache, from which an unchanged file or folder is read again; None =
            no cache.
        max_minutes: longer MIDI files are left out.
        frame_seconds: length of a frame in seconds, for MIDI files, in place of `frame_beats`.
        min_frames: the shortest note of a MIDI file or score in frames.
        sustain: whether the pedal holds the notes of MIDI files.

    Returns:
        {"train", "valid", "test": rolls, (T, 88) bool each}, and remarks, one line each, on what
        was left out or interpreted.

    Raises:
        InputError: the path does not exist, has none of these forms, is damaged, or has no pieces
            for one of the splits.
    """
    path = Path(path)
    if not (path.is_file() or path.is_dir()):
        raise InputError(f"{path}: no such file or folder")
    path, kind, files = _recognise(path)
    options = ReadOptions(frame_beats, frame_seconds, min_frames, sustain, max_minutes)
    if cache_dir is None:
        return _parse(path, kind, files, options)
    key = cache.cache_key(path, files, *options)
    entry = cache.cache_path(cache_dir, path, frame_beats, frame_seconds)
    with file_lock(cache_dir / "locks" / entry.stem):
        if cached := cache.load(entry, key):
            return cached
        splits, remarks = _parse(path, kind, files, options)
        try:
            cache.store(entry, key, splits, remarks)
        except (InputError, OSError) as error:
            remarks.append(f"{one_line(error)}: {path} can't be cached and will be parsed again")
    return splits, remarks


def _parse(path: Path, kind: str, files: Sequence[Path], options: ReadOptions) -> _Rolls:
    """Read as `read` does, without the cache, given what `_recognise` returned."""
    if kind == "zip":
        return _parse_zip(path, options)
    if kind == "MIDI":
        splits, remarks = read_midi_folder(path, files, options)
        if others := find_files(path, _is_named_score):
            names = first_names(others, path)
            remarks.append(f"{path}: scores left out, as there are MIDI files: {names}")
    elif kind == "scores":
        splits, remarks = read_score_folder(path, files, options)
    elif kind == "rolls":
        splits, remarks = read_npz(path), []
    else:
        splits, remarks = to_splits(_LOADERS[kind](path), path)
    for split in SPLITS:
        rolls = splits[split]
        splits[split] = rolls.without(rolls.lengths < 2)
        if short := len(rolls) - len(splits[split]):
            remarks.append(f"{path}: {short} pieces of {split} left out: shorter than two frames")
        if not splits[split]:
            raise InputError(
                f"{path}: no pieces for {split}; give more, or folders train/ valid/ test/"
            )
    return splits, remarks


def _parse_zip(path: Path, options: ReadOptions) -> _Rolls:
    """Read the files of an archive; messages name the archive, not the temporary folder."""
    with unpacked(path) as folder:
        try:
            splits, remarks = _parse(*_recognise(folder), options)
        except InputError as error:
            raise InputError(str(error).replace(str(folder), str(path))) from None
    return splits, [remark.replace(str(folder), str(path)) for remark in remarks]


# ---- recognition ---------------------------------------------------------------------------------


def _load_json(path: Path) -> Any:
    if path.stat().st_size > MAX_BYTES:
        raise InputError(f"{path}: larger than {MAX_BYTES >> 20} MB")
    try:
        return json.loads(path.read_bytes())
    except json.JSONDecodeError as error:
        raise InputError(f"{path}: damaged JSON, at line {error.lineno}") from None
    except (ValueError, RecursionError):  # not UTF-8, or lists in lists in lists
        raise InputError(f"{path}: damaged JSON") from None


_LOADERS: dict[str, Callable[[Path], Any]] = {
    "json": _load_json,
    "mat": load_mat,
    "npy": load_npy,
    "npz": load_npz,
    "pickle": load_pickle,
}
# Protocol 2 and later; 0 and 1, which begin with a mark, an empty list or dict, or a global.
_PICKLE = re.compile(rb"\x80|[(}\]]|c[\w.]+\n[\w.]+\n")
_REFUSED = {  # kinds that `_kind` tells apart: what to do about them
    "MATLAB 7.3": "MATLAB 7.3 files are not supported; save it with -v7",
    "HDF5": "HDF5 files are not supported; save the arrays as .npz",
    "gzip": "is compressed; unpack it first",
    "MIDI": "a single MIDI file is not a data set; give its folder",
    "score": "a single score is not a data set; give its folder",
    "unreadable": "can't be opened; check its permissions",
    "other": "not a pickle, JSON, .mat, .npy or .npz of piano-rolls, a .zip, or a folder of MIDI"
    " files or scores",
}


def _recognise(path: Path) -> tuple[Path, str, list[Path]]:
    """Return the file or folder that holds the data, its kind, and the files to read.

    Of a folder, MIDI files are read if there are any, else scores, else its one file of frames.

    Raises:
        InputError: the path holds nothing that can be read.
    """
    if path.is_file():
        kind = _kind(path)
        if kind in _REFUSED:
            raise InputError(f"{path}: {_REFUSED[kind]}")
        return path, kind, [path]
    if files := find_midi_files(path):
        return path, "MIDI", files
    kinds = {file: _kind(file) for file in find_files(path, _is_visible) if file.is_file()}
    if "score" in kinds.values():
        files = [f for f in kinds if kinds[f] == "score" or f.suffix.lower() in SCORE_SUFFIXES]
        return path, "scores", files
    data = [file for file, kind in kinds.items() if kind == "rolls" or kind in _LOADERS]
    if len(data) > 1:
        names = " and ".join(file.name for file in data[:2])
        raise InputError(f"{path}: has {len(data)} data files, such as {names}; name one of them")
    if not data:
        raise InputError(f"{path}: no MIDI files in this folder, nor scores, nor a data file")
    return data[0], kinds[data[0]], data


def _kind(path: Path) -> str:
    """Return a key of `_LOADERS` or `_REFUSED`, "rolls" or "zip" by the first bytes of a file."""
    try:
        with path.open("rb") as file:
            head = file.read(128)
    except OSError:
        return "unreadable"
    for start, kind in (
        (b"MATLAB 5.0", "mat"),
        (b"MATLAB 7.3", "MATLAB 7.3"),
        (b"\x89HDF", "HDF5"),
        (b"\x93NUMPY", "npy"),
        (b"\x1f\x8b", "gzip"),
        (b"MThd", "MIDI"),
    ):
        if head.startswith(start):
            return kind
    if head.startswith(b"RIFF") and head[8:12] == b"RMID":
        return "MIDI"
    if _PICKLE.match(head):
        return "pickle"
    if score_format(path):
        return "score"
    if head.startswith(b"PK\x03\x04"):
        return _kind_of_zip(path)
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    return "json" if text.startswith((b"{", b"[")) else "other"


def _is_named_score(path: Path) -> bool:
    return path.suffix.lower() in SCORE_SUFFIXES and _is_visible(path)


def _is_visible(path: Path) -> bool:
    return not path.name.startswith(".")  # macOS writes a file ._name beside each


def _kind_of_zip(path: Path) -> str:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except Exception:  # zipfile raises many types for damaged archives
        return "zip"
    if "train_frames.npy" in names:
        return "rolls"
    return "npz" if all(name.endswith(".npy") for name in names) else "zip"
