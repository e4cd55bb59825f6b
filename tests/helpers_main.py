"""What the tests of the commands share: a small set of tunes, and calling as a user does."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from files import run_program

SMALL = ["--embed_size=8", "--hidden_size=8", "--latent_size=3", "--epochs=2", "--seconds=2"]


def tunes(seed: int, count: int) -> list[list[tuple[int, ...]]]:
    """Return random tunes as the ICML pickles have them: steps of MIDI numbers."""
    generator = np.random.default_rng(seed)
    return [
        [tuple(generator.choice(np.arange(48, 84), 3, replace=False).tolist()) for _ in range(30)]
        for _ in range(count)
    ]


def write_tunes(folder: Path) -> Path:
    """Write a small set of piano-rolls; return its path."""
    path = folder / "small set.pickle"
    path.write_bytes(
        pickle.dumps({"train": tunes(1, 6), "valid": tunes(2, 2), "test": tunes(3, 2)})
    )
    return path


def call(program: Any, *flags: Any) -> Any:
    """Run a command within this process, as its `__main__` does; return the exit status."""
    with pytest.raises(SystemExit) as exit_:
        run_program(lambda: program.main([str(flag) for flag in flags]))
    return exit_.value.code
