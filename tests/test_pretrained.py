"""The weights that come with the program have the results that the documentation gives."""

import itertools
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import torch

import generate
from data import RollDataset, load_path
from helpers import ROOT, call, names_in
from model import AttentivePianoLSTM, PianoLSTM
from pianolstm.checkpoint import DEFAULT_WEIGHTS, PRETRAINED
from pianolstm.rolls import Splits
from train import evaluate

SETS = {"nottingham": "Nottingham", "jsb": "JSB Chorales"}  # names of weights and of data
RESULTS = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
GENERATION = (ROOT / "docs" / "generation.md").read_text(encoding="utf-8")


def read_set(data_dir: Path, name: str) -> Splits:
    """Return the splits of the data set that a model was trained on; skip if it is missing."""
    path = data_dir / f"{SETS[name]}.pickle"
    if not path.is_file():
        pytest.skip(f"no {path.name} in PIANO_DATA_DIR")
    corpus = load_path(path, 0.5)
    metadata = PianoLSTM.load(PRETRAINED / f"{name}.safetensors").metadata
    assert corpus.fingerprint == metadata["fingerprint"]
    return corpus.splits


def test_the_pretrained_weights_are_these_and_at_most_25_megabytes() -> None:
    assert names_in(PRETRAINED) == sorted(f"{name}.safetensors" for name in SETS)
    assert DEFAULT_WEIGHTS in names_in(PRETRAINED)
    assert sum(path.stat().st_size for path in PRETRAINED.iterdir()) <= 25e6


@torch.no_grad()
@pytest.mark.parametrize("name", SETS)
def test_pretrained_weights_load_with_all_that_sampling_needs(name: str) -> None:
    model = PianoLSTM.load(PRETRAINED / f"{name}.safetensors")
    assert isinstance(model, AttentivePianoLSTM)
    assert model.metadata["dataset"] == name
    assert model.metadata.keys() >= {"fingerprint", "best_epoch", "valid_nll", "frame_beats"}
    [roll] = generate.sample(model, beats=4)
    assert roll.any()


@pytest.mark.parametrize("name", SETS)
def test_pretrained_weights_have_the_nlls_of_the_documentation(name: str, data_dir: Path) -> None:
    test = RollDataset(read_set(data_dir, name)["test"])
    model = PianoLSTM.load(PRETRAINED / f"{name}.safetensors")
    nll = evaluate(model, test, torch.device("cpu"), accuracy=False).nll
    metadata: dict[str, Any] = model.metadata
    row = f"| `pretrained/{name}.safetensors` | {metadata['seed']} | {metadata['valid_nll']:.3f} |"
    assert f"{row} **{nll:.3f}** |" in RESULTS.splitlines()


@pytest.mark.slow
def test_samples_compare_with_the_test_split_as_the_documentation_says(
    data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read_set(data_dir, "nottingham")
    monkeypatch.setenv("PIANO_DATA_DIR", str(data_dir.resolve()))
    monkeypatch.chdir(tmp_path)
    Path("pretrained").symlink_to(PRETRAINED)
    (command,) = re.findall(r"^python generate\.py(.*--evaluate_samples.*)$", GENERATION, re.M)
    assert call(generate, *shlex.split(command)) == 0
    written = Path("evaluated/metrics.md").read_text(encoding="utf-8")
    for row, documented in zip(table_rows(written), table_rows(GENERATION), strict=True):
        name, _, test, overlap, ceiling, floor, *_ = row
        # Test pieces are the same on every machine; samples depend on how it rounds.
        assert [name, test, ceiling, floor] == [documented[0], documented[2], *documented[4:6]]
        assert float(overlap) == pytest.approx(float(documented[3]), abs=0.1)
    assert "silent 0, stuck 0 of 200 samples" in written


def table_rows(text: str) -> list[list[str]]:
    """Return the cells of the table of metrics in a text, row by row."""
    rows = itertools.dropwhile(lambda line: not line.startswith("| metric |"), text.splitlines())
    rows = itertools.takewhile(lambda line: line.startswith("|"), rows)
    return [row.strip("| ").split(" | ") for row in rows][2:]
