"""The JSB chorales at sixteenth notes are a named set like the others."""

import urllib.error
import urllib.request
from dataclasses import replace
from pathlib import Path

import pytest

import main
from data import RollDataset
from helpers_train import CPU, make_model, random_rolls
from pianolstm.files import InputError
from pianolstm.inputs.datasets import (
    IN_C,
    NAMED_SETS,
    Corpus,
    NamedSet,
    download,
    find_named_set,
    recognise,
)
from pianolstm.inputs.formats import read
from pianolstm.metrics.baselines import Baselines
from pianolstm.outputs.report import results_table
from pianolstm.rolls import SPLITS, fingerprint
from settings import DataSettings
from train import evaluate

JSB16 = NAMED_SETS["jsb16"]


def test_it_can_be_chosen_and_has_frames_of_a_sixteenth_in_the_original_keys() -> None:
    assert DataSettings(dataset="jsb16").dataset == "jsb16"
    assert JSB16.frame_beats == 0.25
    assert "jsb16" not in IN_C


def test_it_is_looked_for_and_downloaded_under_its_public_name(tmp_path: Path) -> None:
    (tmp_path / "jsb-chorales-16th.json").touch()
    assert find_named_set(JSB16, tmp_path) == tmp_path / "jsb-chorales-16th.json"
    assert JSB16.url == (
        "https://raw.githubusercontent.com/czhuang/JSB-Chorales-dataset/master/"
        "jsb-chorales-16th.json"
    )


def test_without_the_file_and_the_network_its_one_address_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(url: str, timeout: float) -> None:
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    with pytest.raises(InputError) as caught:
        download(JSB16, tmp_path, tmp_path / "cache")
    assert str(caught.value) == (
        f"not in {tmp_path}/ and not downloaded (raw.githubusercontent.com: <urlopen error no route"
        " to host>); give --data PATH"
    )


NLLS = dict.fromkeys(
    (
        "nll", "nll_first_frame_scored", "nll_per_piece_mean", "first_order_markov", "unigram",
        "frame_accuracy", "expected_frame_accuracy",
    ),
    0.5,
)  # fmt: skip


def test_the_published_number_is_shown_with_three_decimals() -> None:
    results = {"best_epoch": 1, "valid": NLLS, "test": NLLS}
    assert "1.819" in results_table(results, "", JSB16.published)[0]
    assert "3.29\n" in results_table(results, "", NAMED_SETS["nottingham"].published)[0]


def test_nlls_per_voice_are_a_quarter_with_the_bound_and_without(tiny_set: NamedSet) -> None:
    corpus = Corpus("jsb16", {}, 0.25, tiny_set.fingerprint)
    rolls = random_rolls(9, 5)
    datasets = {split: RollDataset(rolls) for split in SPLITS}
    NAMED_SETS["nottingham"] = replace(tiny_set, voice_nats=0.061)
    model = make_model()
    results = main.compute_results(model, corpus, datasets, Baselines(datasets["train"].rolls), CPU)
    nats = evaluate(model, datasets["test"], CPU).nll_first_frame_scored
    assert results["test"]["nll_per_voice"] == nats / 4
    assert results["test"]["nll_per_voice_at_most"] == (nats + 0.061) / 4
    rows = dict(row[::2] for row in results_table(results, "")[1])
    assert rows["  per voice, first too"] == f"{nats / 4:.3f}"
    assert rows["  the voices told apart, <="] == f"{(nats + 0.061) / 4:.3f}"


def test_the_public_file_is_read_whole(data_dir: Path) -> None:
    path = find_named_set(JSB16, data_dir)
    if path is None:
        pytest.skip(f"PIANO_DATA_DIR has no {JSB16.file}")
    splits, remarks = read(path, 0.25)
    assert remarks == []
    assert [len(splits[split]) for split in SPLITS] == [229, 76, 77]
    assert [int(splits[split].lengths.sum()) for split in SPLITS] == [55_228, 18_408, 18_900]
    assert recognise(fingerprint(splits)) == ("jsb16", JSB16)
