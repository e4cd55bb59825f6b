"""What several test files use: rolls as notes, files of them, and what a refusal says."""

import io
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io
import torch
from torch import Tensor

from data import read
from files import InputError
from flags import Parser, add_flags
from groups import Group
from rolls import SPLITS
from settings import DataSettings

ROOT = Path(__file__).parent.parent
K = 88
RATE = 44_100
Splits = dict[str, list[np.ndarray]]


def steps_of(roll: np.ndarray) -> list[list[int]]:
    """Return the MIDI numbers of each frame."""
    return [[column + 21 for column in range(K) if frame[column]] for frame in roll]


def roll_from(*frames: set[int]) -> np.ndarray:
    """Return the roll of frames given as sets of MIDI numbers, (T, 88) bool."""
    roll = np.zeros((len(frames), K), dtype=bool)
    for t, notes in enumerate(frames):
        roll[t, [note - 21 for note in sorted(notes)]] = True
    return roll


def draw_frames(rows: int, keys: int, density: float = 0.3, seed: int = 2) -> Tensor:
    drawn = torch.rand(rows, keys, generator=torch.Generator().manual_seed(seed)) < density
    return drawn.double()


def write_pickle(path: Path, content: Any, protocol: int = 2) -> Path:
    path.write_bytes(content if isinstance(content, bytes) else pickle.dumps(content, protocol))
    return path


def mat_bytes(splits: Splits) -> bytes:
    arrays = {}
    for split, rolls in splits.items():
        arrays[f"{split}data"] = np.empty((1, len(rolls)), dtype=object)
        for i, roll in enumerate(rolls):
            arrays[f"{split}data"][0, i] = roll.astype(np.uint8)
    file = io.BytesIO()
    scipy.io.savemat(file, arrays)
    return file.getvalue()


def data_settings(folder: Path, **values: Any) -> DataSettings:
    return DataSettings(**{"dataset": "nottingham", "data_dir": str(folder), **values})


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []


def assert_frames(splits: Splits, expected: Splits) -> None:
    for split in SPLITS:
        assert len(splits[split]) == len(expected[split])
        for roll, wanted in zip(splits[split], expected[split], strict=True):
            np.testing.assert_array_equal(roll, wanted)


def assert_same(splits: Splits, expected: Splits) -> None:
    assert sorted(splits) == sorted(expected)
    for split, rolls in expected.items():
        assert len(splits[split]) == len(rolls)
        for roll, wanted in zip(splits[split], rolls, strict=True):
            assert roll.dtype == bool
            np.testing.assert_array_equal(roll, wanted)


def refusal(path: Path) -> str:
    """Return what the refusal of a path says: one line that names it."""
    with pytest.raises(InputError) as caught:
        read(path, 0.5)
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message
    return message


def parser_of(*groups: type[Group]) -> Parser:
    parser = Parser(prog="program.py")
    add_flags(parser, *groups)
    return parser


def parse(group: type[Group], *words: str) -> Any:
    """Make the group from words of a command line."""
    parser = parser_of(group)
    return group.from_flags(parser.parse_args(list(words)), parser)


def one_line_naming(path: Path, error: BaseException) -> bool:
    return str(path) in str(error) and "\n" not in str(error)


def assert_survives(*paths: Path) -> None:
    """Read each path in another process, which must not die of it."""
    code = (
        "import resource, sys\n"
        "resource.setrlimit(resource.RLIMIT_CORE, (0, 0))\n"
        "from data import read\n"
        "from files import InputError\n"
        "for path in sys.argv[1:]:\n"
        "    try:\n        read(path, 0.5)\n    except InputError:\n        print(path)"
    )
    command = [sys.executable, "-c", code, *map(str, paths)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [str(path) for path in paths]  # each is refused
