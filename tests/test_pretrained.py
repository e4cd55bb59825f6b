"""The weights that come with the program: they play, and score what the README says of them."""

import itertools
import re
import shlex
from pathlib import Path

import pytest
import torch

import checkpoint
import generate
from checkpoint import load_model
from data import RollDataset, fingerprint, read
from evaluation import evaluate
from helpers_main import call
from helpers_train import CPU

HOME = Path(__file__).resolve().parents[1]
FOLDER = HOME / "pretrained"
SETS = {"nottingham": "Nottingham", "jsb": "JSB Chorales"}  # by the names of weights and of data


def weights(name: str) -> Path:
    """Return the path of the weights trained on a set; skip where they are not."""
    path = FOLDER / f"{name}.safetensors"
    if not FOLDER.is_dir():
        pytest.skip("pretrained/ is not in this checkout")
    return path


@torch.no_grad()
@pytest.mark.parametrize("name", SETS)
def test_they_load_and_play_and_say_how_they_were_made(name: str) -> None:
    model, record = load_model(weights(name))
    assert record["dataset"] == name
    assert set(record) >= {"fingerprint", "best_epoch", "valid_nll", "frame_beats"}
    hidden, state = model(torch.zeros(1, 3, 88))
    assert model.head.sample(hidden[0], torch.rand(3, 89)).shape == (3, 88)
    assert state.past is not None


def test_no_other_weights_are_there() -> None:
    paths = [weights(name) for name in SETS]
    assert sorted(FOLDER.iterdir()) == sorted(paths)
    assert checkpoint.PRETRAINED in paths


def test_together_they_are_at_most_25_megabytes() -> None:
    assert sum(weights(name).stat().st_size for name in SETS) <= 25e6


@pytest.mark.parametrize("name", SETS)
def test_they_score_what_the_readme_says(name: str, data_dir: Path) -> None:
    data = data_dir / f"{SETS[name]}.pickle"
    if not data.is_file():
        pytest.skip(f"no {data.name} in PIANO_DATA_DIR")
    model, record = load_model(weights(name))
    splits, _ = read(data, record["frame_beats"])
    assert fingerprint(splits) == record["fingerprint"]
    test = evaluate(model, RollDataset(splits["test"]), CPU, accuracy=False).nll
    readme = (HOME / "README.md").read_text(encoding="utf-8").splitlines()
    (row,) = (line for line in readme if line.startswith(f"| `pretrained/{name}.safetensors` |"))
    assert row.strip("| ").split(" | ")[1:] == [
        str(record["seed"]),
        f"{record['valid_nll']:.3f}",
        f"**{test:.3f}**",
    ]


def test_they_measure_what_the_readme_says(
    data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights("nottingham")
    monkeypatch.chdir(tmp_path)
    Path("pretrained").symlink_to(FOLDER)
    monkeypatch.setenv("PIANO_DATA_DIR", str(data_dir.resolve()))
    readme = (HOME / "README.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"^python generate\.py(.*--measure.*)$", readme, re.MULTILINE)
    assert call(generate, *shlex.split(example)) == 0
    measured = Path("measured/measures.md").read_text(encoding="utf-8")
    for cells, said in zip(table_of_measures(measured), table_of_measures(readme), strict=True):
        name, _, test, overlap, ceiling, floor, *_ = cells
        # The real tunes are the same everywhere; what is drawn hangs on how a machine rounds.
        assert [name, test, ceiling, floor] == [said[0], said[2], *said[4:6]]
        assert float(overlap) == pytest.approx(float(said[3]), abs=0.1)
    assert "silent 0, stuck 0 of 200 samples" in measured


def table_of_measures(text: str) -> list[list[str]]:
    """Return the cells of the table of measures in a text, row by row."""
    rows = itertools.dropwhile(lambda line: not line.startswith("| measure |"), text.splitlines())
    rows = itertools.takewhile(lambda line: line.startswith("|"), rows)
    return [row.strip("| ").split(" | ") for row in rows][2:]
