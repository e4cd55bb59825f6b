"""Reads pickles of lists and arrays of numbers, without running code of the file.

A pickle is a program: it names functions and calls them. The unpickler here resolves only the few
names by which NumPy and SciPy pickle their arrays, and resolves them to stand-ins, because NumPy's
own functions trust their arguments: an object array over a raw buffer is an array of pointers of
the file's choice. Source: the Python manual, "pickle", section "Restricting Globals".
"""

import io
import pickle
import re
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from pianolstm.files import InputError

MAX_BYTES = 2**30  # of a file, or of what it unpacks to
_MAX_CELLS = 2**28  # of a sparse matrix: three million frames


def load_pickle(path: Path) -> Any:
    """Return what a pickle holds: containers, numbers, arrays and sparse matrices.

    Pickles of Python 2 and 3, and of NumPy 1 and 2, are read.

    Args:
        path: the file.

    Raises:
        InputError: the file is too large, damaged, or names anything else.
    """
    if path.stat().st_size > MAX_BYTES:
        raise InputError(f"{path}: larger than {MAX_BYTES >> 20} MB")
    try:
        return unpickle(path.read_bytes())
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def unpickle(data: bytes) -> Any:
    """Return what a pickle of lists, numbers and arrays holds.

    An array may be a stand-in; `numpy.asarray` converts it. A sparse matrix is a stand-in with a
    method `toarray`.

    Args:
        data: the pickle.

    Raises:
        InputError: it is damaged or names anything else. The message has no path.
    """
    try:
        # latin1 maps Python 2's byte strings, among them NumPy's buffers, to str without loss.
        return _Unpickler(io.BytesIO(data), encoding="latin1").load()
    except InputError:
        raise
    except Exception:  # a damaged pickle can raise almost any type
        raise InputError("a damaged or incomplete pickle") from None


# ---- the unpickler -------------------------------------------------------------------------------


class _Dtype:
    """Replaces numpy.dtype: a type of number, or objects, which are never read from a buffer."""

    def __init__(self, name: str, *_: Any) -> None:
        if not re.fullmatch(r"[<>=|]?[biuf][1248]|O8?", name):
            raise InputError("an array holds something else than numbers")
        self.name, self.order = name.lstrip("<>=|"), "="

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        """Set the byte order, all that NumPy's state has for numbers."""
        self.order = state[1]

    def decode(self, buffer: bytes | str) -> np.ndarray:
        """Return the numbers in a buffer, which is a str if Python 2 wrote it."""
        if self.name.startswith("O"):
            raise InputError("an array of objects is damaged")
        raw = buffer.encode("latin1") if isinstance(buffer, str) else buffer
        return np.frombuffer(raw, np.dtype(self.order + self.name))


class _Array:
    """Replaces numpy.ndarray: empty until BUILD calls `__setstate__`."""

    def __init__(self, *_: Any) -> None:
        self.array = np.empty(0)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        """Set the array from NumPy's (version, shape, dtype, Fortran order, list or buffer)."""
        _, shape, dtype, fortran, data = state
        if isinstance(data, list):
            array = np.empty(len(data), dtype=object)
            for i, item in enumerate(data):  # array[:] = data would look into lists
                array[i] = item
        else:
            array = dtype.decode(data)
        self.array = array.reshape(shape, order="F" if fortran else "C")

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return self.array if dtype is None else self.array.astype(dtype)

    def __len__(self) -> int:
        return len(self.array)

    def __iter__(self) -> Iterator[Any]:
        return iter(self.array)

    def __getitem__(self, index: Any) -> Any:
        return self.array[index]


class _Sparse:
    """Replaces a sparse matrix of SciPy, in one of the forms coo, csr and csc."""

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Set SciPy's attributes, which the older versions named otherwise."""
        self.shape = state.get("_shape") or state["shape"]
        if "row" in state:
            state["coords"] = state["row"], state["col"]
        self.coords = state.get("coords")  # of coo: rows and columns
        self.indices, self.indptr = state.get("indices"), state.get("indptr")  # of csr and csc
        self.data = state["data"]

    def toarray(self) -> np.ndarray:
        """Return the matrix as an array."""
        rows, columns = map(int, self.shape)
        if min(rows, columns) < 0 or rows * columns > _MAX_CELLS:
            raise InputError(f"a sparse matrix of {rows} x {columns} is too large")
        data = np.asarray(self.data)
        coords = self._coords(rows, columns) if self.coords is None else self.coords
        row, column = (np.asarray(axis).astype(np.int64) for axis in coords)
        if row.min(initial=0) < 0 or column.min(initial=0) < 0:
            raise InputError("a sparse matrix is damaged")
        array = np.zeros((rows, columns), dtype=data.dtype)
        np.add.at(array, (row, column), data)  # duplicates of coo add up
        return array

    def _coords(self, rows: int, columns: int) -> tuple[np.ndarray, np.ndarray]:
        """Return rows and columns of the entries of csr, or of csc."""
        indices, counts = np.asarray(self.indices), np.diff(np.asarray(self.indptr))
        major = np.repeat(np.arange(len(counts)), counts)
        return (indices, major) if self._by_column else (major, indices)

    _by_column = False


class _SparseByColumn(_Sparse):
    """Replaces SciPy's csc."""

    _by_column = True


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


_SPARSE = re.compile(r"scipy\.sparse(?:\.\w+)* (coo|csr|csc)_(?:matrix|array)")


class _Unpickler(pickle.Unpickler):
    """Builds containers, numbers and arrays of numbers, and nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        """Return the stand-in for one of NumPy's or SciPy's names.

        Raises:
            InputError: the pickle names anything else.
        """
        # Each time a new object: the opcode BUILD could change attributes of the one returned.
        if (module, name) == ("numpy", "ndarray"):
            return None  # NumPy passes it to _reconstruct, and never calls it
        if (module, name) in _ALLOWED:
            return partial(_ALLOWED[module, name])
        if form := _SPARSE.fullmatch(f"{module} {name}"):
            return type("Sparse", (_SparseByColumn if form[1] == "csc" else _Sparse,), {})
        raise InputError(
            f"it names {module}.{name}, which is not allowed, as reading it could run code; save"
            " lists or NumPy arrays of numbers"
        )
