"""All plots, by Matplotlib: the loss curves of a run, a piano-roll, and compared metrics."""

import gc
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
import pretty_midi
from matplotlib.axes import Axes
from matplotlib.collections import PatchCollection
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

from pianolstm.files import atomic_write
from pianolstm.metrics.pieces import METRICS
from pianolstm.metrics.surprise import Surprise
from pianolstm.midi import roll_to_notes
from pianolstm.rolls import LOWEST_PITCH, PITCHES

if TYPE_CHECKING:  # its SciPy takes a second to import
    from pianolstm.metrics.comparison import Comparison

_BLUE, _ORANGE = "#1f5f8b", "#d98032"  # sampled, real
_GRAY, _RED, _DARK = "#7a8a99", "#c0392b", "#2c3e50"  # train, valid, baselines
_WHITE_KEYS = (0, 2, 4, 5, 7, 9, 11)  # pitch classes
_C4, _C5 = 60 - LOWEST_PITCH, 72 - LOWEST_PITCH  # columns
_PANELS_PER_ROW = 4
_MIN_NLL = 1e-3  # nats; smaller values are drawn here, since a logarithmic axis has no 0
_FULL_SURPRISE = 6.0  # nats of the last colour
_MIN_DIFFERENCE = 1e-9  # full scale of a plot of differences, at least


class _Epoch(Protocol):
    """The losses of an epoch, in nats per frame."""

    @property
    def epoch(self) -> int: ...
    @property
    def train(self) -> float: ...
    @property
    def valid(self) -> float: ...


# ---- loss curves ---------------------------------------------------------------------------------


def plot_losses(
    path: Path, history: Sequence[_Epoch], title: str, levels: Sequence[tuple[str, float]]
) -> None:
    """Write a PNG of the training and validation loss by epoch, on a logarithmic scale.

    The epoch of the lowest validation loss is marked.

    Args:
        path: the file to write.
        history: the epochs, at least one, each with `epoch`, `train` and `valid`.
        title: heading of the plot.
        levels: names and NLLs of other predictors, in nats per frame, drawn as dashed lines.

    Raises:
        InputError: the path is not writable.
    """
    figure = Figure(figsize=(9, 5.5), layout="constrained")
    axes = figure.add_subplot()
    epochs = [epoch.epoch for epoch in history]
    train = [max(epoch.train, _MIN_NLL) for epoch in history]
    valid = [max(epoch.valid, _MIN_NLL) for epoch in history]
    heights = [max(level, _MIN_NLL) for _, level in levels]
    axes.plot(epochs, train, ".-", color=_GRAY, label="train")
    axes.plot(epochs, valid, ".-", color=_RED, label="valid")
    best = min(range(len(history)), key=lambda i: history[i].valid)
    point = (epochs[best], valid[best])
    above = history[best].train <= history[best].valid  # away from the training curve
    axes.plot(*point, "o", color=_RED, markersize=9, fillstyle="none")
    axes.annotate(
        f"best: {history[best].valid:.2f}", point, (6, 9 if above else -17),
        textcoords="offset points", ha="right", color=_RED,
    )  # fmt: skip
    axes.set(title=title, xlabel="epoch", ylabel="negative log-likelihood (nats per frame)")
    axes.set_xlim(0.5, max(len(history), 2) + 0.5)
    lowest = 0.85 * min(*train, *valid, *heights)
    highest = 1.1 * max(*train, *valid, *heights)
    axes.set_ylim(lowest, highest)
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 3, 5, 7)))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_locator(NullLocator())
    for (name, level), height in zip(levels, heights, strict=True):
        # The label goes below its line if another line would cross it above.
        near = (highest / lowest) ** 0.05
        crossed = any(height < other < near * height for other in heights)
        axes.axhline(height, linestyle="--", linewidth=1, color=_DARK, alpha=0.6, zorder=0)
        axes.annotate(
            f"{name}: {level:.2f}", (1, height), (-6, -11 if crossed else 3),
            xycoords=("axes fraction", "data"), textcoords="offset points", ha="right",
            fontsize=8, color=_DARK,
        )  # fmt: skip
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="lower left", ncols=2)
    with atomic_write(path) as temporary:
        figure.savefig(temporary, format="png", dpi=150)
    # A figure holds 5 MB in reference cycles. Training plots one per epoch, faster than Python's
    # garbage collector would free them by itself.
    del figure, axes
    gc.collect()


