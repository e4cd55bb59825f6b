"""Plots: loss curves, a piece with its notes and bars, a panel for each metric."""

import struct
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from helpers import roll_from
from pianolstm.metrics.comparison import compare
from pianolstm.metrics.pieces import METRICS
from pianolstm.outputs.plots import plot_losses, plot_metrics, plot_piece
from pianolstm.piece import Metre, Note, Piece

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


# ---- a piece -------------------------------------------------------------------------------------


def boxes_of(axes: Any) -> list[tuple[float, float, float]]:
    """Return (start, end, pitch) of the notes in a row of a plot."""
    notes = axes.collections[1]  # above the white keys, below the bar lines
    boxes = [path.get_extents() for path in notes.get_paths()]
    return [(float(box.x0), float(box.x1), float((box.y0 + box.y1) / 2)) for box in boxes]


def piece_of(roll: np.ndarray, metre: Metre | None = None, **values: Any) -> Piece:
    return Piece(roll, 0.5, metre=metre or Metre(4, 4), **values)


def test_a_piece_has_a_box_for_each_note_that_ends_just_before_the_next() -> None:
    figure = plot_piece(piece_of(roll_from({60}, {60, 64}, {64}, {60})))
    starts, ends, pitches = zip(*sorted(boxes_of(figure.axes[0])), strict=True)
    assert starts == (0.0, 0.5, 1.5)
    assert pitches == pytest.approx((60, 64, 60))
    for end, true_end in zip(ends, (1.0, 1.5, 2.0), strict=True):
        assert true_end - 0.11 <= end < true_end


def test_no_edge_covers_a_note() -> None:
    figure = plot_piece(piece_of(roll_from({60}), given=(Note(0, 0.03, 72),)))
    assert not any(any(c.get_linewidth()) for c in figure.axes[0].collections[:2])
    assert all(end > start for start, end, _ in boxes_of(figure.axes[0]))


def test_rows_have_sixteen_bars_of_the_metre_with_their_numbers() -> None:
    figure = plot_piece(piece_of(np.tile(roll_from({60}, {62}), (98, 1)), Metre(3, 4, 0.5)))
    assert (
        len(figure.axes) == 3
    )  # 98 beats = an upbeat of half a beat, 2 rows of 48, and a half bar
    labels = [[text.get_text() for text in axes.get_xticklabels()] for axes in figure.axes]
    assert labels[0] == [str(n) for n in range(1, 17)]
    assert labels[1][0] == "17"
    assert labels[2] == ["33"]
    assert figure.axes[1].get_xticks()[:2].tolist() == [48.5, 51.5]
    shown = [(end, axes.get_xlim()[1]) for axes in figure.axes for _, end, _ in boxes_of(axes)]
    assert all(end <= limit for end, limit in shown)


def test_ten_minutes_keep_a_readable_size(tmp_path: Path) -> None:
    roll = np.random.default_rng(1).random((2400, 88)) < 0.03
    plot_piece(piece_of(roll)).savefig(tmp_path / "roll.png", dpi=120)
    width, height = struct.unpack(">II", (tmp_path / "roll.png").read_bytes()[16:24])
    assert width == 1440
    assert 19 * 150 < height < 19 * 300  # 300 bars of 4/4 in 19 rows


def test_a_piece_has_a_title_its_metre_and_the_name_of_every_c() -> None:
    figure = plot_piece(piece_of(roll_from({60}, {79}, {60}, {60}), Metre(6, 8)), "Sample 7")
    (axes,) = figure.axes
    assert figure.get_suptitle() == "Sample 7"
    assert axes.get_xlabel() == "bar (6/8)"
    assert [label.get_text() for label in axes.get_yticklabels()] == ["C4", "C5"]
    assert axes.get_yticks().tolist() == [60, 72]


def test_given_notes_have_another_colour_and_a_legend() -> None:
    figure = plot_piece(piece_of(roll_from({60}), given=(Note(0, 0.5, 72),)))
    colors = figure.axes[0].collections[1].get_facecolor()
    assert len({tuple(color) for color in colors.tolist()}) == 2
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["given", "generated"]
    assert plot_piece(piece_of(roll_from({60}))).legends == []


@pytest.mark.parametrize(
    "roll",
    [roll_from(set(), set()), roll_from({21}), roll_from({108}), roll_from(set(range(21, 109)))],
    ids=["silent", "lowest", "highest", "all"],
)
def test_every_roll_can_be_plotted(roll: np.ndarray, tmp_path: Path) -> None:
    figure = plot_piece(Piece(roll, 0.5))
    figure.savefig(tmp_path / "roll.png", dpi=30)
    assert len(boxes_of(figure.axes[0])) == roll.sum()


# ---- metrics -------------------------------------------------------------------------------------


def random_rolls(count: int, seed: int) -> list[np.ndarray]:
    generator = np.random.default_rng(seed)
    return [(generator.random((70, 88)) < 0.05).repeat(2, axis=0) for _ in range(count)]


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
