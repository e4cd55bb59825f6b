"""The picture of a roll: a bar for each note held, and axes that name beats and pitches."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers import roll_from
from picture import draw_roll


def bars_of(figure: Any) -> list[tuple[float, float, float]]:
    """Return (start, end, middle) of the bars in a picture of a roll."""
    (collection,) = [c for c in figure.axes[0].collections if type(c).__name__ == "PatchCollection"]
    boxes = [path.get_extents() for path in collection.get_paths()]
    return [(box.x0, box.x1, (box.y0 + box.y1) / 2) for box in boxes]


def test_picture_has_a_bar_for_each_note_held() -> None:
    roll = roll_from({60}, {60, 64}, {64}, {60})
    bars = bars_of(draw_roll(roll, 0.5, "title"))
    # In beats, and columns of the roll: C4 is column 39, E4 43.
    expected = [(0.0, 1.0, 39), (0.5, 1.5, 43), (1.5, 2.0, 39)]
    assert [list(map(float, bar)) for bar in sorted(bars)] == [
        pytest.approx(bar) for bar in expected
    ]


def test_picture_names_its_axes_and_its_pitches() -> None:
    (axes,) = draw_roll(roll_from({60}, {79}, {60}, {60}), 0.5, "Tune 7").axes
    assert axes.get_title() == "Tune 7"
    assert "beat" in axes.get_xlabel()
    assert axes.get_ylabel() == "pitch"
    assert [label.get_text() for label in axes.get_yticklabels()] == ["C4", "C5"]
    assert axes.get_yticks().tolist() == [39, 51]
    assert axes.get_xlim() == (0, 2)
    low, high = axes.get_ylim()
    assert low < 39
    assert high > 58


@pytest.mark.parametrize(
    "note",
    [
        60,
        62,
        70,
        65,
    ],
)
def test_picture_of_one_note_names_a_pitch(note: int) -> None:
    (axes,) = draw_roll(roll_from({note}, {note}), 0.5, "t").axes
    low, high = axes.get_ylim()
    assert any(
        label.get_text() and low <= y <= high
        for label, y in zip(axes.get_yticklabels(), axes.get_yticks(), strict=True)
    )


@pytest.mark.parametrize(
    "roll",
    [roll_from(set(), set()), roll_from({21}), roll_from({108}), roll_from(set(range(21, 109)))],
    ids=["silent", "lowest", "highest", "all"],
)
def test_any_roll_can_be_drawn(roll: np.ndarray, tmp_path: Path) -> None:
    figure = draw_roll(roll, 0.5, "t")
    figure.savefig(tmp_path / "roll.png", dpi=30)
    assert len(bars_of(figure)) == roll.sum()
