"""A piece of music with everything that its files need: notes, tempo, metre and key.

Generated notes are a roll, on the model's grid. Notes that the user gave are kept beside it exactly
as they were in the user's file, off the grid where they were off it.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from pianolstm.rolls import LOWEST_PITCH, PITCHES
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


def parse_metre(text: str) -> Metre:
    """Parse a time signature such as "6/8".

    Raises:
        ValueError: the text is not a time signature.
    """
    match = re.fullmatch(r"\s*(\d{1,2})\s*/\s*(1|2|4|8|16|32)\s*", text)
    if match is None or not 1 <= int(match[1]) <= 32:
        raise ValueError(f"{text!r} is not a time signature; write for example 4/4, 3/4 or 6/8")
    return Metre(int(match[1]), int(match[2]))


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
    shift: int = 0  # semitones by which `roll` is above what the model sampled
    remarks: tuple[str, ...] = ()  # one line each on what the model could not do as asked

    @property
    def beats(self) -> float:
        """Length in beats: of the roll, or up to the end of the last given note."""
        ends = [note.end for note in self.given]
        return max([len(self.roll) * self.frame_beats, *ends])


def notes_to_roll(
    notes: Iterable[Note], frame_beats: float, frames: int, min_frames: int = 0
) -> np.ndarray:
    """Return notes on the model's grid; starts and ends are rounded to it, half a frame up.

    Args:
        notes: the notes; those not among the 88 pitches are left out.
        frame_beats: length of a frame in beats.
        frames: the length of the roll.
        min_frames: the shortest note in frames. With 0, a note that rounds to no frame vanishes;
            with 1, it is kept for the frame in which most of it sounds.

    Returns:
        (T, 88) bool, row = one frame, column 0 = MIDI 21 (A0).
    """
    roll = np.zeros((frames, PITCHES), dtype=bool)
    for note in notes:
        start, end = int(note.start / frame_beats + 0.5), int(note.end / frame_beats + 0.5)
        if min_frames:
            start = start if start < end else int((note.start + note.end) / 2 / frame_beats)
            end = max(end, start + min_frames)
        if 0 <= (column := note.pitch - LOWEST_PITCH) < PITCHES:
            roll[start:end, column] = True
    return roll
