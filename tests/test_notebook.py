"""The notebook, run from top to bottom as a newcomer's Jupyter would, without a display."""

import shutil
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

HOME = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def outputs(tmp_path_factory):
    """Every output of the notebook, run in a copy of the program as it comes, without any run."""
    folder = tmp_path_factory.mktemp("clone")
    for module in HOME.glob("*.py"):
        shutil.copy(module, folder)
    shutil.copytree(HOME / "pretrained", folder / "pretrained")
    notebook = nbformat.read(HOME / "Play_with_model.ipynb", as_version=4)
    NotebookClient(notebook, timeout=60, resources={"metadata": {"path": str(folder)}}).execute()
    assert list(folder.glob("samples/notebook-*.mid"))
    return [output for cell in notebook.cells for output in cell.get("outputs", [])]


ROLLS = 7  # a tune, two to tell apart, a harmonised melody, three temperatures


def test_notebook_draws_rolls_and_what_the_model_expects(outputs):
    pictures = [output for output in outputs if "image/png" in output.get("data", {})]
    assert len(pictures) == ROLLS + 1
    assert all(len(picture["data"]["image/png"]) > 5_000 for picture in pictures)


def test_notebook_has_an_audio_player_for_each_roll(outputs):
    players = [
        output["data"]["text/html"] for output in outputs if "text/html" in output.get("data", {})
    ]
    sounding = ["<audio" in player and "data:audio/wav;base64," in player for player in players]
    assert sum(sounding) == ROLLS


def test_notebook_tells_which_tune_is_real_and_what_can_be_measured(outputs):
    said = "".join(output.get("text", "") for output in outputs)
    assert "tune A is" in said
    tables = [output["data"].get("text/markdown", "") for output in outputs if "data" in output]
    assert any("| polyphony" in table and "Bach's" in table for table in tables)


def test_notebook_says_which_model_it_plays(outputs):
    said = "".join(output.get("text", "") for output in outputs)
    assert "nottingham.safetensors" in said


def test_notebook_is_kept_without_outputs_and_is_tied_to_no_service():
    notebook = nbformat.read(HOME / "Play_with_model.ipynb", as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells)
    source = "".join(cell.source for cell in notebook.cells)
    assert "colab" not in source.lower()
    assert "http" not in source