# ---- a piano-roll --------------------------------------------------------------------------------


def plot_roll(roll: np.ndarray, frame_beats: float, title: str) -> Figure:
    """Return a figure of a roll: time in beats, pitches by name, rows of white keys shaded.

    Args:
        roll: (T, 88) bool, row = one frame, column 0 = MIDI 21 (A0).
        frame_beats: length of a frame in beats.
        title: heading of the figure.
    """
    figure = Figure(figsize=(12, 4), layout="constrained")
    axes = figure.add_subplot()
    bars = PatchCollection(
        [
            Rectangle((start * frame_beats, column - 0.42), (end - start) * frame_beats, 0.84)
            for column, start, end in roll_to_notes(roll)
        ],
        facecolor=_BLUE,
        edgecolor="white",
        linewidth=0.5,
        zorder=2,
    )
    _draw_roll(axes, bars, roll, frame_beats)
    axes.set(title=title, xlabel="time (beats)")
    return figure


def plot_surprise(found: Surprise, frame_beats: float, title: str) -> Figure:
    """Return a figure of a roll coloured by surprise, above the NLL of each frame.

    Args:
        found: the surprise of a piece.
        frame_beats: length of a frame in beats.
        title: heading of the figure.
    """
    figure = Figure(figsize=(12, 5.5), layout="constrained")
    above, below = figure.subplots(2, height_ratios=(3, 1), sharex=True)
    times, columns = found.roll.nonzero()
    cells = PatchCollection(
        [
            Rectangle((t * frame_beats, column - 0.42), frame_beats, 0.84)
            for t, column in zip(times.tolist(), columns.tolist(), strict=True)
        ],
        cmap=LinearSegmentedColormap.from_list("surprise", ("#b9cbd9", _BLUE, _ORANGE, _RED)),
        linewidth=0,
        zorder=2,
    )
    cells.set_array(found.notes[times, columns])
    cells.set_clim(0, _FULL_SURPRISE)
    _draw_roll(above, cells, found.roll, frame_beats)
    above.set(title=title)
    figure.colorbar(cells, ax=above, extend="max", label="nats of each note", pad=0.01)
    edges = np.arange(len(found.roll) + 1) * frame_beats
    below.stairs(found.frames, edges, fill=True, color=_GRAY)
    below.set(xlabel="time (beats)", ylabel="nats of\neach frame", ylim=(0, None))
    below.spines[["top", "right"]].set_visible(False)
    return figure


def _draw_roll(axes: Axes, notes: PatchCollection, roll: np.ndarray, frame_beats: float) -> None:
    """Draw the notes of a roll and what lies behind them."""
    columns = np.flatnonzero(roll.any(axis=0)) if roll.any() else np.array([_C4, _C5])
    low, high = max(int(columns[0]) - 2, 0), min(int(columns[-1]) + 2, PITCHES - 1)
    beats = len(roll) * frame_beats
    for column in range(low, high + 1):
        if (column + LOWEST_PITCH) % 12 in _WHITE_KEYS:
            axes.axhspan(column - 0.5, column + 0.5, color="#eef1f4", linewidth=0)
    axes.vlines(np.arange(0, beats, 4), low - 0.5, high + 0.5, color="white", linewidth=1, zorder=1)
    axes.add_collection(notes)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=16, steps=[1, 2, 4, 8], integer=True))
    ticks = [column for column in range(low, high + 1) if (column + LOWEST_PITCH) % 12 == 0]
    ticks = ticks or [int(columns[0])]  # every C, else the lowest note
    names = [pretty_midi.note_number_to_name(column + LOWEST_PITCH) for column in ticks]
    axes.set_yticks(ticks, names)
    axes.set(ylabel="pitch", xlim=(0, beats), ylim=(low - 0.5, high + 0.5))
    axes.spines[["top", "right"]].set_visible(False)


