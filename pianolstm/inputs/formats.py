"""Reads any supported file or folder as rolls, recognised by its content, not by its name.

Formats: the pickles of Boulanger-Lewandowski et al. (ICML 2012), `.mat` files with the same frames,
this program's `.npz`, and folders of Standard MIDI Files.
"""

import math
from collections.abc import Sequence
from pathlib import Path

from pianolstm.files import InputError, file_lock, one_line
from pianolstm.inputs import cache
from pianolstm.inputs.mat import read_mat
from pianolstm.inputs.midi_folder import find_midi_files, read_midi_folder
from pianolstm.inputs.pickles import read_pickle
from pianolstm.midi import ReadOptions
from pianolstm.rolls import SPLITS, PackedRolls, read_npz


def read(
    path: str | Path,
    frame_beats: float,
    cache_dir: Path | None = None,
    max_minutes: float = math.inf,
    *,
    frame_seconds: float | None = None,
    min_frames: int = 0,
    sustain: bool = False,
) -> tuple[dict[str, PackedRolls], list[str]]:
    """Read a pickle, a `.mat` file, an `.npz` file or a folder of MIDI files.

    Pieces shorter than two frames are left out: they have no frame to predict from an earlier one.

    Args:
        path: the file or folder.
        frame_beats: length of a frame in beats, for MIDI files; the other formats have frames.
        cache_dir: folder of the cache, from which an unchanged file or folder is read again; None =
            no cache.
        max_minutes: longer MIDI files are left out.
        frame_seconds: length of a frame in seconds, for MIDI files, in place of `frame_beats`.
        min_frames: the shortest note of a MIDI file in frames.
        sustain: whether the pedal holds the notes of MIDI files.

    Returns:
        {"train", "valid", "test": rolls, (T, 88) bool each}, and remarks, one line each, on what
        was left out.

    Raises:
        InputError: the path does not exist, has none of these formats, is damaged, or has no pieces
            for one of the splits.
    """
    path = Path(path)
    if not (path.is_file() or path.is_dir()):
        raise InputError(f"{path}: no such file or folder")
    files = find_midi_files(path) if path.is_dir() else [path]
    options = ReadOptions(frame_beats, frame_seconds, min_frames, sustain, max_minutes)
    if cache_dir is None:
        return _parse(path, files, options)
    key = cache.cache_key(path, files, *options)
    entry = cache.cache_path(cache_dir, path, frame_beats, frame_seconds)
    with file_lock(cache_dir / "locks" / entry.stem):
        if cached := cache.load(entry, key):
            return cached
        splits, remarks = _parse(path, files, options)
        try:
            cache.store(entry, key, splits, remarks)
        except (InputError, OSError) as error:
            remarks.append(f"{one_line(error)}: {path} can't be cached and will be parsed again")
    return splits, remarks


def _parse(
    path: Path, files: Sequence[Path], options: ReadOptions
) -> tuple[dict[str, PackedRolls], list[str]]:
    """Read as `read` does, without the cache, given the MIDI files if `path` is a folder."""
    if path.is_dir():
        splits, remarks = read_midi_folder(path, files, options)
    else:
        splits, remarks = _read_file(path), []
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


def _read_file(path: Path) -> dict[str, PackedRolls]:
    """Read one file with the reader for its first bytes."""
    with path.open("rb") as file:
        head = file.read(128)
    if head.startswith(b"PK\x03\x04"):
        return read_npz(path)
    if head.startswith(b"MATLAB 5.0"):
        return read_mat(path)
    if head.startswith(b"MATLAB 7.3"):
        raise InputError(f"{path}: MATLAB 7.3 files are not supported; save it with -v7")
    if head.startswith(b"MThd") or (head.startswith(b"RIFF") and head[8:12] == b"RMID"):
        raise InputError(f"{path}: a single MIDI file is not a data set; give its folder")
    return read_pickle(path)
