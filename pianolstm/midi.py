"""Converts MIDI files to piano-rolls and back without loss.

A roll is (T, 88) bool: row = one frame, column 0 = MIDI 21 (A0). A roll has no onsets: a pitch that
sounds in consecutive frames is one held note.

Source: the Standard MIDI File 1.0, read and written by pretty_midi (Raffel and Ellis, "Intuitive
Analysis, Creation and Manipulation of MIDI Data with pretty_midi", ISMIR 2014).
"""

import math
import warnings
from collections.abc import Iterable, Iterator
from difflib import get_close_matches
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pretty_midi

from pianolstm.files import InputError, one_line
from pianolstm.parts import Part, complete, generated_notes, split_parts
from pianolstm.piece import Metre, Note, Piece
from pianolstm.rolls import LOWEST_PITCH, PITCHES

_TICKS_PER_BEAT = 480
_MAX_TICKS_PER_BEAT = 2**15 - 1  # of the file format
_MAX_BYTES = 2**23  # of one MIDI file: about a million notes
_MAX_FRAMES = 200_000  # of one MIDI file: a day of eighth notes at 70 beats a minute
_END_OF_ROLL = "end of roll"  # the text event that marks the end, so that final silence is kept


class DroppedNotes(NamedTuple):
    """The number of notes of a MIDI file that its roll can't represent."""

    out_of_range: int  # above or below the 88 pitches
    too_short: int  # rounded to the same start and end


def midi_to_roll(
    path: str | Path, frame_beats: float, max_minutes: float = math.inf
) -> tuple[np.ndarray, DroppedNotes]:
    """Read a MIDI file as a roll.

    Starts and ends of notes are rounded to the nearest frame, half a frame up, as in the files of
    the ICML 2012 benchmark. Frames follow the file's tempo and its changes. Drums are left out.
    Notes of one pitch that touch or overlap become one.

    Args:
        path: the file.
        frame_beats: length of a frame in beats.
        max_minutes: the longest duration that is accepted, in minutes.

    Returns:
        The roll, (T, 88) bool, column 0 = MIDI 21, and the numbers of notes left out of it.

    Raises:
        InputError: the file is not MIDI, damaged, too long, or has no note for the roll.
    """
    try:
        if (size := Path(path).stat().st_size) > _MAX_BYTES:
            raise ValueError(f"{size / 2**20:.0f} MB; the limit is {_MAX_BYTES >> 20}")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # pretty_midi warns of files that are odd but readable
            midi = pretty_midi.PrettyMIDI(str(path))
        minutes = midi.get_end_time() / 60
        frame_ticks = midi.resolution * frame_beats

        def nearest_frame(seconds: float) -> int:
            return int(midi.time_to_tick(seconds) / frame_ticks + 0.5)

        notes = [
            (note.pitch - LOWEST_PITCH, nearest_frame(note.start), nearest_frame(note.end))
            for instrument in midi.instruments
            if not instrument.is_drum
            for note in instrument.notes
        ]
        marks = [nearest_frame(event.time) for event in midi.text_events if _is_end_mark(event)]
    except Exception as error:  # pretty_midi and mido raise a dozen types for damaged files
        raise InputError(f"{path}: not a readable MIDI file ({one_line(error)})") from None
    if minutes > max_minutes:
        raise InputError(
            f"{path}: {minutes:.0f} minutes long; the limit is {max_minutes:g}, or --max_minutes in"
            " training"
        )
    kept = [
        (pitch, start, end) for pitch, start, end in notes if 0 <= pitch < PITCHES and start < end
    ]
    if not kept and not marks:
        raise InputError(f"{path}: no note within the 88 pitches is long enough for a frame")
    frames = max([end for _, _, end in kept] + marks)
    if frames > _MAX_FRAMES:
        raise InputError(f"{path}: too long, {frames:,} frames; the limit is {_MAX_FRAMES:,}")
    roll = np.zeros((frames, PITCHES), dtype=bool)
    for pitch, start, end in kept:
        roll[start:end, pitch] = True
    out_of_range = sum(not 0 <= pitch < PITCHES for pitch, _, _ in notes)
    return roll, DroppedNotes(out_of_range, too_short=len(notes) - len(kept) - out_of_range)


def roll_to_notes(roll: np.ndarray) -> Iterator[tuple[int, int, int]]:
    """Yield the notes of a roll: every run of consecutive frames in which a pitch sounds.

    Args:
        roll: (T, 88) bool.

    Yields:
        (column, first frame, frame after the last), by column, then by time.
    """
    edges = np.diff(np.pad(roll, ((1, 1), (0, 0))).astype(np.int8), axis=0)  # (T + 1, P)
    for column in np.flatnonzero(roll.any(axis=0)).tolist():
        starts, ends = np.flatnonzero(edges[:, column] == 1), np.flatnonzero(edges[:, column] == -1)
        for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
            yield column, start, end


def roll_to_midi(
    roll: np.ndarray,
    frame_beats: float,
    bpm: float = 120.0,
    velocity: int = 80,
    program: int = 0,
) -> pretty_midi.PrettyMIDI:
    """Convert a roll to MIDI, with one note for each run of frames of a pitch.

    `midi_to_roll` reads the file back as the same roll. A text event marks the end of the roll, so
    that silence at the end is kept.

    Args:
        roll: (T, 88) bool, column 0 = MIDI 21.
        frame_beats: length of a frame in beats.
        bpm: tempo in beats a minute.
        velocity: velocity of every note, 1 to 127.
        program: General MIDI program, 0 to 127; 0 = grand piano.
    """
    midi = pretty_midi.PrettyMIDI(resolution=_TICKS_PER_BEAT, initial_tempo=bpm)
    instrument = pretty_midi.Instrument(program)

    def seconds(frame: int) -> float:
        return float(midi.tick_to_time(round(frame * frame_beats * _TICKS_PER_BEAT)))

    # The last time comes first: pretty_midi's table of times then grows only once.
    end_of_roll = seconds(len(roll))
    for column, start, end in roll_to_notes(roll):
        note = pretty_midi.Note(velocity, column + LOWEST_PITCH, seconds(start), seconds(end))
        instrument.notes.append(note)
    midi.instruments.append(instrument)
    midi.text_events.append(pretty_midi.Text(_END_OF_ROLL, end_of_roll))
    return midi


