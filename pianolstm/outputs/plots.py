"""All plots, by Matplotlib: loss curves, a piano-roll, compared metrics, a data set."""

import gc
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pretty_midi
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import PolyCollection
from matplotlib.colors import LinearSegmentedColormap, Normalize, to_hex
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

from pianolstm.files import atomic_write
from pianolstm.metrics.pieces import METRICS
from pianolstm.metrics.surprise import Surprise
from pianolstm.outputs.events import EpochLosses
from pianolstm.parts import complete, generated_notes
from pianolstm.piece import Metre, Note, Piece
from pianolstm.rolls import LOWEST_PITCH, PITCHES
from pianolstm.tonality import KEY_NAMES

if TYPE_CHECKING:  # its SciPy takes a second to import
    from pianolstm.metrics.comparison import Comparison
    from pianolstm.outputs.inspection import SplitContents

_BLUE, _ORANGE = "#1f5f8b", "#d98032"  # sampled, real
_GRAY, _RED, _DARK = "#7a8a99", "#c0392b", "#2c3e50"  # train, valid, baselines
_WHITE_KEYS = (0, 2, 4, 5, 7, 9, 11)  # pitch classes
_WHITE_ROW, _BAR_LINE = "#eef1f4", "#b4bec7"
_BARS_PER_ROW = 16
_ROW_GAP = 0.3  # inches
_TALL_ROWS = 4  # with more, rows are lower
_NOTE_GAP = 0.06  # beats
_PANELS_PER_ROW = 4
_SHOWN_BEATS = 128  # of the piece in the picture of a data set
_MIN_NLL = 1e-3  # nats; smaller values are drawn here, since a logarithmic axis has no 0
_FULL_SURPRISE = 6.0  # nats of the last colour
_MIN_DIFFERENCE = 1e-9  # full scale of a plot of differences, at least


# ---- loss curves ---------------------------------------------------------------------------------


