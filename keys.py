"""The key of a roll, and rolls moved to another one.

Sources: Krumhansl and Schmuckler's key finding, in Krumhansl, "Cognitive Foundations of Musical
Pitch" (1990), chapter 4, with the probe-tone profiles of Krumhansl and Kessler (1982).
"""

import re
from typing import NamedTuple

import numpy as np

from settings import LOWEST, K

# How well each of the 12 pitch classes, from the tonic up, was judged to fit the key.
MAJOR = (6.35, 2.23, 3.48, 2.33, 4.38, 4.09, 2.52, 5.19, 2.39, 3.66, 2.29, 2.88)
MINOR = (6.33, 2.68, 3.52, 5.38, 2.60, 3.53, 2.54, 4.75, 3.98, 2.69, 3.34, 3.17)
NAMES = ("C", "Db", "D", "Eb", "E", "F", "F#", "G", "Ab", "A", "Bb", "B")
LETTERS = {"C": 0, "D": 2, "E": 4, "F": 5, "G": 7, "A": 9, "B": 11}


class Key(NamedTuple):
    """A tonic and a mode."""

    tonic: int  # pitch class, 0 = C
    minor: bool

    def __str__(self) -> str:
        """Return "Eb" for E flat major and "Ebm" for its minor."""
        return NAMES[self.tonic] + "m" * self.minor


def parse_key(text: str) -> Key:
    """Return the key of a name such as C, F#, Bb, Am.

    Raises:
        ValueError: it is no name of a key.
    """
    match = re.fullmatch(r"([A-Ga-g])([#b]?)(m?)", text.strip())
    if match is None:
        raise ValueError(f"{text!r} is no key; write C, F#, Bb or Am")
    letter, sign, minor = match.groups()
    tonic = LETTERS[letter.upper()] + {"": 0, "#": 1, "b": -1}[sign]
    return Key(tonic % 12, bool(minor))


def pitch_classes(roll: np.ndarray) -> np.ndarray:
    """Return for how many frames each pitch class sounds, (12,), 0 = C; a doubled one twice."""
    counts = np.zeros(12)
    np.add.at(counts, (np.arange(K) + LOWEST) % 12, roll.sum(axis=0))
    return counts


def find_key(roll: np.ndarray) -> Key | None:
    """Return the key of a roll, (T, 88) bool; None where nothing tells, as in silence.

    The key whose profile correlates best (Pearson) with how long each pitch class sounds.
    """
    heard = pitch_classes(roll)
    if np.ptp(heard) == 0:
        return None
    keys = [Key(tonic, minor) for minor in (False, True) for tonic in range(12)]
    fits = [np.corrcoef(heard, np.roll(MINOR if k.minor else MAJOR, k.tonic))[0, 1] for k in keys]
    return keys[int(np.argmax(fits))]


def nearest_shift(source: int, target: int) -> int:
    """Return the semitones from one pitch class to another by the shorter way, -5 to 6."""
    return (target - source + 5) % 12 - 5


def move(roll: np.ndarray, semitones: int) -> np.ndarray:
    """Return a roll, (T, 88) bool, moved by semitones; what would leave the keys, by octaves less.

    Moved back by as much it is the same again, but for those notes.
    """
    moved = np.zeros_like(roll)
    for key in np.flatnonzero(roll.any(axis=0)):
        place = key + semitones
        while place < 0:
            place += 12
        while place >= K:
            place -= 12
        moved[:, place] |= roll[:, key]
    return moved
