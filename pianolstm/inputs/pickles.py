"""Reads piano-rolls from pickles, without running code of the file.

A pickle is a program: it names functions and calls them. The unpickler here resolves only the few
names by which NumPy pickles its arrays, and resolves them to stand-ins, because NumPy's own
functions trust their arguments: an object array over a raw buffer is an array of pointers of the
file's choice. Source: the Python manual, "pickle", section "Restricting Globals".

The format is that of Boulanger-Lewandowski, Bengio and Vincent (ICML 2012, arXiv:1206.6392).
"""

import io
import pickle
import re
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from pianolstm.files import InputError, one_line
from pianolstm.rolls import LOWEST_PITCH, PITCHES, SPLITS, PackedRolls, as_roll

_MAX_BYTES = 2**30


def read_pickle(path: Path) -> dict[str, PackedRolls]:
    """Read a pickled dict of splits.

    A split is a list of pieces, a piece a list of frames, a frame the MIDI numbers that sound, as a
    tuple, list or array of integers. A piece may also be one (T, 88) array of zeros and ones.
    Pickles of Python 2 and 3, and of NumPy 1 and 2, are read.

    Args:
        path: the file.

    Returns:
        {"train", "valid", "test": rolls, (T, 88) bool each}.

    Raises:
        InputError: the file is too large, damaged, names anything but NumPy's arrays, or has other
            contents.
    """
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise ValueError(f"larger than {_MAX_BYTES >> 20} MB")
        # latin1 maps Python 2's byte strings, among them NumPy's buffers, to str without loss.
        loaded = _Unpickler(io.BytesIO(path.read_bytes()), encoding="latin1").load()
    except Exception as error:  # a damaged pickle can raise almost any type
        raise InputError(
            f"{path}: not a pickle, .mat or .npz of piano-rolls, nor a folder of MIDI files"
            f" ({one_line(error)})"
        ) from None
    if not isinstance(loaded, dict) or not all(split in loaded for split in SPLITS):
        raise InputError(f"{path}: must be a dict with the keys 'train', 'valid' and 'test'")
    try:
        return {
            split: PackedRolls.concatenate(
                [np.packbits(_piece_to_roll(piece), axis=1) for piece in loaded[split]]
            )
            for split in SPLITS
        }
    except Exception as error:  # a piece can be any object that the unpickler builds
        raise InputError(f"{path}: not piano-rolls: {one_line(error)}") from None


def _piece_to_roll(piece: Any) -> np.ndarray:
    """Convert a piece, frames of MIDI numbers or a (T, 88) array, to a roll, (T, 88) bool.

    Raises:
        ValueError: a pitch is not an integer from 21 to 108.
    """
    frames = piece.items if isinstance(piece, _Array) else piece
    if isinstance(frames, np.ndarray) and frames.ndim == 2:
        return as_roll(frames)
    roll = np.zeros((len(frames), PITCHES), dtype=bool)
    pitches = [pitch for frame in frames for pitch in frame]
    if not pitches:
        return roll
    # The types are checked first: np.array would search lists of lists for numbers.
    if not all(issubclass(kind, (int, np.integer)) for kind in {type(p) for p in pitches}):
        raise ValueError("a frame must hold integers")
    numbers = np.array(pitches)
    if numbers.dtype.kind not in "iu":  # True and False, or too large for int64
        raise ValueError("a frame must hold integers")
    if numbers.min() < LOWEST_PITCH or numbers.max() >= LOWEST_PITCH + PITCHES:
        raise ValueError(
            f"MIDI numbers {numbers.min()} to {numbers.max()}; the range of a piano is 21 to 108"
        )
    rows = np.repeat(np.arange(len(frames)), [len(frame) for frame in frames])
    roll[rows, numbers - LOWEST_PITCH] = True
    return roll


# ---- the unpickler -------------------------------------------------------------------------------


class _Dtype:
    """Replaces numpy.dtype: a type of number, or objects, which are never read from a buffer."""

    def __init__(self, name: str, *_: Any) -> None:
        if not re.fullmatch(r"[<>=|]?[biuf][1248]|O8?", name):
            raise pickle.UnpicklingError(f"an array of type {name!r} is not a piano-roll")
        self.name, self.order = name.lstrip("<>=|"), "="

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        """Set the byte order, all that NumPy's state has for numbers."""
        self.order = state[1]

    def decode(self, buffer: bytes | str) -> np.ndarray:
        """Return the numbers in a buffer, which is a str if Python 2 wrote it."""
        if self.name.startswith("O"):
            raise pickle.UnpicklingError("an object array over a raw buffer")
        raw = buffer.encode("latin1") if isinstance(buffer, str) else buffer
        return np.frombuffer(raw, np.dtype(self.order + self.name))


class _Array:
    """Replaces numpy.ndarray: empty until BUILD calls `__setstate__`."""

    def __init__(self, *_: Any) -> None:
        self.items: np.ndarray | list[Any] = []

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        """Set the items from NumPy's (version, shape, dtype, Fortran order, list or buffer)."""
        _, shape, dtype, fortran, data = state
        if isinstance(data, list):
            self.items = data
        else:
            self.items = dtype.decode(data).reshape(shape, order="F" if fortran else "C")

    def __len__(self) -> int:
        return len(self.items)

    def __iter__(self) -> Iterator[Any]:
        return iter(self.items)


_ALLOWED: dict[tuple[str, str], Callable[..., Any]] = {
    ("numpy", "dtype"): _Dtype,
    # By these two, protocols 0 to 2 of Python 3 spell bytes.
    ("_codecs", "encode"): lambda text, _: text.encode("latin1"),
    ("__builtin__", "bytes"): lambda: b"",
}
for _core in ("numpy.core", "numpy._core"):  # NumPy 1 and 2
    _ALLOWED |= {
        (f"{_core}.multiarray", "_reconstruct"): _Array,
        (f"{_core}.multiarray", "scalar"): lambda dtype, buffer: dtype.decode(buffer)[0],
        (f"{_core}.numeric", "_frombuffer"): lambda buffer, dtype, shape, order, *_: dtype.decode(
            buffer
        ).reshape(shape, order=order),
    }


class _Unpickler(pickle.Unpickler):
    """Builds containers, numbers and arrays of numbers, and nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        """Return the stand-in for one of NumPy's names.

        Raises:
            UnpicklingError: the pickle names anything else.
        """
        if (module, name) == ("numpy", "ndarray"):
            return None  # NumPy passes it to _reconstruct, and never calls it
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(f"it names {module}.{name}, which is not allowed")
        # A new object each time: the opcode BUILD could change attributes of the function itself.
        return partial(_ALLOWED[module, name])
