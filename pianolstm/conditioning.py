"""Conditioning: primers, melodies to harmonise, chords to play over, and the key they are in.

The user's notes are kept as they are. What the model reads is their roll: on its grid of frames,
transposed to the key and the octave of its training data. What it generates is transposed back.
"""

import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import pretty_midi
import torch
from torch import Tensor

from pianolstm.files import InputError
from pianolstm.layers.heads import (
    MODEL_DISTRIBUTION,
    AutoregressiveHead,
    Head,
    SamplingParams,
    sample_categorical,
)
from pianolstm.piece import Note
from pianolstm.rolls import LOWEST_PITCH, PITCHES
from pianolstm.tonality import Key, estimate_key_of_counts, nearest_shift, relative

# Samples the frame at time t: vectors (B, H), uniforms (B, P + 1), t -> (B, P) of 0 and 1.
FrameSampler = Callable[[Tensor, Tensor, int], Tensor]

# Frame lengths that music may need, in beats: down to sixteenth notes and their triplets.
_FRAME_LENGTHS = (1, 1 / 2, 1 / 3, 1 / 4, 1 / 6, 1 / 8, 1 / 12)
_MAX_OFF_GRID = 0.01  # share of onsets at other times that a grid may have and still fit


# ---- given notes ---------------------------------------------------------------------------------


def parse_notes(text: str, velocity: int = 80) -> tuple[tuple[Note, ...], float]:
    """Parse notes such as "C4:2 E4 r C4,E4,G4:0.5".

    Spaces or bars (|) separate what sounds in turn; commas join the notes of a chord. A note is a
    name (C4 = 60, F#3, Bb5) or a MIDI number, r is a rest. A colon precedes the length in beats,
    which is 1 without it.

    Args:
        text: the notes.
        velocity: MIDI velocity of each.

    Returns:
        The notes, and their length in beats with the rests.

    Raises:
        InputError: a word is no note, a note is not among the 88 pitches, or a length is no number.
    """
    notes, time = [], 0.0
    for word in re.sub(r"\s*,\s*", ",", text.replace("|", " ")).split():
        names, _, length = word.partition(":")
        try:
            end = time + (float(length) if ":" in word else 1.0)
        except ValueError:
            end = time
        if not time < end <= time + 1000:
            raise InputError(f"--primer_notes: {word!r} has no length in beats; write C4:0.5")
        pitches = [] if names in ("r", "R") else [_parse_note(name) for name in names.split(",")]
        notes += [Note(time, end, pitch, velocity) for pitch in dict.fromkeys(pitches)]
        time = end
    return tuple(notes), time


def _parse_note(word: str) -> int:
    """Return the MIDI number of a note's name or number."""
    try:
        number = int(word) if word.isdigit() else int(pretty_midi.note_name_to_number(word))
    except ValueError:
        raise InputError(
            f"--primer_notes: {word!r} is no note; write C4, F#3, Bb5, a MIDI number, or r for a"
            " rest"
        ) from None
    if not LOWEST_PITCH <= number < LOWEST_PITCH + PITCHES:
        raise InputError(f"--primer_notes: {word!r} is not among the 88 pitches, MIDI 21 to 108")
    return number


def transpose_notes(notes: Sequence[Note], semitones: int) -> tuple[Note, ...]:
    """Transpose notes; one that would leave MIDI's range goes to the nearest octave inside it."""

    def inside(pitch: int) -> int:
        return pitch % 12 if pitch < 0 else 116 + (pitch - 116) % 12 if pitch > 127 else pitch

    return tuple(note._replace(pitch=inside(note.pitch + semitones)) for note in notes)


def first_beats(notes: Sequence[Note], beats: float) -> tuple[Note, ...]:
    """Return the notes that start within the first beats; none sounds longer than those."""
    return tuple(note._replace(end=min(note.end, beats)) for note in notes if note.start < beats)


class CutOut(NamedTuple):
    """What is left of notes around a gap."""

    notes: tuple[Note, ...]
    removed: int  # notes that were in the gap alone
    shortened: int  # notes that reached into it


def cut_out(notes: Sequence[Note], start: float, end: float) -> CutOut:
    """Return notes without what sounds in a gap, in beats.

    A note that sounds before and after it becomes two.
    """
    kept: list[Note] = []
    removed = shortened = 0
    for note in notes:
        inside = min(note.end, end) - max(note.start, start) > 1e-6
        parts = [note._replace(end=min(note.end, start)), note._replace(start=max(note.start, end))]
        parts = [part for part in parts if part.end - part.start > 1e-6] if inside else [note]
        kept += parts
        removed += not parts
        shortened += inside and bool(parts)
    return CutOut(tuple(sorted(kept)), removed, shortened)


