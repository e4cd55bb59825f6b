"""MIDI to piano-roll and back, cell for cell.

A roll is (T, 88) bool: row = one frame, column 0 = MIDI 21 (A0), column 87 = MIDI 108 (C8); a cell
is set while its key sounds. A roll has no onsets: a key that sounds in consecutive frames is one
note, held. Source: the Standard MIDI File 1.0, read and written by pretty_midi (Raffel and Ellis,
"Intuitive Analysis, Creation and Manipulation of MIDI Data with pretty_midi", ISMIR 2014).
"""

import warnings
from collections.abc import Iterator
from difflib import get_close_matches
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pretty_midi

from files import InputError, one_line
from settings import LOWEST, DataSettings, K, SampleSettings

TICKS_PER_BEAT = 480
MAX_BYTES = 2**23  # of one MIDI file: a million notes
MAX_FRAMES = 200_000  # of one MIDI file; a day of eighth notes at 70 beats a minute
END_OF_ROLL = "end of roll"  # the text event by which our files keep the silence at their end


class Counts(NamedTuple):
    """Notes of a MIDI file that its roll can't hold."""

    off_keys: int  # above or below the 88 keys
    too_short: int  # beginning and ending at the same frame once rounded


def midi_to_roll(
    path: str | Path, frame_beats: float, max_minutes: float = DataSettings.max_minutes
) -> tuple[np.ndarray, Counts]:
    """Return the roll of a MIDI file, (T, 88) bool, row = `frame_beats` beats, column 0 = MIDI 21.

    Starts and ends of notes are rounded to the nearest frame, half a frame up, as in the files of
    the ICML 2012 benchmark. Frames follow the file's tempo, changes included; drums are left out;
    notes of one key that touch or overlap become one.

    Raises:
        InputError: not a MIDI file, damaged, without a note, or longer than `max_minutes`.
    """
    try:
        if (size := Path(path).stat().st_size) > MAX_BYTES:
            raise ValueError(f"{size / 2**20:.0f} MB; {MAX_BYTES >> 20} are the most")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # odd but readable files are not worth a line each
            midi = pretty_midi.PrettyMIDI(str(path))
        minutes = midi.get_end_time() / 60
        frame = midi.resolution * frame_beats  # in ticks

        def nearest(seconds: float) -> int:
            return int(midi.time_to_tick(seconds) / frame + 0.5)

        notes = [
            (note.pitch - LOWEST, nearest(note.start), nearest(note.end))
            for instrument in midi.instruments
            if not instrument.is_drum
            for note in instrument.notes
        ]
        marked = [nearest(event.time) for event in midi.text_events if event.text == END_OF_ROLL]
    except Exception as error:  # damaged files raise a dozen kinds from within pretty_midi and mido
        raise InputError(f"{path}: not a readable MIDI file ({one_line(error)})") from None
    if minutes > max_minutes:
        raise InputError(
            f"{path}: {minutes:.0f} minutes long; {max_minutes:g} are the most, or --max_minutes in"
            " training"
        )
    held = [(key, start, end) for key, start, end in notes if 0 <= key < K and start < end]
    if not held and not marked:
        raise InputError(f"{path}: no note on the 88 keys that lasts a frame")
    frames = max([end for _, _, end in held] + marked)
    if frames > MAX_FRAMES:
        raise InputError(f"{path}: {frames:,} frames are too many; {MAX_FRAMES:,} are the most")
    roll = np.zeros((frames, K), dtype=bool)
    for key, start, end in held:
        roll[start:end, key] = True
    off_keys = sum(not 0 <= key < K for key, _, _ in notes)
    return roll, Counts(off_keys, too_short=len(notes) - len(held) - off_keys)


def held_notes(roll: np.ndarray) -> Iterator[tuple[int, int, int]]:
    """Yield (key, first frame, frame after the last) for every stretch of a key's column."""
    edges = np.diff(np.pad(roll, ((1, 1), (0, 0))).astype(np.int8), axis=0)  # (T + 1, K)
    for key in np.flatnonzero(roll.any(axis=0)).tolist():
        starts, ends = np.flatnonzero(edges[:, key] == 1), np.flatnonzero(edges[:, key] == -1)
        for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
            yield key, start, end


def roll_to_midi(
    roll: np.ndarray,
    frame_beats: float,
    bpm: float = SampleSettings.bpm,
    velocity: int = SampleSettings.velocity,
    program: int = 0,
) -> pretty_midi.PrettyMIDI:
    """Return a roll, (T, 88) bool, column 0 = MIDI 21, as MIDI; a key held over frames is one note.

    `midi_to_roll` reads it back cell for cell: a text event marks where the roll ends, so that
    silence at its end is kept too.

    Args:
        roll: row = one frame.
        frame_beats: length of a frame in beats.
        bpm: tempo, beats a minute.
        velocity: loudness of every note, 1 to 127.
        program: General MIDI program, 0 to 127; 0 = grand piano.
    """
    midi = pretty_midi.PrettyMIDI(resolution=TICKS_PER_BEAT, initial_tempo=bpm)
    instrument = pretty_midi.Instrument(program)

    def seconds(frame: int) -> float:
        return float(midi.tick_to_time(round(frame * frame_beats * TICKS_PER_BEAT)))

    end_of_roll = seconds(len(roll))  # first: pretty_midi's table of times then grows only once
    for key, start, end in held_notes(roll):
        note = pretty_midi.Note(velocity, key + LOWEST, seconds(start), seconds(end))
        instrument.notes.append(note)
    midi.instruments.append(instrument)
    midi.text_events.append(pretty_midi.Text(END_OF_ROLL, end_of_roll))
    return midi


def parse_program(text: str) -> int:
    """Return the General MIDI program of a name, such as "Church Organ", or of a number, 0 to 127.

    Raises:
        InputError: it is neither; the message has the nearest names.
    """
    names = pretty_midi.constants.INSTRUMENT_MAP
    if text.isdecimal() and int(text) < len(names):
        return int(text)
    plain = {name.lower(): number for number, name in enumerate(names)}
    if text.strip().lower() in plain:
        return plain[text.strip().lower()]
    near = get_close_matches(text.lower(), plain, cutoff=0.4)
    like = f", such as {' or '.join(names[plain[name]] for name in near)}" if near else ""
    raise InputError(f"--program {text}: give a number from 0 to 127 or a General MIDI name{like}")