# ---- metrics -------------------------------------------------------------------------------------


def plot_metrics(comparisons: Sequence["Comparison"], title: str) -> Figure:
    """Return a figure with a panel for each comparison of sampled and real pieces.

    A scalar metric is shown as two histograms over pieces, a vector as its mean over each set, and
    a matrix as the difference of the two means, sampled minus real.

    Args:
        comparisons: of `comparison.compare`.
        title: heading of the figure.
    """
    rows = -(-len(comparisons) // _PANELS_PER_ROW)
    size = (4 * _PANELS_PER_ROW, 2.8 * rows + 0.8)
    figure = Figure(figsize=size, layout="constrained")
    panels = figure.subplots(rows, _PANELS_PER_ROW, squeeze=False).ravel()
    for axes, comparison in zip(panels, comparisons, strict=False):
        overlap = "" if np.isnan(comparison.overlap) else f", overlap {comparison.overlap:.2f}"
        axes.set_title(comparison.name + overlap, fontsize=10)
        bins = METRICS[comparison.name].bins
        if not (len(comparison.sampled) and len(comparison.real)):
            axes.text(0.5, 0.5, "not defined", ha="center", transform=axes.transAxes)
        elif not bins:
            _plot_scalar(axes, comparison)
        elif comparison.real.shape[1] == len(bins):
            _plot_vector(axes, comparison, bins)
        else:
            _plot_matrix(axes, comparison, bins)
    for axes in panels[len(comparisons) :]:
        axes.set_axis_off()
    figure.suptitle(title)
    handles = [Patch(color=_BLUE, label="sampled"), Patch(color=_ORANGE, label="real")]
    figure.legend(handles=handles, loc="outside lower center", ncols=2)
    return figure


def _plot_scalar(axes: Axes, comparison: "Comparison") -> None:
    """Plot a histogram of each set over the same bins."""
    values = np.concatenate([comparison.sampled, comparison.real])
    edges = np.histogram_bin_edges(values, bins=20)
    for values, color in ((comparison.sampled, _BLUE), (comparison.real, _ORANGE)):
        weights = np.full(len(values), 1 / len(values))
        axes.hist(values[:, 0], edges.tolist(), weights=weights, color=color, alpha=0.6)
    axes.set(xlabel=METRICS[comparison.name].unit, ylabel="share of pieces")


def _plot_vector(axes: Axes, comparison: "Comparison", bins: Sequence[str]) -> None:
    """Plot the mean of each set as bars side by side."""
    x = np.arange(len(bins))
    axes.bar(x - 0.2, comparison.sampled.mean(axis=0), 0.4, color=_BLUE)
    axes.bar(x + 0.2, comparison.real.mean(axis=0), 0.4, color=_ORANGE)
    axes.set_xticks(x, bins, fontsize=6)
    axes.set_ylabel(METRICS[comparison.name].unit)


def _plot_matrix(axes: Axes, comparison: "Comparison", bins: Sequence[str]) -> None:
    """Plot the mean of the samples minus that of the real pieces as an image."""
    difference = comparison.sampled.mean(axis=0) - comparison.real.mean(axis=0)
    limit = max(float(np.abs(difference).max()), _MIN_DIFFERENCE)
    axes.imshow(
        difference.reshape(len(bins), -1), cmap="PuOr", vmin=-limit, vmax=limit, aspect="auto"
    )
    axes.set_xticks(range(len(bins)), bins, fontsize=6)
    axes.set_yticks(range(len(bins)), bins, fontsize=6)
    # A colour bar would narrow every panel of its column, so the label gives the scale.
    axes.set(xlabel=f"to (purple: more in samples, up to {limit:.2g})", ylabel="from")
