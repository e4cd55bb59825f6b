"""The named sets: where they are looked for, and how they are recognised."""

from pathlib import Path

import pytest

from helpers import Splits
from pianolstm.inputs.datasets import NAMED_SETS, NamedSet, find_named_set, recognise
from pianolstm.inputs.formats import read
from pianolstm.rolls import fingerprint


@pytest.mark.parametrize(
    "name",
    [
        "Tiny_Set.mat",
        "Tiny Set.mat",
        "Tiny Set.pickle",
        "Tiny_Set.pickle",
        "Tiny_Set.pkl",
        "Tiny Set.pkl",
        "Tiny_Set.npz",
        "Tiny Set.npz",
    ],
)
def test_a_set_is_found_under_its_usual_names(
    tmp_path: Path, tiny_set: NamedSet, name: str
) -> None:
    assert find_named_set(tiny_set, tmp_path) is None
    (tmp_path / name).mkdir()  # a folder is not a file
    assert find_named_set(tiny_set, tmp_path) is None
    (tmp_path / name).rmdir()
    (tmp_path / name).touch()
    assert find_named_set(tiny_set, tmp_path) == tmp_path / name


def test_mat_comes_before_pickle(tmp_path: Path, tiny_set: NamedSet) -> None:
    for name in ("Tiny Set.pickle", "Tiny_Set.mat"):
        (tmp_path / name).touch()
    assert find_named_set(tiny_set, tmp_path) == tmp_path / "Tiny_Set.mat"


@pytest.mark.parametrize(
    ("dataset", "name"),
    [
        ("nottingham", "Nottingham.pickle"),
        ("jsb", "JSB Chorales.pickle"),
        ("musedata", "MuseData.pickle"),
        ("piano_midi", "Piano-midi.de.pickle"),
    ],
)
def test_the_original_pickles_are_found(tmp_path: Path, dataset: str, name: str) -> None:
    (tmp_path / name).touch()
    assert find_named_set(NAMED_SETS[dataset], tmp_path) == tmp_path / name


def test_a_set_is_recognised_by_its_frames_alone(
    tiny_set: NamedSet, tiny_splits: Splits, other_splits: Splits
) -> None:
    assert recognise(fingerprint(tiny_splits)) == ("nottingham", tiny_set)
    assert recognise(fingerprint(other_splits)) is None


@pytest.mark.parametrize("dataset", NAMED_SETS)
def test_the_real_sets_are_recognised(data_dir: Path, dataset: str) -> None:
    path = find_named_set(NAMED_SETS[dataset], data_dir)
    if path is None:
        pytest.skip(f"PIANO_DATA_DIR has no {NAMED_SETS[dataset].file}")
    assert recognise(fingerprint(read(path, 0.5)[0])) == (dataset, NAMED_SETS[dataset])
