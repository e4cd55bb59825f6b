"""A roll in a notebook."""

from typing import Any

import pytest

from helpers import roll_from
from pianolstm.outputs.notebook import play


def test_a_roll_is_shown_as_a_picture_and_an_audio_player(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[Any] = []
    monkeypatch.setattr(
        pytest.importorskip("IPython.display"), "display", lambda *items: shown.extend(items)
    )
    play(roll_from({60}, {62}), frame_beats=0.5, bpm=60.0, title="Sample 7")
    figure, audio = shown
    assert figure.axes[0].get_title() == "Sample 7"
    assert len(audio.data) == 44 + 2 * 44_100  # a WAV header, and a second of 16 bits
