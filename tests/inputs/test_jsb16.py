"""The JSB chorales at sixteenth notes are a named set like the others."""

import urllib.error
import urllib.request
from pathlib import Path

import pytest

from pianolstm.files import InputError
from pianolstm.inputs.datasets import IN_C, NAMED_SETS, download, find_named_set, recognise
from pianolstm.inputs.formats import read
from pianolstm.outputs.report import results_table
from pianolstm.rolls import SPLITS, fingerprint
from settings import DataSettings

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


def test_the_published_number_is_shown_with_three_decimals() -> None:
    nll = dict.fromkeys(
        ("nll", "nll_first_frame_scored", "first_order_markov", "unigram", "frame_accuracy"), 0.5
    )
    table, _ = results_table({"best_epoch": 1, "valid": nll, "test": nll}, "", JSB16.published)
    assert "1.819" in table
    assert (
        "3.29\n"
        in results_table(
            {"best_epoch": 1, "valid": nll, "test": nll}, "", NAMED_SETS["nottingham"].published
        )[0]
    )


def test_the_public_file_is_read_whole(data_dir: Path) -> None:
    path = find_named_set(JSB16, data_dir)
    if path is None:
        pytest.skip(f"PIANO_DATA_DIR has no {JSB16.file}")
    splits, remarks = read(path, 0.25)
    assert remarks == []
    assert [len(splits[split]) for split in SPLITS] == [229, 76, 77]
    assert [int(splits[split].lengths.sum()) for split in SPLITS] == [55_228, 18_408, 18_900]
    assert recognise(fingerprint(splits)) == ("jsb16", JSB16)
