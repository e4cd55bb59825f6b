"""Fixtures of several test files. No test reaches the network, or writes outside its tmp_path."""

import gc
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

pytest.register_assert_rewrite("helpers", "reference")
from helpers import Splits, mat_bytes, roll_from, write_pieces  # noqa: E402  (after the line above)
from pianolstm.inputs import datasets  # noqa: E402
from pianolstm.inputs.datasets import NAMED_SETS, NamedSet  # noqa: E402
from pianolstm.rolls import fingerprint  # noqa: E402

# The same examples in every run, however slow the machine; the examples of a test share tmp_path.
hypothesis.settings.register_profile(
    "stable",
    deadline=None,
    derandomize=True,
    database=None,
    max_examples=50,
    suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture],
)
hypothesis.settings.load_profile("stable")

Pieces = list[list[tuple[int, ...]]]

# ---- isolation -----------------------------------------------------------------------------------


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    """Compute in one thread: with work this small, several only wait for one another."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def _few_objects_to_collect() -> None:
    """Exempt all that is imported from garbage collection: each plot would look through it."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep the tests away from the user's `.cache/`."""
    import data

    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(data, "CACHE_DIR", tmp_path_factory.mktemp("cache"))
        yield


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any, **kwargs: Any) -> None:
        raise AssertionError(f"a test opened a network address: {args[0]}")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)


# ---- data ----------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Return the folder of the real data sets; skip if PIANO_DATA_DIR does not name it."""
    folder = os.environ.get("PIANO_DATA_DIR")
    if not folder:
        pytest.skip("PIANO_DATA_DIR does not name the folder of the benchmark's files")
    return Path(folder)


@pytest.fixture
def tiny_pieces() -> dict[str, Pieces]:
    """Return seven pieces of 2 to 6 frames, as the MIDI numbers that sound."""
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
def tiny_splits(tiny_pieces: dict[str, Pieces]) -> Splits:
    """Return the rolls of `tiny_pieces`, (T, 88) bool each."""
    return {
        split: [roll_from(*map(set, piece)) for piece in pieces]
        for split, pieces in tiny_pieces.items()
    }


@pytest.fixture
def other_splits(tiny_splits: Splits) -> Splits:
    """Return other rolls of the same lengths."""
    return {split: [roll[::-1] for roll in rolls] for split, rolls in tiny_splits.items()}


@pytest.fixture
def tiny_mat(tiny_splits: Splits) -> bytes:
    return mat_bytes(tiny_splits)


@pytest.fixture
def tiny_pickle(tiny_pieces: dict[str, Pieces]) -> bytes:
    return pickle.dumps(tiny_pieces, protocol=2)


@pytest.fixture
def tiny_set(monkeypatch: pytest.MonkeyPatch, tiny_splits: Splits, tiny_mat: bytes) -> NamedSet:
    """Replace the named sets by one of seven pieces, under the name of Nottingham."""
    named_set = NamedSet(
        file="Tiny_Set.mat",
        sha256=hashlib.sha256(tiny_mat).hexdigest(),
        pickle="Tiny Set.pickle",
        frame_beats=0.75,
        fingerprint=fingerprint(tiny_splits),
        published=(("a paper", 3.5),),
    )
    for name in list(NAMED_SETS):
        monkeypatch.delitem(NAMED_SETS, name)
    monkeypatch.setitem(NAMED_SETS, "nottingham", named_set)
    return named_set


@pytest.fixture
def few_chorales(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Replace music21's corpus by 60 pieces; return a list with one item for each parse of it."""
    parses: list[int] = []

    def parse() -> Iterator[tuple[str, np.ndarray]]:
        parses.append(1)
        for number in range(60):
            roll = np.zeros((8, 88), dtype=bool)
            roll[:, 30] = True
            roll[[bool(number >> bit & 1) for bit in range(8)], 40] = True
            yield f"bach/bwv{number}.mxl", roll

    monkeypatch.setattr(datasets, "_parse_chorales", parse)
    return parses


@pytest.fixture
def small_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the path of a small data set; the current folder is empty but for it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PIANO_DATA_DIR", raising=False)
    return write_pieces(tmp_path)
