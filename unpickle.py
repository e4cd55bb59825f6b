"""Pickles without their dangers: containers, numbers and arrays of numbers, and nothing else.

A pickle is a program: it names functions and has them called. This one may name the few that make
numpy arrays, and gets stand-ins for them, since numpy's own trust the file's word: an array of
objects over a buffer, say, is an array of pointers that the file chose. A short one may also ask
for much memory, in three ways that are looked for before anything is built; what a pickle that was
vetted holds takes memory in proportion to its length, but may refer to one thing many times.
Source: Python's manual, "pickle", section "Restricting Globals".
"""

import io
import pickle
import pickletools
import re
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

SHARED = 16  # times the length of a pickle that strings handed out again may have together
PUTS = {"PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"}
GETS = {"GET", "BINGET", "LONG_BINGET"}


def unpickle(content: bytes) -> Any:
    """Return what a pickle of Python 2 or 3 holds, `Array` in the place of numpy arrays.

    Raises:
        UnpicklingError: it names anything but the makers of numpy arrays, or asks for more memory
            than its length calls for.
        Exception: a damaged pickle raises nearly anything else.
    """
    vet(content)
    # latin1 turns Python 2's byte strings, numpy buffers among them, into str without loss.
    return PlainUnpickler(io.BytesIO(content), encoding="latin1").load()


def vet(content: bytes) -> None:
    """See that a pickle will not take much more memory than it has bytes.

    The number of a memo is an index into a table that grows to hold it; numbers that a pickler
    gives count up. Every call of a maker of bytes copies them, and a long string in the memo can be
    handed to it with two bytes a time. And a tuple of three times the one before, and so on, is
    harmless until somebody goes through it: that is for the reader to count.

    Raises:
        UnpicklingError: it would.
        ValueError: it is damaged.
    """
    memo: dict[int, int] = {}  # lengths of the strings in it
    length, handed, most = 0, 0, SHARED * len(content)
    for step, (opcode, argument, _) in enumerate(pickletools.genops(content)):
        name = opcode.name
        if name in PUTS:
            index = len(memo) if argument is None else int(argument)
            if index > step:
                raise pickle.UnpicklingError(f"memo {index} is beyond all that it holds")
            memo[index] = length
        elif name in GETS:
            handed += memo.get(int(argument or 0), 0)
            if handed > most:
                raise pickle.UnpicklingError("it hands out a long string over and over")
        length = len(argument) if isinstance(argument, (str, bytes, bytearray)) else 0


class Dtype:
    """Stands for numpy.dtype in a pickle: a kind of number, or "O" for a list of objects."""

    def __init__(self, name: str, *_: Any) -> None:
        """Take numpy's name of the kind, such as "i8"."""
        if not re.fullmatch(r"[<>=|]?[biuf][1248]|O8?", name):
            raise pickle.UnpicklingError(f"an array of {name!r} is no piano-roll")
        self.name, self.order = name, "="

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        """Take the byte order; numpy writes nothing else for numbers."""
        self.order = state[1]

    def read(self, raw: bytes | str) -> np.ndarray:
        """Return the numbers of a buffer; Python 2 wrote it as `str`."""
        if "O" in self.name:
            raise pickle.UnpicklingError("objects in a buffer")
        raw = raw.encode("latin1") if isinstance(raw, str) else raw
        return np.frombuffer(raw, np.dtype(self.order + self.name.lstrip("<>=|")))


class Array:
    """Stands for numpy.ndarray in a pickle, to be filled by `__setstate__`."""

    def __init__(self) -> None:
        """Start empty."""
        self.cells: np.ndarray | list[Any] = []

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        """Take (version, shape, dtype, whether in column order, buffer or list)."""
        _, shape, dtype, columns, raw = state
        if isinstance(raw, list):
            self.cells = raw
        else:
            self.cells = dtype.read(raw).reshape(shape, order="F" if columns else "C")

    def __len__(self) -> int:
        """Return the first axis' length."""
        return len(self.cells)

    def __iter__(self) -> Iterator[Any]:
        """Go along the first axis."""
        return iter(self.cells)


class Maker:
    """A function that a pickle may call, and do nothing else with."""

    def __init__(self, make: Callable[..., Any]) -> None:
        """Take the function."""
        self.make = make

    def __call__(self, *args: Any) -> Any:
        """Call it."""
        return self.make(*args)

    def __setstate__(self, state: Any) -> None:
        """Refuse what pickle's BUILD would set."""
        raise pickle.UnpicklingError("it changes a function")


MAKERS: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): "ndarray",  # only ever an argument
    ("numpy", "dtype"): Maker(Dtype),
    ("_codecs", "encode"): Maker(lambda text, _: text.encode("latin1")),  # bytes, for Python 2
    ("__builtin__", "bytes"): Maker(lambda: b""),  # no bytes, for Python 2
}
for core in ("numpy.core", "numpy._core"):  # NumPy 1 and 2
    MAKERS |= {
        (f"{core}.multiarray", "_reconstruct"): Maker(lambda *_: Array()),
        (f"{core}.multiarray", "scalar"): Maker(lambda dtype, raw: dtype.read(raw)[0]),
        (f"{core}.numeric", "_frombuffer"): Maker(
            lambda raw, dtype, shape, order, *_: dtype.read(raw).reshape(shape, order=order)
        ),
    }


class PlainUnpickler(pickle.Unpickler):
    """Builds containers, numbers and arrays of them; refuses everything else unbuilt."""

    def find_class(self, module: str, name: str) -> Any:
        """Return the stand-in for one of the makers of numpy arrays.

        Raises:
            UnpicklingError: the pickle names anything else.
        """
        if (module, name) in MAKERS:
            return MAKERS[module, name]
        raise pickle.UnpicklingError(f"it asks for {module}.{name}, which no piano-roll needs")
