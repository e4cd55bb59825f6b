"""What a tune starts from or goes with: chords by name, a MIDI file, the key they are in.

A model of the benchmark's sets has heard music in C alone. So a prompt is moved there first, and
what the model plays is moved back.
"""

import re
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pretty_midi

from files import InputError
from keys import find_key, move, nearest_shift, parse_key
from midi import midi_to_roll, parse_program
from settings import ALIGNED, LOWEST, K, SampleSettings


class Prompt(NamedTuple):
    """Music given to the model, in the model's own key."""

    roll: np.ndarray  # (T, 88) bool
    back: int  # semitones that what is played is moved by in the end


def read_prompt(settings: SampleSettings, frame_beats: float, dataset: str) -> Prompt:
    """Return what the settings let tunes start from, T = 0 for silence alone.

    Args:
        settings: `primer_notes` or `primer_midi`, `match_key`, `key`.
        frame_beats: length of the model's frame in beats.
        dataset: that the model was trained on.

    Raises:
        InputError: both primers, no readable one, or a key that can't be had.
    """
    parse_program(settings.program)  # a wrong one is better known before anything is made
    if settings.primer_notes is not None and settings.primer_midi is not None:
        raise InputError("--primer_notes, --primer_midi: give one of them")
    if settings.primer_midi is None:
        roll = parse_chords(settings.primer_notes or "", max(1, round(1 / frame_beats)))
        # A few chords tell of no key for certain, and the user has said which notes they are.
        return in_key(roll, replace(settings, match_key=False), dataset)
    roll = read_part("--primer_midi", settings.primer_midi, frame_beats)
    roll = roll[: max(1, round(settings.primer_beats / frame_beats))]
    return in_key(roll, settings, dataset)


def read_part(flag: str, path: str | Path, frame_beats: float) -> np.ndarray:
    """Return the roll of a MIDI file that is to be played with, (T, 88) bool.

    Raises:
        InputError: it can't be read; the message names the flag.
    """
    try:
        return midi_to_roll(path, frame_beats)[0]
    except InputError as error:
        raise InputError(f"{flag} {error}") from None


def in_key(roll: np.ndarray, settings: SampleSettings, dataset: str) -> Prompt:
    """Return a roll moved to the key of the model's training, and the way back.

    Raises:
        InputError: --key is no key, or the model has none to start from.
    """
    aligned, shift = dataset in ALIGNED, 0
    if aligned and settings.match_key and (found := find_key(roll)) is not None:
        shift = nearest_shift(found.tonic, 0)
    back = -shift
    if settings.key is not None:
        try:
            wanted = parse_key(settings.key)
        except ValueError as error:
            raise InputError(f"--key {error}") from None
        if not aligned:
            raise InputError(f"--key: a model of {dataset} plays in many keys; leave it out")
        back = nearest_shift(0, wanted.tonic)
    return Prompt(move(roll, shift), back)


def parse_chords(text: str, frames_per_chord: int) -> np.ndarray:
    """Return the roll of chords such as "C4,E4,G4 67", (T, 88) bool, column 0 = MIDI 21.

    Notes of a chord are joined by commas, chords by spaces or bars (|); a note is a name (C4 = 60,
    F#3, Bb5) or a MIDI number.

    Raises:
        InputError: a word that is no note, or a note off the 88 keys.
    """
    chords = re.sub(r"\s*,\s*", ",", text.replace("|", " ")).split()
    roll = np.zeros((len(chords) * frames_per_chord, K), dtype=bool)
    for index, chord in enumerate(chords):
        for word in chord.split(","):
            try:
                number = int(word) if word.isdigit() else pretty_midi.note_name_to_number(word)
            except ValueError:
                raise InputError(
                    f"--primer_notes: {word!r} is no note; write C4, F#3, Bb5 or a MIDI number"
                ) from None
            if not LOWEST <= number < LOWEST + K:
                raise InputError(f"--primer_notes: {word!r} is off the 88 keys, MIDI 21 to 108")
            roll[index * frames_per_chord : (index + 1) * frames_per_chord, number - LOWEST] = True
    return roll
