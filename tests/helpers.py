"""What several test files use: rolls as pitches, small data sets, calls of the programs."""

import io
import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io
import torch
from torch import Tensor

from pianolstm.cli import Parser, SettingsGroup, add_flags
from pianolstm.files import InputError
from pianolstm.rolls import PITCHES

ROOT = Path(__file__).parent.parent
SMALL = [
    "--embed_size=8", "--hidden_size=8", "--latent_size=3", "--epochs=2", "--seconds=2",
    "--num_samples=1",
]  # fmt: skip

Splits = dict[str, list[np.ndarray]]

# ---- rolls ---------------------------------------------------------------------------------------


def roll_from(*frames: set[int]) -> np.ndarray:
    """Return the roll, (T, 88) bool, of frames given as sets of MIDI numbers."""
    roll = np.zeros((len(frames), PITCHES), dtype=bool)
    for t, pitches in enumerate(frames):
        roll[t, [pitch - 21 for pitch in sorted(pitches)]] = True
    return roll


def steps_of(roll: np.ndarray) -> list[list[int]]:
    """Return the MIDI numbers of each frame."""
    return [[column + 21 for column in range(PITCHES) if frame[column]] for frame in roll]


def random_frames(rows: int, pitches: int, density: float = 0.3, seed: int = 2) -> Tensor:
    """Return (rows, pitches) float64 zeros and ones, ones with this density."""
    uniform = torch.rand(rows, pitches, generator=torch.Generator().manual_seed(seed))
    return (uniform < density).double()


def assert_same(
    splits: Mapping[str, Sequence[np.ndarray]], expected: Mapping[str, Sequence[np.ndarray]]
) -> None:
    """Assert that two sets have the same splits of the same rolls."""
    assert sorted(splits) == sorted(expected)
    for split, rolls in expected.items():
        assert len(splits[split]) == len(rolls)
        for roll, wanted in zip(splits[split], rolls, strict=True):
            assert roll.dtype == bool
            np.testing.assert_array_equal(roll, wanted)


# ---- files ---------------------------------------------------------------------------------------


def names_in(folder: Path) -> list[str]:
    """Return the sorted names in a folder; none if there is no such folder."""
    return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []


def write_pickle(path: Path, content: Any, protocol: int = 2) -> Path:
    """Write bytes as they are, anything else pickled; return the path."""
    path.write_bytes(content if isinstance(content, bytes) else pickle.dumps(content, protocol))
    return path


def mat_bytes(splits: Splits, dtype: str = "uint8", **options: Any) -> bytes:
    """Return the content of a .mat file of these rolls, with options of `scipy.io.savemat`."""
    arrays = {}
    for split, rolls in splits.items():
        arrays[f"{split}data"] = np.empty((1, len(rolls)), dtype=object)
        for i, roll in enumerate(rolls):
            arrays[f"{split}data"][0, i] = roll.astype(dtype)
    file = io.BytesIO()
    scipy.io.savemat(file, arrays, **options)
    return file.getvalue()


def write_pieces(folder: Path) -> Path:
    """Write a small data set, six pieces and two and two; return its path."""
    pieces = {
        split: _random_pieces(seed, count)
        for split, seed, count in (("train", 1, 6), ("valid", 2, 2), ("test", 3, 2))
    }
    return write_pickle(folder / "small set.pickle", pieces, pickle.DEFAULT_PROTOCOL)


def _random_pieces(seed: int, count: int) -> list[list[tuple[int, ...]]]:
    generator = np.random.default_rng(seed)
    return [
        [tuple(generator.choice(np.arange(48, 84), 3, replace=False).tolist()) for _ in range(30)]
        for _ in range(count)
    ]


# ---- errors, flags, programs ---------------------------------------------------------------------


def refusal(path: Path, frame_beats: float = 0.5) -> str:
    """Return the message with which `formats.read` refuses a path: one line that names it."""
    from pianolstm.inputs.formats import read

    with pytest.raises(InputError) as caught:
        read(path, frame_beats)
    assert one_line_naming(path, caught.value)
    return str(caught.value)


def one_line_naming(path: Path, error: BaseException) -> bool:
    """Return whether the message of an error is one line with the path in it."""
    return str(path) in str(error) and "\n" not in str(error)


def data_settings(folder: Path, **values: Any) -> Any:
    """Return DataSettings of Nottingham in this folder, or of other values."""
    from settings import DataSettings

    return DataSettings(**{"dataset": "nottingham", "data_dir": str(folder), **values})


def parser_of(*groups: type[SettingsGroup]) -> Parser:
    """Return a parser with the flags of these groups."""
    parser = Parser(prog="program.py")
    add_flags(parser, *groups)
    return parser


def parse(group: type[SettingsGroup], *words: str) -> Any:
    """Return the group that the words of a command line give."""
    parser = parser_of(group)
    return group.from_flags(parser.parse_args(list(words)), parser)


def call(program: Any, *flags: Any) -> Any:
    """Call a program in this process, as its `__main__` does; return the exit status."""
    from pianolstm.runtime import run_script

    with pytest.raises(SystemExit) as exit_:
        run_script(lambda: program.main([str(flag) for flag in flags]))
    return exit_.value.code
