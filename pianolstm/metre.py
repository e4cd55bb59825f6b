"""Estimates the metre of a piece and where its bar lines are.

Every position of a bar has its own probabilities of what may begin there: chords mostly begin on
bar lines, long melody notes on strong beats. The most probable metre and upbeat are chosen.

Source: the generative model of metre of Temperley, "Music and Probability" (2007), chapter 3, with
onsets of two layers, melody and chords, in place of one.
"""

import math
from collections.abc import Sequence

import numpy as np

from pianolstm.piece import Metre

EIGHTH, QUARTER = 0.5, 1.0  # beats
_TOLERANCE = 0.09  # beats between an onset and the position that it belongs to, at most
_MIN_ONSETS = 8  # fewer say nothing about the metre
_MIN_CHORDS = 0.02  # share of positions; with fewer, only the melody is considered
_COARSE = 0.97  # share of onsets on quarter notes from which on the grid is one of quarter notes

# What begins at a position: nothing, a melody note of up to a step of the grid, a longer one; then
# the same together with lower notes. Rates in the training split of the MIDI files of Nottingham,
# whose time signature and first chord are known (`python benchmarks/metre.py` prints them anew).
_RATES = {
    "bar": (0.07, 0.14, 0.16, 0.05, 0.22, 0.36),
    "half bar of 4/4": (0.27, 0.27, 0.41, 0.02, 0.01, 0.02),
    "dotted beat": (0.33, 0.33, 0.28, 0.01, 0.02, 0.03),
    "beat": (0.32, 0.35, 0.29, 0.01, 0.01, 0.02),
    "between beats": (0.61, 0.35, 0.01, 0.01, 0.01, 0.01),
    "second of three": (0.48, 0.43, 0.06, 0.01, 0.01, 0.01),
    "third of three": (0.31, 0.58, 0.08, 0.01, 0.01, 0.01),
}
# The same for chorales, on quarter notes: in every second one of Bach's in music21's corpus.
_CHORALE_RATES = {
    "bar": (0.02, 0.01, 0.01, 0.14, 0.42, 0.40),
    "half bar of 4/4": (0.10, 0.01, 0.01, 0.13, 0.45, 0.30),
    "beat": (0.15, 0.01, 0.01, 0.30, 0.45, 0.08),
}
_SIMPLE, _COMPOUND = ("between beats",), ("second of three", "third of three")
_BARS = {  # the positions of a bar, an eighth note each
    (2, 4): ("bar", *_SIMPLE, "beat", *_SIMPLE),
    (3, 4): ("bar", *_SIMPLE, "beat", *_SIMPLE, "beat", *_SIMPLE),
    (4, 4): ("bar", *_SIMPLE, "beat", *_SIMPLE, "half bar of 4/4", *_SIMPLE, "beat", *_SIMPLE),
    (6, 8): ("bar", *_COMPOUND, "dotted beat", *_COMPOUND),
    (9, 8): ("bar", *_COMPOUND, "dotted beat", *_COMPOUND, "dotted beat", *_COMPOUND),
}
_CHORALE_PRIOR = {(3, 4): 0.1, (4, 4): 0.9}
_PRIOR = {(2, 4): 0.1, (3, 4): 0.1, (4, 4): 0.4, (6, 8): 0.4, (9, 8): 1e-4}


