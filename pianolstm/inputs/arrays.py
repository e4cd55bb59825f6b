"""Reads `.npy` and `.npz` files, without running code of the file.

NumPy pickles arrays of objects, which pieces of different lengths need. The restricted unpickler
reads those; `numpy.load(allow_pickle=True)` would run whatever the file says. Source: the format's
description in numpy.lib.format.
"""

import zipfile
from pathlib import Path
from typing import IO, Any

import numpy as np

from pianolstm.files import InputError
from pianolstm.inputs.pickles import MAX_BYTES, unpickle


def load_npy(path: Path) -> Any:
    """Return the array of a `.npy` file; the object in it if it has no dimensions.

    Args:
        path: the file.

    Raises:
        InputError: the file is damaged, or holds anything but numbers and lists of them.
    """
    try:
        with path.open("rb") as file:
            return _read_array(file)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    except Exception:  # a damaged header can raise almost any type
        raise InputError(f"{path}: damaged or incomplete, not a .npy file") from None


def load_npz(path: Path) -> dict[str, Any]:
    """Return the arrays of an `.npz` file by their names.

    Args:
        path: the file.

    Raises:
        InputError: the file is damaged, unpacks to more than a gigabyte, or holds anything but
            numbers and lists of them.
    """
    arrays = {}
    try:
        with zipfile.ZipFile(path) as archive:
            if sum(entry.file_size for entry in archive.infolist()) > MAX_BYTES:
                raise InputError(f"unpacks to more than {MAX_BYTES >> 20} MB")
            for entry in archive.infolist():
                with archive.open(entry) as file:
                    arrays[entry.filename.removesuffix(".npy")] = _read_array(file)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    except Exception:  # zipfile and NumPy raise many types for damaged archives
        raise InputError(f"{path}: damaged or incomplete, not an .npz file") from None
    return arrays


def _read_array(file: IO[bytes]) -> Any:
    """Read one array, as `numpy.load` does."""
    version = np.lib.format.read_magic(file)
    read_header = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }[version]
    shape, fortran, dtype = read_header(file)
    data = file.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise InputError(f"larger than {MAX_BYTES >> 20} MB")
    if dtype.kind == "O":
        array = np.asarray(unpickle(data))
        return array[()] if array.ndim == 0 else array
    if dtype.kind not in "biuf":
        raise InputError("an array holds something else than numbers")
    return np.frombuffer(data, dtype).reshape(shape, order="F" if fortran else "C")
