"""The named sets: where they are looked for, and how they are recognised."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import main
from data import RollDataset
from helpers import Splits
from helpers_train import CPU, make_model, random_rolls
from pianolstm.inputs.datasets import NAMED_SETS, Corpus, NamedSet, find_named_set, recognise
from pianolstm.inputs.formats import read
from pianolstm.metrics.baselines import Baselines
from pianolstm.outputs.report import results_table
from pianolstm.rolls import SPLITS, fingerprint
from train import evaluate


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


# ---- test pieces whose melody is in no training piece --------------------------------------------


def soprano(roll: np.ndarray) -> tuple[int, ...]:
    """Return the steps of the highest notes, repeated notes as one: alike in every key."""
    highest = (roll * np.arange(88)).max(axis=1)
    moves = np.diff(highest)
    return tuple(moves[moves != 0].tolist())


@pytest.mark.parametrize("file", ["JSB Chorales.pickle", "JSB_Chorales.mat"])
def test_no_independent_chorale_has_the_soprano_of_a_training_chorale(
    file: str, data_dir: Path
) -> None:
    if not (data_dir / file).is_file():
        pytest.skip(f"no {file} in PIANO_DATA_DIR")
    splits, _ = read(data_dir / file, 1.0)
    found = recognise(fingerprint(splits))
    assert found is not None  # the same pieces in the same order, whichever the file
    independent = set(found[1].independent_test)
    assert len(splits["test"]) == 77
    assert len(independent) == 49
    known = {soprano(roll) for roll in splits["train"]}
    shared = {i for i, roll in enumerate(splits["test"]) if soprano(roll) in known}
    assert len(shared) == 11  # note for note; the other 17 have small differences
    assert not shared & independent


def test_independent_pieces_are_evaluated_by_themselves(tiny_set: NamedSet) -> None:
    corpus = Corpus("nottingham", {}, 0.5, tiny_set.fingerprint)
    rolls = random_rolls(9, 5, 7)
    datasets = {split: RollDataset(rolls) for split in SPLITS}
    model, baselines = make_model(), Baselines(datasets["train"].rolls)
    assert "independent_test" not in main.compute_results(model, corpus, datasets, baselines, CPU)
    NAMED_SETS["nottingham"] = replace(tiny_set, independent_test=(0, 2))
    results = main.compute_results(model, corpus, datasets, baselines, CPU)
    alone = evaluate(model, RollDataset([rolls[0], rolls[2]]), CPU)
    assert results["independent_test"]["pieces"] == 2
    assert results["independent_test"]["nll"] == pytest.approx(alone.nll)
    assert results["independent_test"]["frames"] == 16
    assert ("  2 independent pieces", "", f"{alone.nll:.3f}") in results_table(results, "")[1]