def estimate_metre(
    notes: Sequence[tuple[float, float, int]],
    signature: tuple[int, int] | None = None,
    *,
    chorale: bool = False,
) -> Metre:
    """Estimate the time signature and the upbeat.

    Args:
        notes: (start, end, pitch) of each note, times in beats.
        signature: the time signature, if it is known: only the upbeat is estimated.
        chorale: whether all voices move with the melody, mostly in quarter notes.

    Returns:
        The metre: 2/4, 3/4, 4/4, 6/8 or 9/8, or `signature`. With fewer than eight notes it is 4/4,
        or `signature`, without an upbeat.
    """
    fallback = Metre(*(signature or (4, 4)))
    if len(notes) < _MIN_ONSETS:
        return fallback
    starts = np.array([start for start, _, _ in notes])
    step, offset = _find_grid(starts, chorale=chorale)
    events = _events(notes, step, offset)
    table, prior = (_CHORALE_RATES, _CHORALE_PRIOR) if chorale else (_RATES, _PRIOR)
    rates = {name: np.array(row) / sum(row) for name, row in table.items()}
    bars = _BARS if signature is None else {signature: _bar_of(signature)}
    melody_alone = bool(np.mean(events >= 3) < _MIN_CHORDS)
    if melody_alone and not chorale:  # its rates, whatever the chords do
        rates = {name: np.tile(row[:3] + row[3:], 2) for name, row in rates.items()}
    if signature is None and (melody_alone or step == QUARTER):
        # Neither a melody alone nor quarter notes tell 2/4 from 4/4, or 9/8 from 6/8.
        bars = {known: bar for known, bar in _BARS.items() if known not in ((2, 4), (9, 8))}
    best, best_value = fallback, -math.inf
    for (numerator, denominator), positions in bars.items():
        if step == QUARTER:
            positions = positions[::2]
            if denominator >= 8 or not rates.keys() >= set(positions):
                continue  # its beats are not on the grid of quarter notes
        size = len(positions)
        counts = np.zeros((size, 6))
        np.add.at(counts, (np.arange(len(events)) % size, events), 1)
        logs = np.log([rates[name] for name in positions])
        for upbeat in range(size):
            value = float((np.roll(counts, -upbeat, axis=0) * logs).sum())
            value += math.log(prior.get((numerator, denominator), 1) / size)
            if value > best_value:
                beats = (upbeat * step + offset) % (numerator * 4 / denominator)
                best, best_value = Metre(numerator, denominator, beats), value
    return best


def _bar_of(signature: tuple[int, int]) -> tuple[str, ...]:
    """Return the positions of a bar, an eighth note each, of any time signature."""
    if signature in _BARS:
        return _BARS[signature]
    numerator, denominator = signature
    eighths = max(1, round(numerator * 8 / denominator))
    if denominator >= 8 and numerator % 3 == 0:
        beats = ("dotted beat", *_COMPOUND) * (eighths // 3)
    else:
        beats = ("beat", *_SIMPLE) * -(-eighths // 2)
    return ("bar", *beats[1:eighths])


def _find_grid(starts: np.ndarray, *, chorale: bool) -> tuple[float, float]:
    """Return the step of the grid of positions, and its offset from the start, in beats.

    The step is a quarter note in a chorale, or where nearly all onsets are that far apart, else an
    eighth note.
    """
    sixteenths = np.round(starts * 4).astype(np.int64)
    phases = np.bincount(sixteenths % 4, minlength=4) / len(starts)
    if chorale or phases.max() >= _COARSE:
        return QUARTER, int(phases.argmax()) / 4
    return EIGHTH, int(np.argmax(phases[:2] + phases[2:])) / 4


def _events(notes: Sequence[tuple[float, float, int]], step: float, offset: float) -> np.ndarray:
    """Return what begins at each position, a column of `_RATES`; (positions,) int64."""
    count = max(1, math.ceil((max(end for _, end, _ in notes) - offset) / step - 1e-6))
    highest = np.full(count, -1)  # the highest pitch that sounds
    for start, end, pitch in notes:
        first = max(0, math.ceil((start - offset - _TOLERANCE) / step))
        last = math.ceil((end - offset - _TOLERANCE) / step)
        np.maximum(highest[first:last], pitch, out=highest[first:last])
    melody, chords = np.zeros(count, np.int64), np.zeros(count, bool)
    for start, end, pitch in notes:
        position = round((start - offset) / step)
        if not 0 <= position < count or abs(position * step + offset - start) > _TOLERANCE:
            continue
        if pitch == highest[position]:
            melody[position] = 2 if end - start > step + _TOLERANCE else 1
        else:
            chords[position] = True
    return melody + 3 * chords
