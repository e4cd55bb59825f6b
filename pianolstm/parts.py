"""Splits a piece into its parts: melody and chords, or the four voices of a chorale.

MIDI, score and picture use the same parts, the same key and the same metre.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import combinations, pairwise
from typing import NamedTuple

import numpy as np

from pianolstm.metre import estimate_metre
from pianolstm.piece import Note, Piece
from pianolstm.rolls import LOWEST_PITCH, PITCHES
from pianolstm.tonality import estimate_key

_VOICES = {"Soprano": 72, "Alto": 66, "Tenor": 60, "Bass": 51}  # the middle of each range
_SPLIT_NOTE = 6.0  # cost of a held note that another voice takes over; all costs in semitones
_OFF_CENTRE = 0.15  # cost of each semitone from the middle of the range
_OUTER_REST = 4.0  # cost of a rest of soprano or bass while inner voices sound


class Part(NamedTuple):
    """A voice of a piece."""

    name: str
    notes: list[Note]


class Segment(NamedTuple):
    """A span of time between two changes of what sounds."""

    start: float  # beats
    end: float
    sounding: list[int]  # indices of the notes, from the highest to the lowest


# ---- all notes -----------------------------------------------------------------------------------


def generated_notes(piece: Piece, velocity: int = 80) -> list[Note]:
    """Return the notes of the roll: one for each run of frames of a pitch, by time, then pitch."""
    edges = np.diff(np.pad(piece.roll, ((1, 1), (0, 0))).astype(np.int8), axis=0)  # (T + 1, P)
    notes = []
    for column in np.flatnonzero(piece.roll.any(axis=0)).tolist():
        starts = np.flatnonzero(edges[:, column] == 1) * piece.frame_beats
        ends = np.flatnonzero(edges[:, column] == -1) * piece.frame_beats
        notes += [
            Note(start, end, column + LOWEST_PITCH, velocity)
            for start, end in zip(starts.tolist(), ends.tolist(), strict=True)
        ]
    return sorted(notes, key=lambda note: (note.start, note.pitch))


def all_notes(piece: Piece) -> list[Note]:
    """Return the generated and the given notes, by time, then pitch."""
    notes = [*generated_notes(piece), *piece.given]
    return sorted(notes, key=lambda note: (note.start, note.pitch))


def whole_roll(piece: Piece) -> np.ndarray:
    """Return the roll of generated and given notes.

    Given notes are rounded to the nearest frame; one that is shorter than a frame fills it.

    Returns:
        (T, 88) bool, column 0 = MIDI 21. Notes beyond the 88 pitches are left out.
    """
    spans = []
    for note in piece.given:
        start = int(note.start / piece.frame_beats + 0.5)
        end = max(int(note.end / piece.frame_beats + 0.5), start + 1)
        if 0 <= note.pitch - LOWEST_PITCH < PITCHES:
            spans.append((start, end, note.pitch - LOWEST_PITCH))
    frames = max([len(piece.roll), *(end for _, end, _ in spans)])
    roll = np.zeros((frames, PITCHES), dtype=bool)
    roll[: len(piece.roll)] = piece.roll
    for start, end, column in spans:
        roll[start:end, column] = True
    return roll


def complete(piece: Piece) -> Piece:
    """Return a piece with its metre and key, estimated where they are None.

    The key stays None where it can't be estimated, as in silence.
    """
    metre, key = piece.metre, piece.key
    if metre is None:
        notes = [note[:3] for note in all_notes(piece)]
        metre = estimate_metre(notes, chorale=piece.four_voices)
    if key is None:
        key = estimate_key(whole_roll(piece))
    return replace(piece, metre=metre, key=key)


# ---- parts ---------------------------------------------------------------------------------------


def split_parts(notes: Sequence[Note], *, four_voices: bool) -> list[Part]:
    """Split notes into melody and chords, or into soprano, alto, tenor and bass.

    The melody are the notes that are the highest for as long as they sound. Of the MIDI files of
    Nottingham, whose tracks tell, this finds 95 of 100 frames of the melody.

    Args:
        notes: in any order.
        four_voices: whether to split them into four voices.

    Returns:
        Two parts or four, from the highest; their notes by time, then pitch. A part may be empty.
    """
    if four_voices:
        return _four_voices(notes)
    chords = {index for segment in cut(notes) for index in segment.sounding[1:]}
    parts = [Part("Melody", []), Part("Chords", [])]
    for index, note in sorted(enumerate(notes), key=lambda pair: pair[1]):
        parts[index in chords].notes.append(note)
    return parts


def cut(notes: Sequence[Note]) -> Iterator[Segment]:
    """Yield the spans between two changes of what sounds, silent ones included."""
    times = sorted({round(time, 6) for note in notes for time in (note.start, note.end)})
    position = {time: i for i, time in enumerate(times)}
    sounding: list[list[int]] = [[] for _ in times]
    # Highest first; of equal pitches the longer first, so that a given note hides no held one.
    for index in sorted(range(len(notes)), key=lambda i: (-notes[i].pitch, -notes[i].end)):
        note = notes[index]
        for i in range(position[round(note.start, 6)], position[round(note.end, 6)]):
            sounding[i].append(index)
    for (start, end), indices in zip(pairwise(times), sounding, strict=False):
        yield Segment(start, end, indices)


def _four_voices(notes: Sequence[Note]) -> list[Part]:
    """Split notes into four voices that don't cross.

    The voices of all segments have the least total movement, by dynamic programming (Viterbi). A
    roll joins two notes of one pitch that follow each other in two voices; they are parted again.
    """
    segments = list(cut(notes))
    if not segments:
        return [Part(name, []) for name in _VOICES]
    # The voices' usual ranges, moved to where this piece lies.
    shift = float(np.mean([note.pitch for note in notes]) - np.mean(list(_VOICES.values())))
    centres = [centre + shift for centre in _VOICES.values()]
    outer = {0, len(centres) - 1}
    paths: list[tuple[float, dict[int, int]]] = [(0.0, {})]  # least cost of each state
    history: list[list[tuple[int, dict[int, int]]]] = []  # best predecessor of each state
    for segment in segments:
        costs, step = [], []
        for state in _possible_voices(segment.sounding, len(centres) - 1):
            own = sum(
                _OFF_CENTRE * abs(notes[i].pitch - centres[voice]) for i, voice in state.items()
            )
            own += _OUTER_REST * len(outer - set(state.values())) if state else 0
            ways = [cost + _movement(notes, before, state) for cost, before in paths]
            best = min(range(len(ways)), key=ways.__getitem__)
            costs.append(ways[best] + own)
            step.append((best, state))
        history.append(step)
        paths = [(cost, state) for cost, (_, state) in zip(costs, step, strict=True)]
    index = min(range(len(paths)), key=lambda i: paths[i][0])
    spans: list[list[tuple[float, int]]] = [[] for _ in notes]  # of each note: end, voice
    for segment, step in zip(reversed(segments), reversed(history), strict=True):
        index, state = step[index]
        for i, voice in state.items():
            if not spans[i] or spans[i][-1][1] != voice:
                spans[i].append((segment.end, voice))
    parts = [Part(name, []) for name in _VOICES]
    for note, ends in zip(notes, spans, strict=True):
        start = note.start
        for end, voice in reversed(ends):
            last = end == ends[0][0]
            parts[voice].notes.append(note._replace(start=start, end=note.end if last else end))
            start = end
    return [Part(part.name, sorted(part.notes)) for part in parts]


def _possible_voices(sounding: Sequence[int], last: int) -> list[dict[int, int]]:
    """Return every assignment of notes, from the highest, to voices 0 to `last` in order."""
    count = len(sounding)
    if count <= last + 1:
        chosen = combinations(range(last + 1), count)
        return [dict(zip(sounding, voices, strict=True)) for voices in chosen]
    # More notes than voices: one for soprano, one for bass, the others for both inner voices.
    inner = [1 + (2 * i >= count - 2) for i in range(count - 2)]
    return [dict(zip(sounding, [0, *inner, last], strict=True))]


def _movement(notes: Sequence[Note], before: dict[int, int], after: dict[int, int]) -> float:
    """Return the cost of going from one assignment to the next: semitones, and split notes."""
    cost = _SPLIT_NOTE * sum(after.get(i, voice) != voice for i, voice in before.items())
    pitches = {voice: notes[i].pitch for i, voice in before.items()}
    for i, voice in after.items():
        cost += abs(notes[i].pitch - pitches.get(voice, notes[i].pitch))
    return cost
