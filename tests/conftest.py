"""What the tests share. No test reaches the network, or writes outside its own tmp_path."""

import hashlib
import os
import pickle
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import numpy as np
import pytest
import torch

import corpora
from corpora import Benchmark
from data import fingerprint

pytest.register_assert_rewrite("helpers", "helpers_train")  # a failed assert of theirs says why
from helpers import Splits, mat_bytes  # noqa: E402  (only then)
from helpers_main import write_tunes  # noqa: E402

# The same examples in every run, however slow the machine; tmp_path may be shared by examples.
hypothesis.settings.register_profile(
    "stable",
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture],
)
hypothesis.settings.load_profile("stable")

Steps = list[tuple[int, ...]]


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    """Compute in one thread: for work this small, more of them only wait for one another."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def _kept_apart(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep what is read of files away from the user's own `.cache/`."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(corpora, "KEPT", tmp_path_factory.mktemp("kept"))
        yield


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Return the folder of the real sets; skip where the environment names none."""
    folder = os.environ.get("PIANO_DATA_DIR")
    if not folder:
        pytest.skip("PIANO_DATA_DIR names no folder with the benchmark's files")
    return Path(folder)


@pytest.fixture
def tiny_steps() -> dict[str, list[Steps]]:
    """Seven tunes of 2 to 6 frames, as the MIDI numbers that sound."""
    return {
        "train": [
            [(60, 64, 67), (60, 64, 67), (), (65,)],
            [(21,), (108,)],
            [(62,), (62, 66), (62, 69), (), (62,), (50, 62)],
        ],
        "valid": [[(59, 62), (60,)], [(), (72,), (71, 79)]],
        "test": [[(48, 52), (48, 52), (55,)], [(100,), (), (), (99,)]],
    }


@pytest.fixture
def tiny_splits(tiny_steps: dict[str, list[Steps]]) -> dict[str, list[np.ndarray]]:
    """Return the rolls of `tiny_steps`, (T, 88) bool."""
    splits: dict[str, list[np.ndarray]] = {}
    for split, tunes in tiny_steps.items():
        splits[split] = []
        for steps in tunes:
            roll = np.zeros((len(steps), 88), dtype=bool)
            for frame, notes in enumerate(steps):
                for note in notes:
                    roll[frame, note - 21] = True
            splits[split].append(roll)
    return splits


@pytest.fixture
def mat(tiny_splits: Splits) -> bytes:
    return mat_bytes(tiny_splits)


@pytest.fixture
def pickled(tiny_steps: Any) -> bytes:
    return pickle.dumps(tiny_steps, protocol=2)


@pytest.fixture
def other(tiny_splits: Splits) -> Splits:
    """Return other frames, of the same lengths."""
    return {split: [roll[::-1] for roll in rolls] for split, rolls in tiny_splits.items()}


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch, tiny_splits: Splits, mat: bytes) -> Benchmark:
    """Put a benchmark of seven tunes in the place of Nottingham, and nothing beside it."""
    benchmark = Benchmark(
        mat="Tiny_Set.mat",
        mat_sha256=hashlib.sha256(mat).hexdigest(),
        pickle="Tiny Set.pickle",
        frame_beats=0.75,
        counts=((3, 12), (2, 5), (2, 7)),
        published=(("a paper", 3.5),),
        frames_sha256=fingerprint(tiny_splits),
    )
    monkeypatch.setattr(corpora, "BENCHMARKS", {"nottingham": benchmark})
    return benchmark


@pytest.fixture
def few_chorales(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Make a list of 60 tunes the corpus of music21; return a list that counts its readings."""
    readings: list[int] = []

    def parse() -> Iterator[tuple[str, np.ndarray]]:
        readings.append(1)
        for number in range(60):
            roll = np.zeros((8, 88), dtype=bool)
            roll[:, 30] = True
            roll[[bool(number >> bit & 1) for bit in range(8)], 40] = True
            yield f"bach/bwv{number}.mxl", roll

    monkeypatch.setattr(corpora, "parse_chorales", parse)
    return readings


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any, **kwargs: Any) -> None:
        raise AssertionError(f"a test reached for the network: {args[0]}")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)


@pytest.fixture
def small_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the path of a small set of piano-rolls; the program runs in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PIANO_DATA_DIR", raising=False)
    return write_tunes(tmp_path)
