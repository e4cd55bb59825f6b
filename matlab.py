"""Rolls of a `.mat` file, read in a process of its own, which a damaged file may kill.

SciPy's reader trusts the tags of a file: a wrong byte can make it read where there is no memory.
"""

import io
import subprocess
import sys
from pathlib import Path

import numpy as np

from files import InputError, one_line
from rolls import SPLITS, Rolls, as_roll

SECONDS = 120  # that reading may take; Nottingham takes half of one


def read_mat(path: Path) -> dict[str, Rolls]:
    """Read `traindata`, `validdata` and `testdata`, cell arrays of T x 88, column 0 = MIDI 21.

    Raises:
        InputError: one of them is missing, or the file is damaged.
    """
    command = [sys.executable, __file__, str(path)]
    try:
        child = subprocess.run(command, capture_output=True, timeout=SECONDS, check=False)  # noqa: S603, our own program
    except subprocess.TimeoutExpired:
        raise InputError(f"{path}: not read within {SECONDS} seconds; is it damaged?") from None
    if child.returncode:
        said = child.stderr.decode(errors="replace").strip() if child.returncode == 1 else ""
        raise InputError(f"{path}: a damaged .mat file ({said or 'the reader died of it'})")
    with np.load(io.BytesIO(child.stdout), allow_pickle=False) as arrays:
        return {
            split: Rolls(arrays[f"{split}_frames"], arrays[f"{split}_lengths"]) for split in SPLITS
        }


def load(path: str | Path) -> dict[str, Rolls]:
    """Do what `read_mat` does, in this process, which a damaged file may kill.

    Raises:
        Exception: of nearly any kind, if the file is damaged.
    """
    import scipy.io  # here, as only the process for it needs the quarter second that this takes

    cells = scipy.io.loadmat(str(path), variable_names=[f"{split}data" for split in SPLITS])
    if missing := [f"{split}data" for split in SPLITS if f"{split}data" not in cells]:
        raise ValueError(f"it holds no {missing[0]}")
    return {
        split: Rolls.of([as_roll(roll) for roll in cells[f"{split}data"].ravel()])
        for split in SPLITS
    }


def main(path: str) -> int:
    """Read the file and write its rolls to stdout as `.npz`; return the exit status."""
    try:
        splits = load(path)
    except Exception as error:  # SciPy's reader raises nearly anything
        print(one_line(error), file=sys.stderr)
        return 1
    arrays: dict[str, np.ndarray] = {}
    for split, rolls in splits.items():
        arrays[f"{split}_frames"], arrays[f"{split}_lengths"] = rolls.packed, rolls.lengths
    np.savez(sys.stdout.buffer, **arrays)  # type: ignore[arg-type]
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