def top_line(notes: Sequence[Note]) -> tuple[Note, ...]:
    """Return the melody: the notes that have no higher note above them for most of their length."""
    starts, ends = (np.array([note[i] for note in notes]) for i in (0, 1))
    pitches = np.array([note.pitch for note in notes])
    line = []
    for note in notes:
        covered = np.minimum(ends, note.end) - np.maximum(starts, note.start)
        above = covered[pitches > note.pitch].clip(0).sum()
        if above == 0 or above < (note.end - note.start) / 2:
            line.append(note)
    return tuple(line)


def line_to_roll(notes: Sequence[Note], frame_beats: float, frames: int) -> np.ndarray:
    """Return a melody on the model's grid: in each frame the pitch that sounds longest in it.

    So a note that is shorter than half a frame is kept, unlike in `notes_to_roll`. Of two
    notes that share a frame evenly, as two sixteenths in an eighth, it is the first.

    Args:
        notes: the melody; those not among the 88 pitches are left out.
        frame_beats: length of a frame in beats.
        frames: the length of the roll.

    Returns:
        (T, 88) bool, with one pitch or none in each row.
    """
    longest = np.zeros(frames)  # beats
    pitches = np.full(frames, -1)
    for note in sorted(notes):
        if not 0 <= (column := note.pitch - LOWEST_PITCH) < PITCHES:
            continue
        first = int(note.start / frame_beats + 1e-6)
        for t in range(first, min(frames, int(np.ceil(note.end / frame_beats - 1e-6)))):
            sounds = min(note.end, (t + 1) * frame_beats) - max(note.start, t * frame_beats)
            if sounds > longest[t] + 0.01 * frame_beats:
                longest[t], pitches[t] = sounds, column
    return np.arange(PITCHES) == pitches[:, None]


def frames_to_hold(beats: float, frame_beats: float) -> int:
    """Return the number of frames of given music; an end slightly late adds none."""
    return max(1 if beats else 0, int(np.ceil(beats / frame_beats - 0.25)))


class OffGrid(NamedTuple):
    """The onsets that a model's frames can't show; they count by time, not by note."""

    onsets: int  # in all
    between: int  # between two frames
    repeated: int  # of a pitch that already sounds in the frame before
    frame_beats: float | None  # the longest frames that all onsets fall on; None = none do


def onsets_off_grid(notes: Sequence[Note], frame_beats: float) -> OffGrid:
    """Count the onsets that a roll can't show.

    Args:
        notes: the notes.
        frame_beats: length of a frame in beats.
    """
    times = sorted({round(note.start, 3) for note in notes})

    def off_grid(length: float) -> list[float]:
        return [time for time in times if not _on_grid(time, length)]

    between = off_grid(frame_beats)
    fitting = (f for f in _FRAME_LENGTHS if len(off_grid(f)) <= _MAX_OFF_GRID * len(times))
    ends: dict[int, float] = {}
    repeated = set()
    for note in sorted(notes):
        # A rest of half a frame or less disappears by rounding.
        touches = note.start - ends.get(note.pitch, -np.inf) < frame_beats / 2
        if touches and _on_grid(note.start, frame_beats):
            repeated.add(round(note.start, 3))
        ends[note.pitch] = max(note.end, ends.get(note.pitch, -np.inf))
    return OffGrid(len(times), len(between), len(repeated), next(fitting, None))


def _on_grid(time: float, frame_beats: float) -> bool:
    """Return whether a time is near enough to a frame's start to be played a little inexactly."""
    return abs(time - round(time / frame_beats) * frame_beats) <= min(0.1, 0.2 * frame_beats)


# ---- keys ----------------------------------------------------------------------------------------


def find_key(notes: Sequence[Note], signature: Key | None) -> Key | None:
    """Estimate the key of notes from how long each pitch class sounds, and from the signature."""
    counts = np.zeros(12)
    for note in notes:
        counts[note.pitch % 12] += note.end - note.start
    return estimate_key_of_counts(counts, signature)


class Transposition(NamedTuple):
    """How given music is transposed, in semitones, and the key of the result."""

    given: int  # from the user's notes to those of the result
    to_model: int  # from the user's notes to what the model reads
    key: Key | None  # of the result; None = unknown

    @property
    def from_model(self) -> int:
        """From what the model generates to the result."""
        return self.given - self.to_model


