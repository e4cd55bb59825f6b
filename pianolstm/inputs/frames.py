"""Converts what a data file holds, nested lists or arrays of numbers, to piano-rolls.

A file holds splits, a split a list of pieces. All pieces of a file have one of these layouts:

    pitches    a row for each frame, with the numbers of the pitches that sound in it; or with one
               number for each voice, which is -1, NaN or None where the voice rests
    cells      a matrix (T, 88), (88, T), (T, 128) or (128, T); a cell sounds unless it is 0
               (1, True and any velocity sound); 128 rows or columns are all MIDI numbers

Whole-valued floats are integers. Sources: the pickles of Boulanger-Lewandowski, Bengio and Vincent
(ICML 2012, arXiv:1206.6392); the JSB chorales at 8th and 16th notes (czhuang/JSB-Chorales-dataset);
Coconet's arrays of four voices (Huang et al., ISMIR 2017, arXiv:1903.07227).
"""

from collections.abc import Mapping, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pianolstm.files import InputError
from pianolstm.inputs.folders import content_hash, deal
from pianolstm.rolls import LOWEST_PITCH, PACKED_BYTES, PITCHES, SPLITS, PackedRolls, unpack

_NAMES = {"val": "valid", "validation": "valid"}  # of splits, beside their own
_ALL = "all"  # the pieces of a file that has no splits
_MIDI_PITCHES = 128
_MAX_VOICES = 16  # a wider row names each pitch once: it has no padding
_NUMBERS = (int, float, np.integer, np.floating, type(None))
_SHOWN = 5  # names in a remark


def to_splits(content: Any, path: Path) -> tuple[dict[str, PackedRolls], list[str]]:
    """Convert the content of a file to rolls.

    Args:
        content: a dict with "train", "valid" (or "val", "validation") and "test", or a list of
            pieces, which are dealt out by their content. A split is a list of pieces, or a dict of
            "sequences" and "sequence_lengths", as Pyro's data loader makes it. A piece is a list
            of lists, an array or a SciPy sparse matrix.
        path: the file, for messages.

    Returns:
        {"train", "valid", "test": rolls, (T, 88) bool each}, and remarks, one line each, on what
        was interpreted or left out.

    Raises:
        InputError: the content has another form.
    """
    try:
        splits, remarks = _find_splits(content)
        counts = {split: len(pieces) for split, pieces in splits.items()}
        rows = [_to_rows(piece) for pieces in splits.values() for piece in pieces]
        packed, more = _convert(rows)
        remarks += more
        if _ALL in splits:
            packed, counts, more = _deal(packed)
            remarks += more
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    except Exception:  # some part is no list, or no list of numbers: almost any type of error
        raise InputError(
            f"{path}: not piano-rolls; a split must be a list of pieces, and a piece a list of"
            f" frames, each the pitches that sound, or an array of frames x {PITCHES}"
        ) from None
    pieces = iter(packed)
    rolls = {
        split: PackedRolls.concatenate(list(islice(pieces, counts[split]))) for split in SPLITS
    }
    return rolls, [f"{path}: {remark}" for remark in remarks]


def _deal(packed: Sequence[np.ndarray]) -> tuple[list[np.ndarray], dict[str, int], list[str]]:
    """Deal pieces without splits out by content; return them in order, counts and a remark."""
    hashes = [content_hash(unpack(frames)) for frames in packed]
    dealt = deal(hashes)
    if len(dealt) < len(SPLITS):
        raise InputError(
            "has no 'train', 'valid' and 'test', and"
            f" {len(dealt)} different pieces; {len(SPLITS)} are needed to make them"
        )
    found = [dealt[digest] for digest in hashes]
    counts = {split: found.count(split) for split in SPLITS}
    ordered = [
        frames
        for split in SPLITS
        for frames, place in zip(packed, found, strict=True)
        if place == split
    ]
    shares = ", ".join(f"{count} {split}" for split, count in counts.items())
    return ordered, counts, [f"a list without splits; dealt out by content: {shares}"]


