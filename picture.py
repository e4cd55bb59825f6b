"""Rolls as pictures."""

import numpy as np
import pretty_midi
from matplotlib.collections import PatchCollection
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from midi import held_notes
from settings import LOWEST, K


def draw_roll(roll: np.ndarray, frame_beats: float, title: str) -> Figure:
    """Draw a roll, (T, 88) bool, as a figure: time in beats, pitch by name, white keys shaded."""
    sounding = np.flatnonzero(roll.any(axis=0)) if roll.any() else np.array([39, 51])  # C4, C5
    low, high = max(int(sounding[0]) - 2, 0), min(int(sounding[-1]) + 2, K - 1)
    beats = len(roll) * frame_beats
    figure = Figure(figsize=(12, 4), layout="constrained")
    axes = figure.add_subplot()
    for key in range(low, high + 1):
        if (key + LOWEST) % 12 in (0, 2, 4, 5, 7, 9, 11):  # the white keys
            axes.axhspan(key - 0.5, key + 0.5, color="#eef1f4", linewidth=0)
    axes.vlines(np.arange(0, beats, 4), low - 0.5, high + 0.5, color="white", linewidth=1, zorder=1)
    bars = PatchCollection(
        [
            Rectangle((start * frame_beats, key - 0.42), (end - start) * frame_beats, 0.84)
            for key, start, end in held_notes(roll)
        ],
        facecolor="#1f5f8b",
        edgecolor="white",
        linewidth=0.5,
        zorder=2,
    )
    axes.add_collection(bars)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=16, steps=[1, 2, 4, 8], integer=True))
    named = [key for key in range(low, high + 1) if (key + LOWEST) % 12 == 0]  # every C,
    named = named or [int(sounding[0])]  # or the lowest note where none is in sight
    axes.set_yticks(named, [pretty_midi.note_number_to_name(key + LOWEST) for key in named])
    axes.set(title=title, xlabel="time (beats)", ylabel="pitch")
    axes.set(xlim=(0, beats), ylim=(low - 0.5, high + 0.5))
    axes.spines[["top", "right"]].set_visible(False)
    return figure
