"""The notebook, run from top to bottom as a fresh Jupyter would, without a display or a network."""

import shutil
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

from helpers import ROOT, names_in

NOTEBOOK = ROOT / "Play_with_model.ipynb"
ROLLS = 7  # a piece, two to tell apart, a harmonised melody, three temperatures


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    """Return all outputs of the notebook, run in a copy of the program without any run."""
    folder = tmp_path_factory.mktemp("clone")
    for module in ROOT.glob("*.py"):
        shutil.copy(module, folder)
    for package in ("pianolstm", "pretrained"):
        shutil.copytree(ROOT / package, folder / package)
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    NotebookClient(notebook, timeout=60, resources={"metadata": {"path": str(folder)}}).execute()
    assert names_in(folder / "samples") == ["notebook-7-melody.mid", "notebook-7.mid"]
    return [output for cell in notebook.cells for output in cell.get("outputs", [])]


def data_of(outputs: list[Any], kind: str) -> list[str]:
    return [output["data"][kind] for output in outputs if kind in output.get("data", {})]


def test_the_notebook_shows_each_roll_and_the_expected_pitches_as_a_picture(
    outputs: list[Any],
) -> None:
    pictures = data_of(outputs, "image/png")
    assert len(pictures) == ROLLS + 1
    assert all(len(picture) > 5_000 for picture in pictures)


def test_the_notebook_has_an_audio_player_for_each_roll(outputs: list[Any]) -> None:
    players = [html for html in data_of(outputs, "text/html") if "<audio" in html]
    assert len(players) == ROLLS
    assert all("data:audio/wav;base64," in player for player in players)


def test_the_notebook_names_its_model_and_solves_its_riddle(outputs: list[Any]) -> None:
    printed = "".join(output.get("text", "") for output in outputs)
    assert "weights, trained on nottingham" in printed
    assert "piece A is" in printed


def test_the_notebook_has_a_table_of_metrics(outputs: list[Any]) -> None:
    (table,) = data_of(outputs, "text/markdown")
    assert "| polyphony" in table
    assert "Bach's" in table


def test_the_notebook_is_kept_without_outputs_and_needs_no_service() -> None:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells)
    source = "".join(cell.source for cell in notebook.cells)
    assert "colab" not in source.lower()
    assert "http" not in source