def _find_splits(content: Any) -> tuple[dict[str, Sequence[Any]], list[str]]:
    """Return the pieces of each split, or of `_ALL`, and a remark on other entries."""
    if not isinstance(content, Mapping):
        return {_ALL: _pieces_of(content)}, []
    names = {key: _NAMES.get(key, key) for key in content if isinstance(key, str)}
    splits = {}
    for split in SPLITS:
        keys = [key for key, name in names.items() if name == split]
        if not keys:
            raise InputError(f"has no {split!r}; it must have 'train', 'valid' and 'test'")
        if len(keys) > 1:
            raise InputError(f"has both {keys[0]!r} and {keys[1]!r}; keep one of them")
        splits[split] = _pieces_of(content[keys[0]])
    others = [str(key) for key in content if names.get(key) not in SPLITS]
    shown = ", ".join(others[:_SHOWN]) + (", ..." if len(others) > _SHOWN else "")
    return splits, [f"left out, as they are none of the three splits: {shown}"] if others else []


def _pieces_of(split: Any) -> Sequence[Any]:
    """Return the pieces of a split; those of Pyro's data loader may be padded to one length."""
    if not isinstance(split, Mapping):
        return list(split)
    if "sequences" not in split:
        raise InputError("a split must be a list of pieces")
    pieces = list(split["sequences"])
    lengths = split.get("sequence_lengths")
    if lengths is None:
        return pieces
    return [piece[: int(length)] for piece, length in zip(pieces, lengths, strict=True)]


class _Rows(NamedTuple):
    """A piece before its layout is known: rows of numbers."""

    numbers: np.ndarray  # (sum of widths,) bool, integers or floats, row by row
    widths: np.ndarray  # (rows,) int64, numbers in each row

    @property
    def width(self) -> int | None:
        """Return the width that all rows have; None if they differ or there are none."""
        same = len(self.widths) > 0 and (self.widths == self.widths[0]).all()
        return int(self.widths[0]) if same else None


def _to_rows(piece: Any) -> _Rows:
    """Return the rows of one piece: a list of lists, an array or a sparse matrix."""
    if hasattr(piece, "toarray"):
        piece = piece.toarray()
    elif hasattr(piece, "__array__"):
        piece = np.asarray(piece)
    if isinstance(piece, np.ndarray) and piece.size and piece.dtype.kind != "O":
        if piece.ndim != 2:
            shape = " x ".join(map(str, piece.shape))
            raise InputError(f"a piece is an array of {shape}; it must have two dimensions")
        if piece.dtype.kind not in "biuf":
            raise InputError("a piece is an array of something else than numbers")
        return _Rows(piece.ravel(), np.full(len(piece), piece.shape[1]))
    frames = list(piece)
    numbers = list(chain.from_iterable(frames))
    types = set(map(type, numbers))
    if types <= {int}:
        array = np.array(numbers, dtype=np.int64)
    elif types <= {bool, np.bool_}:
        array = np.array(numbers)
    elif all(issubclass(kind, _NUMBERS) and kind is not bool for kind in types):
        array = np.array(numbers, dtype=np.float64)  # None becomes NaN
    else:
        raise InputError("a frame holds something else than numbers")
    return _Rows(array, np.fromiter(map(len, frames), np.int64, len(frames)))


def _convert(pieces: Sequence[_Rows]) -> tuple[list[np.ndarray], list[str]]:
    """Return the rolls of all pieces of a file, packed, (T, 11) uint8 each, and remarks."""
    filled = [piece for piece in pieces if piece.numbers.size]
    for columns in (PITCHES, _MIDI_PITCHES):
        if filled and all(piece.width == columns for piece in filled):
            return _convert_cells(pieces, columns, transposed=False)
    widths = {piece.width for piece in filled}
    if len(widths) > 1 or any(width is not None and width > _MAX_VOICES for width in widths):
        for rows in (PITCHES, _MIDI_PITCHES):
            if all(piece.width is not None and len(piece.widths) == rows for piece in filled):
                return _convert_cells(pieces, rows, transposed=True)
    return _convert_pitches(pieces)


# ---- cells ---------------------------------------------------------------------------------------


