"""The notebook, run from top to bottom as a fresh Jupyter would, without a display or a network."""

import re
import shutil
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

from helpers import ROOT, names_in
from model import build_model
from settings import ModelSettings

NOTEBOOK = ROOT / "Play_with_model.ipynb"
# A piece, two to tell apart, a harmonised melody, a melody over chords, bars composed anew, three
# temperatures.
ROLLS = 9


def run(folder: Path, **boxes: object) -> Any:
    """Return the notebook, run in a copy of the program without any run.

    Args:
        folder: where to copy the program.
        boxes: values of the notebook's first cell.
    """
    for module in ROOT.glob("*.py"):
        shutil.copy(module, folder)
    for package in ("pianolstm", "pretrained"):
        shutil.copytree(ROOT / package, folder / package)
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    for name, value in boxes.items():
        line = f"{name} = {value!r}"
        source, count = re.subn(rf"(?m)^{name} = .*$", line, notebook.cells[1].source)
        assert count == 1
        notebook.cells[1].source = source
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(folder)}}).execute()
    assert len(nbformat.writes(notebook)) < 3_000_000
    return notebook


def printed_by(outputs: list[Any]) -> str:
    return "".join(output.get("text", "") for output in outputs)


def outputs_of(notebook: Any) -> list[Any]:
    return [output for cell in notebook.cells for output in cell.get("outputs", [])]


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    """Return all outputs of the notebook as it is."""
    folder = tmp_path_factory.mktemp("clone")
    notebook = run(folder)
    kept = names_in(folder / "samples" / "notebook")
    assert {"harmonised.mid", "harmonised.musicxml", "seed-7.mid", "seed-7.musicxml"} < set(kept)
    return outputs_of(notebook)


def data_of(outputs: list[Any], kind: str) -> list[str]:
    return [output["data"][kind] for output in outputs if kind in output.get("data", {})]


def test_the_notebook_shows_each_roll_the_expected_pitches_and_the_surprise_as_a_picture(
    outputs: list[Any],
) -> None:
    pictures = data_of(outputs, "image/png")
    assert len(pictures) == ROLLS + 2
    assert all(len(picture) > 5_000 for picture in pictures)


def test_the_notebook_has_an_audio_player_for_each_roll(outputs: list[Any]) -> None:
    players = [html for html in data_of(outputs, "text/html") if "<audio" in html]
    assert len(players) == ROLLS
    assert all("data:audio/wav;base64," in player for player in players)


def test_the_notebook_names_its_model_and_solves_its_riddle(outputs: list[Any]) -> None:
    printed = printed_by(outputs)
    assert "weights, trained on nottingham" in printed
    assert "piece A is" in printed


def test_the_notebook_measures_its_piece_and_says_what_is_copied_or_unknown(
    outputs: list[Any],
) -> None:
    printed = printed_by(outputs)
    assert re.search(r"\d nats in \d+ frames", printed)
    assert "longest copy" in printed or "the training data are not on this machine" in printed


def test_the_notebook_has_a_table_of_metrics(outputs: list[Any]) -> None:
    (table,) = data_of(outputs, "text/markdown")
    assert "| polyphony" in table
    assert "Bach's" in table


@pytest.mark.skipif(find_spec("verovio") is None, reason="Verovio is not installed")
def test_the_notebook_shows_scores(outputs: list[Any]) -> None:
    assert len(data_of(outputs, "image/svg+xml")) == 2  # of the piece and the harmonised melody


def test_the_notebook_runs_on_any_weights_and_names_each_wrong_box_in_a_line(
    tmp_path: Path,
) -> None:
    path = tmp_path / "weights.safetensors"
    settings = ModelSettings(embed_size=4, hidden_size=8, latent_size=0)  # Bernoulli outputs
    metadata = {"dataset": "tiny", "fingerprint": "", "frame_beats": 0.25}
    build_model(settings).save(path, metadata)
    boxes = {
        "SEED": -1,
        "BPM": "fast",
        "TEMPERATURE": -2,
        "SECONDS": 4,
        "MELODY": "C5 X9",
        "CHORDS": "H",
    }
    notebook = run(tmp_path, WEIGHTS=str(path), PRIMER_NOTES="H4 C4", **boxes)
    printed = printed_by(outputs_of(notebook))
    for word in (
        "--bpm: ",
        "--temperature: ",
        "'H4' is no note",
        "'X9' is no note",
        "'H' is no chord",
    ):
        assert printed.count(word) == 1


def test_the_notebook_is_kept_without_outputs_and_needs_no_service() -> None:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells)
    source = "".join(cell.source for cell in notebook.cells)
    assert "colab" not in source.lower()
    assert "http" not in source
