"""A roll in a notebook: a picture and an audio player."""

import numpy as np

from pianolstm.midi import roll_to_midi
from pianolstm.outputs.audio import SAMPLE_RATE, synthesize
from pianolstm.outputs.plots import plot_roll


def play(roll: np.ndarray, frame_beats: float = 0.5, bpm: float = 120.0, title: str = "") -> None:
    """Show a roll as a picture and an audio player; needs IPython.

    Args:
        roll: (T, 88) bool, row = one frame, column 0 = MIDI 21 (A0).
        frame_beats: length of a frame in beats.
        bpm: tempo in beats per minute.
        title: heading of the picture.
    """
    from IPython.display import Audio, display  # only notebooks have it

    audio = synthesize(roll_to_midi(roll, frame_beats, bpm), len(roll) * frame_beats * 60 / bpm)
    display(plot_roll(roll, frame_beats, title), Audio(audio, rate=SAMPLE_RATE))
