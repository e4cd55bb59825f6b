"""Estimates the key of a roll, and transposes rolls.

Source: the Krumhansl-Schmuckler algorithm (Krumhansl, "Cognitive Foundations of Musical Pitch",
1990, chapter 4) with the probe-tone profiles of Krumhansl and Kessler (1982).
"""

import re
from typing import NamedTuple

import numpy as np

from pianolstm.rolls import LOWEST_PITCH, PITCHES

KEY_NAMES = ("C", "Db", "D", "Eb", "E", "F", "F#", "G", "Ab", "A", "Bb", "B")

# How well listeners rated each of the 12 pitch classes, from the tonic up, as fitting the key.
_MAJOR = (6.35, 2.23, 3.48, 2.33, 4.38, 4.09, 2.52, 5.19, 2.39, 3.66, 2.29, 2.88)
_MINOR = (6.33, 2.68, 3.52, 5.38, 2.60, 3.53, 2.54, 4.75, 3.98, 2.69, 3.34, 3.17)
_LETTERS = {"C": 0, "D": 2, "E": 4, "F": 5, "G": 7, "A": 9, "B": 11}


class Key(NamedTuple):
    """A tonic and a mode."""

    tonic: int  # pitch class, 0 = C
    minor: bool

    def __str__(self) -> str:
        """Return "Eb" for E flat major, "Ebm" for E flat minor."""
        return KEY_NAMES[self.tonic] + "m" * self.minor


def parse_key(text: str) -> Key:
    """Parse the name of a key.

    Args:
        text: a letter, # or b if any, and m for minor: C, F#, Bb, Am.

    Raises:
        ValueError: the text does not name a key.
    """
    match = re.fullmatch(r"([A-Ga-g])([#b]?)(m?)", text.strip())
    if match is None:
        raise ValueError(f"{text!r} is not a key; write for example C, F#, Bb or Am")
    letter, accidental, minor = match.groups()
    tonic = _LETTERS[letter.upper()] + {"": 0, "#": 1, "b": -1}[accidental]
    return Key(tonic % 12, bool(minor))


def pitch_class_counts(roll: np.ndarray) -> np.ndarray:
    """Return the number of frames in which each pitch class sounds.

    Args:
        roll: (T, 88) bool, column 0 = MIDI 21.

    Returns:
        (12,) float64, 0 = C. A pitch class that sounds in two octaves counts twice.
    """
    counts = np.zeros(12)
    np.add.at(counts, (np.arange(PITCHES) + LOWEST_PITCH) % 12, roll.sum(axis=0))
    return counts


def estimate_key(roll: np.ndarray) -> Key | None:
    """Estimate the key: the one whose profile correlates best (Pearson) with the durations.

    Args:
        roll: (T, 88) bool, column 0 = MIDI 21.

    Returns:
        The key; None if all pitch classes sound equally long, as in silence.
    """
    counts = pitch_class_counts(roll)
    if np.ptp(counts) == 0:
        return None
    keys = [Key(tonic, minor) for minor in (False, True) for tonic in range(12)]
    profiles = [np.roll(_MINOR if key.minor else _MAJOR, key.tonic) for key in keys]
    correlations = [np.corrcoef(counts, profile)[0, 1] for profile in profiles]
    return keys[int(np.argmax(correlations))]


def nearest_shift(source: int, target: int) -> int:
    """Return the shorter way from one pitch class to another, -5 to 6 semitones.

    Args:
        source: pitch class, 0 = C.
        target: pitch class, 0 = C.
    """
    return (target - source + 5) % 12 - 5


def transpose(roll: np.ndarray, semitones: int) -> np.ndarray:
    """Transpose a roll.

    A note that would leave the 88 pitches goes to the nearest octave inside them.

    Args:
        roll: (T, 88) bool, column 0 = MIDI 21.
        semitones: upwards; negative = downwards.

    Returns:
        A new roll, (T, 88) bool.
    """
    transposed = np.zeros_like(roll)
    for pitch in np.flatnonzero(roll.any(axis=0)):
        shifted = pitch + semitones
        while shifted < 0:
            shifted += 12
        while shifted >= PITCHES:
            shifted -= 12
        transposed[:, shifted] |= roll[:, pitch]
    return transposed