def piece_to_midi(piece: Piece, velocity: int = 80, program: int = 0) -> pretty_midi.PrettyMIDI:
    """Convert a piece to MIDI: a track for each part, tempo, time and key signature.

    The generated notes are split into melody and chords, or soprano, alto, tenor and bass. Given
    notes are on a track of their own, exactly as they were given: their times are ticks of the
    file. With an upbeat, the first bar has a time signature of its own, as short as the upbeat.
    `midi_to_roll` reads the generated and the given notes back.

    Args:
        piece: the piece; metre and key are estimated where they are None.
        velocity: velocity of the generated notes, 1 to 127.
        program: General MIDI program of all tracks, 0 to 127; 0 = grand piano.
    """
    piece = complete(piece)
    resolution = _find_resolution(piece)
    midi = pretty_midi.PrettyMIDI(resolution=resolution, initial_tempo=piece.bpm)

    def seconds(beats: float) -> float:
        return float(midi.tick_to_time(round(beats * resolution)))

    # The last time comes first: pretty_midi's table of times then grows only once.
    end = seconds(piece.beats)
    if piece.metre is not None:
        for numerator, denominator, start in _time_signatures(piece.metre):
            change = pretty_midi.TimeSignature(numerator, denominator, seconds(start))
            midi.time_signature_changes.append(change)
    if piece.key is not None:
        number = piece.key.tonic + 12 * piece.key.minor
        midi.key_signature_changes.append(pretty_midi.KeySignature(number, 0))
    parts = split_parts(generated_notes(piece, velocity), four_voices=piece.four_voices)
    for part in [*_given_parts(piece.given), *parts]:
        if part.notes:
            track = pretty_midi.Instrument(program, name=part.name)
            for note in part.notes:
                start = seconds(note.start)
                stop = seconds(max(note.end, note.start + 1 / resolution))  # a tick at least
                track.notes.append(pretty_midi.Note(note.velocity, note.pitch, start, stop))
            midi.instruments.append(track)
    midi.text_events.append(pretty_midi.Text(_END_OF_ROLL, end))
    return midi


def _given_parts(notes: Iterable[Note]) -> list[Part]:
    """Return given notes as one part, or as more where notes of one pitch overlap.

    A track can't tell which of two overlapping notes of one pitch ends first.
    """
    parts: list[Part] = []
    ends: list[dict[int, float]] = []  # of each part: the end of the last note of each pitch
    for note in sorted(notes):
        free = [i for i, last in enumerate(ends) if last.get(note.pitch, -1) <= note.start]
        if not free:
            parts.append(Part(f"Given {len(parts) + 1}" if parts else "Given", []))
            ends.append({})
        index = free[0] if free else len(parts) - 1
        parts[index].notes.append(note)
        ends[index][note.pitch] = note.end
    return parts


def _find_resolution(piece: Piece) -> int:
    """Return the ticks per beat: as few as give all given times exactly, if a file can have them.

    A multiple of 480; 480 if more than a MIDI file's 32,767 ticks would be needed.
    """
    resolution = _TICKS_PER_BEAT
    for time in {time for note in piece.given for time in note[:2]}:
        resolution = math.lcm(resolution, Fraction(time).limit_denominator(10_080).denominator)
        if resolution > _MAX_TICKS_PER_BEAT:
            return _TICKS_PER_BEAT
    return resolution


def _time_signatures(metre: Metre) -> list[tuple[int, int, float]]:
    """Return numerator, denominator and beat of each time signature of a piece."""
    signatures = [(metre.numerator, metre.denominator, metre.upbeat)]
    if metre.upbeat > 0:
        upbeat = Fraction(metre.upbeat / 4).limit_denominator(64)
        # The note values of the metre are preferred: 2/4 rather than 1/2.
        denominator = max(metre.denominator, 1 << (upbeat.denominator - 1).bit_length())
        numerator = max(1, round(upbeat * denominator))
        signatures.insert(0, (numerator, denominator, 0.0))
    return signatures


def parse_program(text: str) -> int:
    """Parse a General MIDI program.

    Args:
        text: a name such as "Church Organ", in any case, or a number from 0 to 127.

    Returns:
        Its number.

    Raises:
        InputError: the text is neither; the message lists the most similar names.
    """
    names = pretty_midi.constants.INSTRUMENT_MAP
    if text.isdecimal() and int(text) < len(names):
        return int(text)
    numbers = {name.lower(): number for number, name in enumerate(names)}
    if text.strip().lower() in numbers:
        return numbers[text.strip().lower()]
    similar = get_close_matches(text.lower(), numbers, cutoff=0.4)
    hint = f", such as {' or '.join(names[numbers[name]] for name in similar)}" if similar else ""
    raise InputError(f"--program {text}: give a number from 0 to 127 or a General MIDI name{hint}")


def _is_end_mark(event: pretty_midi.Text) -> bool:
    return bool(event.text == _END_OF_ROLL)
