"""A piece of music with everything that its files need: notes, tempo, metre and key.

Generated notes are a roll, on the model's grid. Notes that the user gave are kept beside it exactly
as they were in the user's file, off the grid where they were off it.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from pianolstm.tonality import Key


class Note(NamedTuple):
    """A note of the user's; times in beats (quarter notes) from the start of the piece."""

    start: float
    end: float
    pitch: int  # MIDI number
    velocity: int = 80


class Metre(NamedTuple):
    """A time signature, and where its first bar line is."""

    numerator: int = 4
    denominator: int = 4
    upbeat: float = 0.0  # beats (quarter notes) before the first bar line

    @property
    def bar_beats(self) -> float:
        """Length of a bar in beats (quarter notes)."""
        return self.numerator * 4 / self.denominator

    def __str__(self) -> str:
        """Return "6/8"."""
        return f"{self.numerator}/{self.denominator}"


@dataclass(frozen=True)
class Piece:
    """A piece to be written as MIDI, audio, score or picture."""

    roll: np.ndarray  # (T, 88) bool, the generated notes, without those of `given`
    frame_beats: float  # length of a frame in beats (quarter notes)
    bpm: float = 120.0  # quarter notes per minute
    metre: Metre | None = None  # None = to be estimated
    key: Key | None = None  # None = to be estimated
    given: tuple[Note, ...] = ()  # the user's own notes, unchanged
    title: str = ""
    four_voices: bool = False  # soprano, alto, tenor, bass, as in chorales; else melody and chords

    @property
    def beats(self) -> float:
        """Length in beats: of the roll, or up to the end of the last given note."""
        ends = [note.end for note in self.given]
        return max([len(self.roll) * self.frame_beats, *ends])