def plot_losses(
    path: Path, history: Sequence[EpochLosses], title: str, levels: Sequence[tuple[str, float]]
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


def plot_piece(piece: Piece, title: str = "") -> Figure:
    """Return a figure of a piece: rows of 16 bars, pitches by name, rows of white keys shaded.

    Ticks are bars, by number. Given notes have another colour than generated ones.

    Args:
        piece: the piece; metre and key are estimated where they are None.
        title: heading of the figure; default: the piece's.
    """
    piece = complete(piece)
    metre = piece.metre or Metre()
    notes = [(note, _BLUE) for note in generated_notes(piece)]
    notes += [(note, _ORANGE) for note in piece.given]
    pitches = [note.pitch for note, _ in notes] or [60, 72]
    low, high = min(pitches) - 2, max(pitches) + 2
    row_beats = _BARS_PER_ROW * metre.bar_beats
    rows = max(1, math.ceil((piece.beats - metre.upbeat) / row_beats - 1e-6))
    width = row_beats if rows > 1 else max(piece.beats - metre.upbeat, metre.bar_beats)
    row_height = 1.7 if rows > _TALL_ROWS else min(max((high - low) * 0.07, 1.7), 3.0)  # inches
    height = rows * (row_height + _ROW_GAP) + 0.7
    figure = Figure(figsize=(12, height))
    figure.suptitle(title or piece.title, y=1 - 0.15 / height, va="top")
    figure.subplots_adjust(
        left=0.055, right=0.985, top=1 - 0.55 / height, bottom=0.5 / height,
        hspace=_ROW_GAP / row_height,
    )  # fmt: skip
    for row, axes in enumerate(figure.subplots(rows, 1, squeeze=False)[:, 0]):
        start = metre.upbeat + row * row_beats  # of its first whole bar
        # All bar lines stand below one another: the rows after the first keep the upbeat's place.
        axes.set(xlim=(start - metre.upbeat, start + width), ylim=(low - 0.5, high + 0.5))
        first = start if row else 0.0
        shown = [
            (note, color)
            for note, color in notes
            if note.start < start + width - 1e-6 and note.end > first + 1e-6
        ]
        _plot_row(axes, shown, (first, start + width))
        bars = np.arange(start, min(start + width, piece.beats) - 1e-6, metre.bar_beats)
        axes.vlines(bars, low - 0.5, high + 0.5, color=_BAR_LINE, linewidth=0.8, zorder=1)
        number = row * _BARS_PER_ROW + 1
        axes.set_xticks(bars, [str(number + i) for i in range(len(bars))], fontsize=8, ha="left")
        ticks = [pitch for pitch in range(low, high + 1) if pitch % 12 == 0] or [min(pitches)]
        axes.set_yticks(ticks, [pretty_midi.note_number_to_name(pitch) for pitch in ticks])
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
    axes.set_xlabel(f"bar ({metre})")
    if piece.given:
        handles = [Patch(color=_ORANGE, label="given"), Patch(color=_BLUE, label="generated")]
        figure.legend(handles=handles, loc="upper right", ncols=2, frameon=False, fontsize=9)
    return figure


def plot_surprise(found: Surprise, piece: Piece) -> Figure:
    """Return a figure of a piece coloured by surprise, above the NLL of each frame.

    Args:
        found: the surprise of the piece, (T, 88).
        piece: the same roll with its metre and title.
    """
    piece = complete(piece)
    metre, beats = piece.metre or Metre(), max(piece.beats, piece.frame_beats)
    colors = LinearSegmentedColormap.from_list("surprise", ("#b9cbd9", _BLUE, _ORANGE, _RED))
    notes = [
        (
            Note(t * piece.frame_beats, (t + 1) * piece.frame_beats, column + LOWEST_PITCH),
            to_hex(colors(float(found.notes[t, column]) / _FULL_SURPRISE)),
        )
        for t, column in zip(*(axis.tolist() for axis in found.roll.nonzero()), strict=True)
    ]
    pitches = [note.pitch for note, _ in notes] or [60, 72]
    low, high = min(pitches) - 2, max(pitches) + 2
    figure = Figure(figsize=(min(max(12, 0.18 * beats), 60), 5.5), layout="constrained")
    above, below = figure.subplots(2, height_ratios=(3, 1), sharex=True)
    above.set(title=piece.title, xlim=(0, beats), ylim=(low - 0.5, high + 0.5), ylabel="pitch")
    _plot_row(above, notes, (0, beats))
    bars = np.arange(metre.upbeat, beats - 1e-6, metre.bar_beats)
    above.vlines(bars, low - 0.5, high + 0.5, color=_BAR_LINE, linewidth=0.8, zorder=1)
    ticks = [pitch for pitch in range(low, high + 1) if pitch % 12 == 0] or [min(pitches)]
    above.set_yticks(ticks, [pretty_midi.note_number_to_name(pitch) for pitch in ticks])
    scale = ScalarMappable(Normalize(0, _FULL_SURPRISE), colors)
    figure.colorbar(scale, ax=above, extend="max", label="nats of each note", pad=0.01)
    edges = np.arange(len(found.roll) + 1) * piece.frame_beats
    below.stairs(found.frames, edges, fill=True, color=_GRAY)
    below.set(xlabel=f"bar ({metre})", ylabel="nats of\neach frame", ylim=(0, None))
    step = max(1, len(bars) // 32)
    below.set_xticks(bars[::step], [str(i + 1) for i in range(len(bars))][::step], ha="left")
    for axes in (above, below):
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def _plot_row(axes: Axes, notes: Sequence[tuple[Note, str]], span: tuple[float, float]) -> None:
    """Plot the notes of a row as rectangles; what is beyond the row is cut off.

    Args:
        axes: of the row, with its limits.
        notes: notes and their colours.
        span: start and end of the row in beats.
    """
    low, high = axes.get_ylim()
    white = [p for p in range(round(low + 0.5), round(high + 0.5)) if p % 12 in _WHITE_KEYS]
    rows = [_box(*span, pitch, 0.5) for pitch in white]
    axes.add_collection(PolyCollection(rows, facecolor=_WHITE_ROW, linewidth=0, zorder=0))
    boxes = []
    for note, _ in notes:
        start, end = max(note.start, span[0]), min(note.end, span[1])
        # A gap to the next note in place of an edge, which would hide short notes.
        gap = min(_NOTE_GAP, 0.2 * (end - start)) if end == note.end else 0.0
        boxes.append(_box(start, end - gap, note.pitch, 0.42))
    colors = [color for _, color in notes]
    axes.add_collection(PolyCollection(boxes, facecolor=colors, linewidth=0, zorder=2))


def _box(start: float, end: float, pitch: int, half: float) -> list[tuple[float, float]]:
    """Return the corners of a rectangle around a pitch."""
    low, high = pitch - half, pitch + half
    return [(start, low), (end, low), (end, high), (start, high)]


# ---- a data set ----------------------------------------------------------------------------------


def plot_inspection(
    contents: Mapping[str, "SplitContents"], roll: np.ndarray, frame_beats: float, title: str
) -> Figure:
    """Return a figure of a data set: lengths, notes in a frame, pitches, keys, and one piece.

    Args:
        contents: of each split.
        roll: the piece to show, (T, 88) bool.
        frame_beats: length of a frame in beats.
        title: heading of the figure.
    """
    figure = Figure(figsize=(14, 10), layout="constrained")
    panels = figure.subplot_mosaic([["lengths", "notes"], ["pitches", "keys"], ["roll", "roll"]])
    colors = dict(zip(contents, (_BLUE, _ORANGE, _GRAY), strict=True))
    lengths = np.concatenate([split.lengths for split in contents.values()])
    edges = np.histogram_bin_edges(lengths * frame_beats, bins=24)
    highest = max(int(np.flatnonzero(split.polyphony)[-1]) for split in contents.values())
    keys = [name + mode for mode in ("", "m") for name in KEY_NAMES]
    low, high = PITCHES, -1  # columns
    for i, (name, split) in enumerate(contents.items()):
        color, offset = colors[name], 0.27 * (i - 1)
        pieces, _ = np.histogram(split.lengths * frame_beats, edges)
        centres = edges[:-1] + np.diff(edges) * (0.5 + offset)
        panels["lengths"].bar(
            centres, pieces / pieces.sum(), 0.25 * np.diff(edges), color=color, label=name
        )
        frames, bars = split.lengths.sum(), np.arange(highest + 1) + offset
        panels["notes"].bar(bars, split.polyphony[: highest + 1] / frames, 0.25, color=color)
        panels["pitches"].step(
            np.arange(PITCHES) + LOWEST_PITCH, split.pitches / frames, where="mid", color=color
        )
        shares = [split.keys[key] / len(split.lengths) for key in keys]
        panels["keys"].bar(np.arange(len(keys)) + offset, shares, 0.25, color=color)
        if sounding := np.flatnonzero(split.pitches).tolist():
            low, high = min(low, sounding[0]), max(high, sounding[-1])
    panels["lengths"].set(xlabel="length of a piece (beats)", ylabel="share of pieces")
    panels["notes"].set(xlabel="notes in a frame", ylabel="share of frames")
    panels["notes"].xaxis.set_major_locator(MaxNLocator(integer=True))
    panels["pitches"].set(xlabel="pitch", ylabel="share of frames in which it sounds")
    if high >= low:
        panels["pitches"].set_xlim(low + LOWEST_PITCH - 1, high + LOWEST_PITCH + 1)
    octaves = range(24, 109, 12)  # every C
    names = [pretty_midi.note_number_to_name(pitch) for pitch in octaves]
    limits = panels["pitches"].get_xlim()
    panels["pitches"].set_xticks(octaves, names)
    panels["pitches"].set_xlim(limits)
    panels["keys"].set_xticks(range(len(keys)), keys, fontsize=8)
    panels["keys"].set(xlabel="estimated key", ylabel="share of pieces")
    for axes in panels.values():
        axes.spines[["top", "right"]].set_visible(False)
    _plot_beginning(panels["roll"], Piece(roll, frame_beats))
    panels["roll"].set(title="the first training piece, as it was read")
    figure.legend(
        *panels["lengths"].get_legend_handles_labels(), loc="outside lower center", ncols=3
    )
    figure.suptitle(title)
    return figure


def _plot_beginning(axes: Axes, piece: Piece) -> None:
    """Plot the first beats of a piece, at most _SHOWN_BEATS."""
    end = min(piece.beats, _SHOWN_BEATS)
    notes = [(note, _BLUE) for note in generated_notes(piece) if note.start < end]
    pitches = [note.pitch for note, _ in notes] or [60, 72]
    low, high = min(pitches) - 2, max(pitches) + 2
    axes.set(xlim=(0, end), ylim=(low - 0.5, high + 0.5), xlabel="time (beats)", ylabel="pitch")
    _plot_row(axes, notes, (0.0, end))
    ticks = [pitch for pitch in range(low, high + 1) if pitch % 12 == 0] or [min(pitches)]
    axes.set_yticks(ticks, [pretty_midi.note_number_to_name(pitch) for pitch in ticks])


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