def _convert_cells(
    pieces: Sequence[_Rows], pitches: int, *, transposed: bool
) -> tuple[list[np.ndarray], list[str]]:
    """Convert matrices whose columns, or rows if `transposed`, are 88 or 128 pitches."""
    packed, outside = [], 0
    for numbers, widths in pieces:
        if not numbers.size:
            frames = 0 if transposed else len(widths)
            packed.append(np.zeros((frames, PACKED_BYTES), dtype=np.uint8))
            continue
        cells = numbers.reshape((pitches, -1) if transposed else (-1, pitches))
        if not (cells >= 0).all():  # NaN fails too
            raise InputError("a cell is negative or NaN; 0 is silence, anything above sounds")
        roll = (cells.T if transposed else cells) != 0  # (T, 88 or 128)
        if pitches == _MIDI_PITCHES:
            kept = np.zeros(_MIDI_PITCHES, dtype=bool)
            kept[LOWEST_PITCH : LOWEST_PITCH + PITCHES] = True
            starts = roll & ~np.pad(roll, ((1, 0), (0, 0)))[:-1]
            outside += int(starts[:, ~kept].sum())
            roll = roll[:, kept]
        packed.append(np.packbits(roll, axis=1))
    remark = f"left out: {outside} notes outside the {PITCHES} pitches"
    return packed, [remark] if outside else []


# ---- pitches -------------------------------------------------------------------------------------


def _convert_pitches(pieces: Sequence[_Rows]) -> tuple[list[np.ndarray], list[str]]:
    """Convert rows of pitches, numbered as MIDI does or from 0, to packed rolls and remarks."""
    if any(numbers.dtype.kind == "b" for numbers, _ in pieces if numbers.size):
        raise InputError(f"True and False need {PITCHES} or {_MIDI_PITCHES} columns")
    remarks = []
    # All pieces at once: frames are numbered through.
    widths = np.concatenate([np.empty(0, np.int64), *(piece.widths for piece in pieces)])
    numbers = np.concatenate([np.empty(0, np.int64), *(piece.numbers for piece in pieces)])
    frames = np.repeat(np.arange(len(widths)), widths)
    few = widths[frames] <= _MAX_VOICES  # wider frames have no rests
    if np.bincount(frames[few & (numbers == 0)]).max(initial=0) > 1:  # as no pitch would be
        numbers[few & (numbers == 0)] = -1
        remarks.append("0 is read as a rest: some frames have it more than once")
    sounding = (numbers != -1) & ~np.isnan(numbers)
    frames, numbers = frames[sounding], numbers[sounding]
    lowest, remark = _lowest_pitch(numbers)
    rolls = np.zeros((len(widths), PITCHES), dtype=bool)
    rolls[frames, numbers.astype(np.int64) - lowest] = True
    wide = widths > _MAX_VOICES
    if (rolls[wide].sum(axis=1) < widths[wide]).any():
        raise InputError(
            f"a frame of {widths.max()} numbers has some twice, so they are not pitches; a matrix"
            f" of cells must have {PITCHES} or {_MIDI_PITCHES} columns"
        )
    ends = np.cumsum([len(piece.widths) for piece in pieces])
    return np.split(np.packbits(rolls, axis=1), ends)[: len(pieces)], remarks + remark


def _lowest_pitch(numbers: np.ndarray) -> tuple[int, list[str]]:
    """Return the number of column 0, 21 or 0, and a remark if it is 0.

    Numbers below 21 are not on a piano as MIDI counts. If no number is above 87 either, the file
    counts the pitches of the piano from 0.
    """
    if not numbers.size:
        return LOWEST_PITCH, []
    if not (whole := numbers == np.rint(numbers)).all():
        raise InputError(f"{numbers[~whole][0]:g} is not the number of a pitch")
    low, high = numbers.min(), numbers.max()
    if low >= LOWEST_PITCH and high < LOWEST_PITCH + PITCHES:
        return LOWEST_PITCH, []
    if low >= 0 and high < PITCHES:
        return 0, [
            f"its pitches, {low:.0f} to {high:.0f}, are counted from 0 (A0), as they go below"
            f" MIDI's {LOWEST_PITCH}: read as MIDI {low + LOWEST_PITCH:.0f} to"
            f" {high + LOWEST_PITCH:.0f}"
        ]
    raise InputError(
        f"MIDI numbers {low:.0f} to {high:.0f}; the range of a piano is"
        f" {LOWEST_PITCH} to {LOWEST_PITCH + PITCHES - 1}"
    )