def plan_transposition(
    found: Key | None, wanted: Key | None, *, in_c: bool, octave: int
) -> Transposition:
    """Return the transposition of music to the model's key and pitch, and to the wanted key.

    A transposition can't make major of minor. Where the modes differ, the result is in the key of
    the same signature: the relative of the wanted one.

    Args:
        found: key of the given music; None = unknown.
        wanted: key of the result; None = that of the music.
        in_c: whether the model is to read the music in C major or C minor.
        octave: semitones by which the training data lie above the pitch of their music.
    """
    to_model = octave
    if found is None:
        return Transposition(0, to_model, wanted)
    if in_c:
        to_model += nearest_shift(found.tonic, 0)
    if wanted is None:
        return Transposition(0, to_model, found)
    result = wanted if wanted.minor == found.minor else relative(wanted)
    return Transposition(nearest_shift(found.tonic, result.tonic), to_model, result)


def cadence(*, minor: bool, frame_beats: float, octave: int) -> np.ndarray:
    """Return a cadence in C, I IV V I of two beats each, to put a model into a mode.

    Args:
        minor: the mode.
        frame_beats: length of a frame in beats.
        octave: semitones to transpose it by.

    Returns:
        (T, 88) bool.
    """
    third, sixth = (51, 56) if minor else (52, 57)
    tonic = (48, third, 55, 72)
    chords = ((*tonic[:3], third + 24), (48, 53, sixth, 77), (47, 50, 55, 74), tonic)
    roll = np.zeros((len(chords), PITCHES), dtype=bool)
    for row, chord in zip(roll, chords, strict=True):
        row[np.array(chord) - LOWEST_PITCH + octave] = True
    return roll.repeat(max(1, round(2 / frame_beats)), axis=0)


# ---- sampling a frame ----------------------------------------------------------------------------


def unconditional(head: Head, params: SamplingParams = MODEL_DISTRIBUTION) -> FrameSampler:
    """Return a function that samples whole frames from the head."""
    sampler = head.sampler(params)
    return lambda vectors, uniforms, _: sampler(vectors, uniforms)


def harmonize(
    melody: np.ndarray, head: AutoregressiveHead, params: SamplingParams = MODEL_DISTRIBUTION
) -> FrameSampler:
    """Return a function that samples the notes below a given melody.

    The chord head chooses the highest note first. With that choice given, the other notes are
    sampled from the exact conditional distribution. Where the melody rests, all notes stay below
    its last note.

    Args:
        melody: (T, 88) bool; the highest note of each frame is the melody.
        head: the model's head.
        params: how to sample; `temperature` is not used, but for the weights of candidates.
    """
    allowed = torch.zeros(len(melody), PITCHES + 1, dtype=torch.bool)  # classes, 0 = stop
    highest = PITCHES + 1
    for t, frame in enumerate(melody):
        if frame.any():
            highest = int(np.flatnonzero(frame)[-1]) + 1
            allowed[t, highest] = True
        else:
            allowed[t, :highest] = True
    sampler = head.sampler(params)

    def sample_frame(vectors: Tensor, uniforms: Tensor, t: int) -> Tensor:
        return sampler(vectors, uniforms, allowed[t].to(vectors.device).expand(len(vectors), -1))

    return sample_frame


def melody_over(
    chords: np.ndarray, head: Head, params: SamplingParams = MODEL_DISTRIBUTION
) -> FrameSampler:
    """Return a function that samples one note above given chords, or none.

    By Bayes' rule, p(note | chord) is proportional to p(note and chord), which either head computes
    exactly for each of at most 88 frames.

    Args:
        chords: (T, 88) bool, kept as they are.
        head: the model's head.
        params: how to sample the note: `temperature` and `top_p`.
    """

    def sample_frame(vectors: Tensor, uniforms: Tensor, t: int) -> Tensor:
        chord = torch.from_numpy(chords[t]).to(vectors)
        lowest = int(np.flatnonzero(chords[t])[-1]) + 1 if chords[t].any() else 0
        single_notes = torch.eye(PITCHES).to(chord)[lowest:]
        frames = torch.cat([chord[None], chord + single_notes])  # (C, P)
        rows = vectors.repeat_interleave(len(frames), dim=0)  # (B * C, H)
        logits = -head.nll(rows, frames.repeat(len(vectors), 1)).view(len(vectors), -1)  # (B, C)
        note = sample_categorical(logits, uniforms[:, :1], params.temperature, params.top_p)
        return frames[note.squeeze(1)]

    return sample_frame


def highest_notes(rolls: np.ndarray, count: int) -> np.ndarray:
    """Return rolls with only the highest notes of each frame.

    Args:
        rolls: (..., T, 88) bool.
        count: the largest number of notes in a frame.
    """
    from_top = rolls[..., ::-1].cumsum(axis=-1)[..., ::-1]  # notes at or above each pitch
    return rolls & (from_top <= count)
