"""Conditioning: primers, melodies to harmonise, chords to play over, and the key they are in.

The pieces of the benchmark's sets are all in C. So given music is first transposed there, and what
the model generates is transposed back.
"""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pretty_midi
import torch
from torch import Tensor

from pianolstm.files import InputError
from pianolstm.layers.heads import (
    MODEL_DISTRIBUTION,
    ChordHead,
    Head,
    SamplingParams,
    sample_categorical,
)
from pianolstm.midi import ReadOptions, read_midi
from pianolstm.rolls import LOWEST_PITCH, PITCHES
from pianolstm.tonality import estimate_key, nearest_shift, parse_key, transpose

_READING = ("frame_seconds", "min_frames", "sustain")  # entries of a model's metadata

# Samples the frame at time t: vectors (B, H), uniforms (B, P + 1), t -> (B, P) of 0 and 1.
FrameSampler = Callable[[Tensor, Tensor, int], Tensor]


# ---- given music ---------------------------------------------------------------------------------


class Primer(NamedTuple):
    """Music that is given to the model, in the model's key."""

    roll: np.ndarray  # (T, 88) bool
    shift_back: int  # semitones to transpose the result by


def read_music(
    flag: str,
    path: str | Path,
    frame_beats: float,
    max_minutes: float,
    reading: Mapping[str, Any],
) -> tuple[np.ndarray, list[str]]:
    """Read a MIDI file that the user gave to a flag.

    Args:
        flag: the flag, for messages.
        path: the file.
        frame_beats: length of the model's frame in beats.
        max_minutes: the longest duration that is accepted, in minutes.
        reading: how the model's training files were read: `frame_seconds`, `min_frames` and
            `sustain`, where they differ from the default; other entries of a model's metadata are
            ignored.

    Returns:
        The roll, (T, 88) bool, and remarks on what was left out of it, one line each.

    Raises:
        InputError: it can't be read; the message names the flag.
    """
    options = ReadOptions(frame_beats, max_minutes=max_minutes)
    options = options._replace(**{k: v for k, v in reading.items() if k in _READING})
    try:
        roll, account = read_midi(path, **options._asdict())
    except InputError as error:
        raise InputError(f"{flag} {error}") from None
    return roll, [f"{flag} {path}: {remark}" for remark in account.remarks(options)]


def to_model_key(
    roll: np.ndarray, dataset: str, *, in_c: bool, normalize: bool, key: str | None
) -> Primer:
    """Return a roll transposed to the key of the training data, and the shift of the result.

    Args:
        roll: (T, 88) bool.
        dataset: name of the training data, for messages.
        in_c: whether all its pieces are in C.
        normalize: whether to transpose the roll to C where `in_c`.
        key: the key of the result, in place of that of the roll; None = the roll's.

    Raises:
        InputError: `key` names no key, or the training data are in many keys.
    """
    shift = 0
    if in_c and normalize and (found := estimate_key(roll)) is not None:
        shift = nearest_shift(found.tonic, 0)
    back = -shift
    if key is not None:
        try:
            wanted = parse_key(key)
        except ValueError as error:
            raise InputError(f"--key {error}") from None
        if not in_c:
            raise InputError(f"--key: a model of {dataset} plays in many keys; leave it out")
        back = nearest_shift(0, wanted.tonic)
    return Primer(transpose(roll, shift), back)


def parse_chords(text: str, frames_per_chord: int) -> np.ndarray:
    """Return the roll of chords such as "C4,E4,G4 67", (T, 88) bool.

    Commas join the notes of a chord; spaces or bars (|) separate chords. A note is a name (C4 = 60,
    F#3, Bb5) or a MIDI number.

    Raises:
        InputError: a word is no note, or a note is not among the 88 pitches.
    """
    chords = re.sub(r"\s*,\s*", ",", text.replace("|", " ")).split()
    roll = np.zeros((len(chords) * frames_per_chord, PITCHES), dtype=bool)
    for index, chord in enumerate(chords):
        start = index * frames_per_chord
        for word in chord.split(","):
            roll[start : start + frames_per_chord, _parse_note(word) - LOWEST_PITCH] = True
    return roll


def _parse_note(word: str) -> int:
    """Return the MIDI number of a note's name or number."""
    try:
        number = int(word) if word.isdigit() else int(pretty_midi.note_name_to_number(word))
    except ValueError:
        raise InputError(
            f"--primer_notes: {word!r} is no note; write C4, F#3, Bb5 or a MIDI number"
        ) from None
    if not LOWEST_PITCH <= number < LOWEST_PITCH + PITCHES:
        raise InputError(f"--primer_notes: {word!r} is not among the 88 pitches, MIDI 21 to 108")
    return number


# ---- sampling a frame ----------------------------------------------------------------------------


def unconditional(head: Head, params: SamplingParams = MODEL_DISTRIBUTION) -> FrameSampler:
    """Return a function that samples whole frames from the head."""
    sampler = head.sampler(params)
    return lambda vectors, uniforms, _: sampler(vectors, uniforms)


def harmonize(
    melody: np.ndarray, head: ChordHead, params: SamplingParams = MODEL_DISTRIBUTION
) -> FrameSampler:
    """Return a function that samples the notes below a given melody.

    The chord head chooses the highest note first. With that choice given, the other notes are
    sampled from the exact conditional distribution. Where the melody rests, all notes stay below
    its last note.

    Args:
        melody: (T, 88) bool; the highest note of each frame is the melody.
        head: the model's head.
        params: how to sample; `temperature` is not used.
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
