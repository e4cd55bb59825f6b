"""Plots: loss curves, a roll with its notes and axes, a panel for each metric."""

import struct
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure

from helpers import roll_from
from pianolstm.metrics.comparison import compare
from pianolstm.metrics.pieces import METRICS
from pianolstm.outputs.plots import plot_losses, plot_metrics, plot_roll

# ---- loss curves ---------------------------------------------------------------------------------


@pytest.mark.parametrize("epochs", [1, 12])
@pytest.mark.parametrize("levels", [[], [("Markov", 6.83), ("LSTM, test", 3.29)]])
def test_losses_are_written_as_a_png_of_sensible_size(
    tmp_path: Path, epochs: int, levels: list[tuple[str, float]]
) -> None:
    history = [
        SimpleNamespace(epoch=n, train=9 / n, valid=10 / n + 1) for n in range(1, epochs + 1)
    ]
    path = tmp_path / "new" / "loss.png"
    plot_losses(path, history, "PianoLSTM on tiny", levels)
    data = path.read_bytes()
    assert data.startswith(b"\x89PNG\r\n\x1a\n")
    width, height = struct.unpack(">II", data[16:24])
    assert 800 <= width <= 2000
    assert 0.5 <= height / width <= 0.75
    assert 5_000 < len(data) < 500_000
    assert [file.name for file in path.parent.iterdir()] == ["loss.png"]


def test_losses_of_zero_are_plotted(tmp_path: Path) -> None:
    history = [SimpleNamespace(epoch=1, train=0.0, valid=0.0)]
    plot_losses(tmp_path / "loss.png", history, "silence", [("unigram", 0.0)])
    assert (tmp_path / "loss.png").stat().st_size > 5_000


# ---- a roll --------------------------------------------------------------------------------------


def bars_of(figure: Figure) -> list[tuple[float, float, float]]:
    """Return (start, end, vertical middle) of the notes in a plot of a roll."""
    collections: Any = figure.axes[0].collections
    (bars,) = [c for c in collections if type(c).__name__ == "PatchCollection"]
    boxes = [path.get_extents() for path in bars.get_paths()]
    return [(float(box.x0), float(box.x1), float((box.y0 + box.y1) / 2)) for box in boxes]


def test_a_roll_has_a_bar_for_each_held_note() -> None:
    roll = roll_from({60}, {60, 64}, {64}, {60})
    # In beats, and columns of the roll: C4 is column 39, E4 is column 43.
    expected = [(0.0, 1.0, 39), (0.5, 1.5, 43), (1.5, 2.0, 39)]
    bars = sorted(bars_of(plot_roll(roll, 0.5, "title")))
    assert bars == [pytest.approx(bar) for bar in expected]


def test_a_roll_has_a_title_beats_and_the_name_of_every_c() -> None:
    (axes,) = plot_roll(roll_from({60}, {79}, {60}, {60}), 0.5, "Sample 7").axes
    assert axes.get_title() == "Sample 7"
    assert "beat" in axes.get_xlabel()
    assert axes.get_ylabel() == "pitch"
    assert [label.get_text() for label in axes.get_yticklabels()] == ["C4", "C5"]
    assert axes.get_yticks().tolist() == [39, 51]
    assert axes.get_xlim() == (0, 2)
    low, high = axes.get_ylim()
    assert low < 39
    assert high > 58


@pytest.mark.parametrize("note", [60, 62, 70, 65])
def test_a_roll_of_one_pitch_has_a_named_pitch_in_view(note: int) -> None:
    (axes,) = plot_roll(roll_from({note}, {note}), 0.5, "t").axes
    low, high = axes.get_ylim()
    labels = zip(axes.get_yticklabels(), axes.get_yticks(), strict=True)
    assert any(label.get_text() and low <= y <= high for label, y in labels)


@pytest.mark.parametrize(
    "roll",
    [roll_from(set(), set()), roll_from({21}), roll_from({108}), roll_from(set(range(21, 109)))],
    ids=["silent", "lowest", "highest", "all"],
)
def test_every_roll_can_be_plotted(roll: np.ndarray, tmp_path: Path) -> None:
    figure = plot_roll(roll, 0.5, "t")
    figure.savefig(tmp_path / "roll.png", dpi=30)
    assert len(bars_of(figure)) == roll.sum()


# ---- metrics -------------------------------------------------------------------------------------


def random_rolls(count: int, seed: int) -> list[np.ndarray]:
    generator = np.random.default_rng(seed)
    return [(generator.random((40, 88)) < 0.05).repeat(2, axis=0) for _ in range(count)]


def test_each_metric_has_a_panel_that_shows_both_sets() -> None:
    comparisons = compare(random_rolls(4, 1), random_rolls(5, 2), 0.5)
    undefined = compare([], random_rolls(1, 2), 0.5)[:1]
    figure = plot_metrics([*comparisons, *undefined], "model 7")
    assert figure.get_suptitle() == "model 7"
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["sampled", "real"]
    assert figure.axes[len(comparisons)].texts[0].get_text() == "not defined"
    panels: dict[str, Any] = {
        axes.get_title().split(",")[0]: axes for axes in figure.axes[: len(comparisons)]
    }
    assert list(panels) == list(METRICS)
    for row in comparisons:
        axes, bins = panels[row.name], len(METRICS[row.name].bins)
        heights = [[bar.get_height() for bar in bars] for bars in axes.containers]
        if not bins:
            for shares, pieces in zip(heights, (4, 5), strict=True):
                counts = np.array(shares) * pieces
                assert [*counts, counts.sum()] == pytest.approx([*counts.round(), pieces])
            assert axes.get_xlabel() == METRICS[row.name].unit
        elif row.sampled.shape[1] == bins:
            np.testing.assert_allclose(heights, [row.sampled.mean(axis=0), row.real.mean(axis=0)])
        else:
            difference = row.sampled.mean(axis=0) - row.real.mean(axis=0)
            np.testing.assert_allclose(axes.images[0].get_array().ravel(), difference)
