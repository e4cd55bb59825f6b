"""A piece in a notebook."""

from pathlib import Path
from typing import Any

import pytest

from helpers import names_in, roll_from
from pianolstm.outputs.notebook import keep, play
from pianolstm.piece import Note, Piece


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Return what IPython displays."""
    items: list[Any] = []
    display = pytest.importorskip("IPython.display")
    monkeypatch.setattr(display, "display", lambda *new: items.extend(new))
    return items


def test_a_roll_is_shown_as_a_picture_and_an_audio_player(shown: list[Any]) -> None:
    play(roll_from({60}, {62}), "Sample 7", frame_beats=0.5, bpm=60.0)
    picture, audio = shown
    assert picture.data.startswith(b"\x89PNG")
    assert audio.data.startswith(b"RIFF")
    assert 16_000 < len(audio.data) < 5 * 16_000  # a second at 16 kHz, a byte each, and the ringing


def test_a_piece_is_shown_with_its_score(shown: list[Any]) -> None:
    pytest.importorskip("verovio", reason="Verovio is not installed")
    play(Piece(roll_from({60}, {62}), 0.5), score=True)
    assert "<svg" in shown[2].data


def test_pieces_are_kept_as_midi_and_musicxml(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pieces = {"seed 7": Piece(roll_from({60}), 0.5, given=(Note(0, 1, 72),))}
    keep(pieces, tmp_path / "new")
    assert names_in(tmp_path / "new") == ["seed-7.mid", "seed-7.musicxml"]
    assert str(tmp_path / "new" / "seed-7.mid") in capsys.readouterr().out
