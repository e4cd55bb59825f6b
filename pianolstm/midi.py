"""Converts MIDI files to piano-rolls and back without loss.

A roll is (T, 88) bool: row = one frame, column 0 = MIDI 21 (A0). A roll has no onsets: a pitch that
sounds in consecutive frames is one held note.

Files are read by `pianolstm.smf` and written by pretty_midi (Raffel and Ellis, "Intuitive Analysis,
Creation and Manipulation of MIDI Data with pretty_midi", ISMIR 2014).
"""

import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from difflib import get_close_matches
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pretty_midi

from pianolstm.files import InputError
from pianolstm.parts import Part, complete, generated_notes, split_parts
from pianolstm.piece import Metre, Note, Piece
from pianolstm.rolls import LOWEST_PITCH, PITCHES
from pianolstm.smf import MidiError, Sequence, SmpteError, read_smf
from pianolstm.tonality import Key

_TICKS_PER_BEAT = 480
_MAX_TICKS_PER_BEAT = 2**15 - 1  # of the file format
_MAX_BYTES = 2**23  # of one MIDI file: about a million notes
_MAX_FRAMES = 200_000  # of one MIDI file: a day of eighth notes at 70 beats a minute
_END_OF_ROLL = b"end of roll"  # the text event that marks the end, so that final silence is kept
_DEFAULT_TEMPO = 500_000  # microseconds per beat of a file without a tempo: 120 beats a minute
_DEFAULT_BPM = 120.0

# How onsets fall between the beats shows whether a piece was played freely.
_DIVISIONS = (1, 2, 3, 4, 5, 6, 7, 8, 12, 16, 24, 32)  # of a beat, that onsets may gather on
_ON_BEATS = 0.3  # smallest share; onsets anywhere stay below it with a probability of 99 %
_MIN_ONSETS = 64  # fewer onsets say nothing
_MANY_SHORT = 0.1  # share of vanished notes from which on a message gives the cure


class ReadOptions(NamedTuple):
    """How the notes of a MIDI file become frames; the fields are those of DataSettings."""

    frame_beats: float = 0.5  # length of a frame in beats
    frame_seconds: float | None = None  # in seconds, in place of beats
    min_frames: int = 0  # shortest note in frames; 0 = one that rounds to no frame vanishes
    sustain: bool = False  # whether the pedal holds notes
    max_minutes: float = math.inf  # longest duration that is accepted


@dataclass(frozen=True)
class MidiAccount:
    """What a file's notes became, or those of several files together."""

    notes: int = 0  # all notes but drums and hanging ones
    out_of_range: int = 0  # above or below the 88 pitches; left out
    too_short: int = 0  # rounded to the same start and end; left out
    hanging: int = 0  # without an end; left out
    unbalanced: int = 0  # without an end of their own, they end with another note of their pitch
    drums: int = 0  # left out
    other_pieces: int = 0  # further pieces of a file of type 2; left out
    missing_tracks: int = 0  # tracks fewer than the header promises
    free: int = 0  # files whose onsets do not sit on their beats

    def __add__(self, other: "MidiAccount") -> "MidiAccount":
        """Return the account of both."""
        names = [field.name for field in fields(self)]
        return MidiAccount(*(getattr(self, name) + getattr(other, name) for name in names))

    def remarks(self, options: ReadOptions) -> list[str]:
        """Return what a user should know, one line each, without the name of the file.

        Args:
            options: how the file was read; a message does not advise what is done already.
        """
        remarks = []
        if self.too_short > _MANY_SHORT * self.notes:
            remarks.append(_too_short(self, options))
        elif self.too_short:
            remarks.append(f"left out: {_count(self.too_short, 'note')} too short for a frame")
        if self.out_of_range:
            remarks.append(f"left out: {_count(self.out_of_range, 'note')} outside the 88 pitches")
        if self.hanging:
            remarks.append(f"left out: {_count(self.hanging, 'note')} without an end")
        if self.unbalanced:
            remarks.append(
                f"{_count(self.unbalanced, 'note')} more on than off; each ends with the next off"
                " of its pitch"
            )
        if self.drums:
            remarks.append(f"left out: drums, {_count(self.drums, 'note')}")
        if self.missing_tracks:
            tracks = _count(self.missing_tracks, "track")
            remarks.append(f"{tracks} fewer than its header promises; a file may be cut off")
        if self.other_pieces:
            pieces = self.other_pieces + 1
            remarks.append(f"a file of {pieces} pieces (MIDI type 2); only the first is used")
        if self.free and options.frame_seconds is None:
            what = "a free performance" if self.free == 1 else f"{self.free:,} free performances"
            remarks.append(
                f"{what}: the notes do not sit on the beats of the file; frames of a fixed time"
                " suit better, such as --frame_seconds 0.125 in training, not --frame_beats"
            )
        return remarks


class MidiMusic(NamedTuple):
    """The notes of a MIDI file as they are, and what it says about tempo, metre and key."""

    notes: tuple[Note, ...]  # without drums, by start, then pitch
    bpm: float  # the first tempo, in beats (quarter notes) per minute
    metre: Metre | None  # the first time signature, with the upbeat if a shorter bar precedes it
    key: Key | None  # the first key signature
    beats: float = 0.0  # length: up to the last note's end, or the mark of `roll_to_midi`
    left_out: tuple[str, ...] = ()  # what else the file says, and this does not, one line each


class UnreadableError(InputError):
    """A file that can't be opened or read, whatever is in it."""


class NoRollError(InputError):
    """A MIDI file in order whose piece makes no roll.

    Attributes:
        reason: a few words, the same for all files with the same reason.
        account: what its notes became.
    """

    def __init__(self, message: str, reason: str, account: MidiAccount) -> None:
        super().__init__(message)
        self.reason, self.account = reason, account


def read_midi(
    path: str | Path,
    frame_beats: float = 0.5,
    *,
    frame_seconds: float | None = None,
    min_frames: int = 0,
    sustain: bool = False,
    max_minutes: float = math.inf,
) -> tuple[np.ndarray, MidiAccount]:
    """Read a MIDI file as a roll.

    A cell is set while its pitch sounds, in any track. Starts and ends of notes are rounded to the
    nearest frame, half a frame up, as in the files of the ICML 2012 benchmark. Drums are left out.

    Args:
        path: the file; of a file of type 2, only the first piece is read.
        frame_beats: length of a frame in beats by the file's tempo and its changes.
        frame_seconds: length of a frame in seconds, in place of `frame_beats`.
        min_frames: the shortest note in frames. With 0, a note that rounds to no frame vanishes;
            with 1, it is kept for the frame in which most of it sounds.
        sustain: whether the pedal holds notes.
        max_minutes: the longest duration that is accepted, in minutes.

    Returns:
        The roll, (T, 88) bool, column 0 = MIDI 21, and what its notes became.

    Raises:
        InputError: the file is not MIDI, damaged, too long, or has no note for the roll.
    """
    options = ReadOptions(frame_beats, frame_seconds, min_frames, sustain, max_minutes)
    sequences = _read_sequences(path)
    roll, account = _to_roll(path, sequences[0], options)
    return roll, account + MidiAccount(other_pieces=len(sequences) - 1)


def read_pieces(
    path: str | Path, options: ReadOptions
) -> list[tuple[np.ndarray, MidiAccount] | NoRollError]:
    """Read every piece of a MIDI file: one, or the tracks of a file of type 2.

    Args:
        path: the file.
        options: as the arguments of `read_midi`.

    Returns:
        For each piece what `read_midi` returns, or why it makes no roll.

    Raises:
        InputError: the file is not MIDI or damaged.
    """
    pieces: list[tuple[np.ndarray, MidiAccount] | NoRollError] = []
    for sequence in _read_sequences(path):
        try:
            pieces.append(_to_roll(path, sequence, options))
        except NoRollError as error:
            pieces.append(error)
    return pieces


def read_notes(path: str | Path, *, by_seconds: bool = False, sustain: bool = False) -> MidiMusic:
    """Read the notes of a MIDI file at their exact times.

    Args:
        path: the file; of a file of type 2, only the first piece is read.
        by_seconds: whether a beat of the result is half a second of the file, as for a model
            trained with --frame_seconds, in place of a beat of the file.
        sustain: whether the pedal holds notes.

    Returns:
        The notes, without drums and those that never end; tempo, metre and key.

    Raises:
        InputError: the file is not MIDI or damaged.
    """
    sequence = _read_sequences(path)[0]
    starts, ends = _ticks(sequence)
    if sustain:
        ends = _sustained(sequence, ends)
    if by_seconds:
        starts, ends = (_seconds(sequence, ticks) * _DEFAULT_BPM / 60 for ticks in (starts, ends))
    else:
        starts, ends = starts / sequence.ticks_per_beat, ends / sequence.ticks_per_beat
    notes = [
        Note(start, end, note.pitch, note.velocity)
        for note, start, end in zip(sequence.notes, starts.tolist(), ends.tolist(), strict=True)
        if start < end
    ]
    marks = [
        tick / sequence.ticks_per_beat for tick, text in sequence.texts if text == _END_OF_ROLL
    ]
    tempo = sequence.tempos[0][1] if sequence.tempos else _DEFAULT_TEMPO
    # A tempo is kept in whole microseconds per beat: 90 becomes 89.99996.
    bpm = _DEFAULT_BPM if by_seconds else round(60_000_000 / tempo, 3)
    keys = [Key((7 * sharps + 9 * minor) % 12, minor) for _, sharps, minor in sequence.keys[:1]]
    return MidiMusic(
        tuple(sorted(notes, key=lambda note: (note.start, note.pitch))),
        bpm,
        None if by_seconds else _first_metre(sequence),
        keys[0] if keys else None,
        max([note.end for note in notes] + ([] if by_seconds else marks), default=0.0),
        tuple(_left_out(sequence, by_seconds=by_seconds, sustain=sustain)),
    )


def _left_out(sequence: Sequence, *, by_seconds: bool, sustain: bool) -> list[str]:
    """Return what a file says beside its notes and its first tempo, metre and key."""
    remarks = []
    tempos = [60_000_000 / tempo for _, tempo in sequence.tempos]
    if not by_seconds and tempos and round(min(tempos)) < round(max(tempos)):
        remarks.append(
            f"left out: its changes of tempo, {min(tempos):.0f} to {max(tempos):.0f} beats per"
            " minute; the first one is kept"
        )
    first = _first_metre(sequence)
    later = {metre[1:] for metre in sequence.metres[1 if first and first.upbeat else 0 :]}
    if not by_seconds and len(later) > 1:
        remarks.append("left out: its changes of metre; the first one is kept")
    if len({key[1:] for key in sequence.keys}) > 1:
        remarks.append("left out: its changes of key signature; the first one is kept")
    if not sustain and any(down for events in sequence.pedals.values() for _, down in events):
        remarks.append("left out: its sustain pedal")
    return remarks


def _first_metre(sequence: Sequence) -> Metre | None:
    """Return the first metre; a first bar of its own that is shorter than the next is an upbeat."""
    metres = [
        (tick / sequence.ticks_per_beat, Metre(numerator, denominator))
        for tick, numerator, denominator in sequence.metres
    ]
    if not metres:
        return None
    start, first = metres[0]
    for change, metre in metres[1:]:
        if change > start:
            is_upbeat = start == 0 and change == first.bar_beats < metre.bar_beats
            return metre._replace(upbeat=change) if is_upbeat else first
        first = metre  # of several at one tick, the last counts
    return first


def _read_sequences(path: str | Path) -> list[Sequence]:
    """Return the pieces of a MIDI file; there is at least one."""
    path = Path(path)
    if path.is_dir():
        raise UnreadableError(f"{path}: a folder that can't be opened as a file")
    if path.exists() and not path.is_file():
        raise UnreadableError(f"{path}: neither a file nor a folder")
    try:
        size = path.stat().st_size
        if size > _MAX_BYTES:
            limit = f"{size / 2**20:.0f} MB; the limit is {_MAX_BYTES >> 20}"
            reason = f"larger than {_MAX_BYTES >> 20} MB"
            raise NoRollError(f"{path}: too large, {limit}", reason, MidiAccount())
        if not size:
            raise NoRollError(f"{path}: empty, it has no bytes", "no bytes", MidiAccount())
        data = path.read_bytes()
    except FileNotFoundError:
        words = "a link to a file that is missing" if path.is_symlink() else "no such file"
        raise UnreadableError(f"{path}: {words}") from None
    except OSError as error:
        words = (error.strerror or "input error").lower()
        raise UnreadableError(f"{path}: can't be read ({words})") from None
    try:
        return read_smf(data)
    except SmpteError as error:
        raise NoRollError(f"{path}: {error}", "time in SMPTE frames", MidiAccount()) from None
    except MidiError as error:
        raise InputError(f"{path}: {error}") from None


def _to_roll(
    path: str | Path, sequence: Sequence, options: ReadOptions
) -> tuple[np.ndarray, MidiAccount]:
    """Return the roll of a piece, and what its notes became.

    Raises:
        NoRollError: it is too long, or no note remains.
    """
    starts, ends = _ticks(sequence)
    marks = np.array(
        [tick for tick, text in sequence.texts if text == _END_OF_ROLL], dtype=np.int64
    )
    pitches = np.array([note.pitch for note in sequence.notes], dtype=np.int64) - LOWEST_PITCH
    minutes = float(_seconds(sequence, np.append(ends, marks)).max(initial=0)) / 60
    if options.sustain:
        ends = _sustained(sequence, ends)
    start, end, mark = (_in_frames(sequence, ticks, options) for ticks in (starts, ends, marks))
    # Nearest frame, half a frame up.
    first, last, mark = (np.floor(times + 0.5).astype(np.int64) for times in (start, end, mark))
    if options.min_frames:
        middle = np.floor((start + end) / 2).astype(np.int64)
        first = np.where(first < last, first, middle)
        last = np.maximum(last, first + options.min_frames)
    in_range = (pitches >= 0) & (pitches < PITCHES)
    kept = in_range & (first < last)
    account = MidiAccount(
        notes=len(pitches),
        out_of_range=int((~in_range).sum()),
        too_short=int((in_range & ~kept).sum()),
        hanging=sequence.hanging,
        unbalanced=sequence.unbalanced,
        drums=sequence.drums,
        missing_tracks=sequence.missing_tracks,
        free=int(_is_free(starts / sequence.ticks_per_beat)),
    )
    if minutes > options.max_minutes:
        raise NoRollError(
            f"{path}: {minutes:.0f} minutes long; the limit is {options.max_minutes:g}, or"
            " --max_minutes in training",
            f"longer than {options.max_minutes:g} minutes (--max_minutes)",
            account,
        )
    if not kept.any() and not len(marks):
        reason, words = _no_notes(account, options)
        raise NoRollError(f"{path}: {words}", reason, account)
    frames = int(np.append(last[kept], mark).max())
    if frames > _MAX_FRAMES:
        raise NoRollError(
            f"{path}: too long, {frames:,} frames; the limit is {_MAX_FRAMES:,}",
            f"longer than {_MAX_FRAMES:,} frames",
            account,
        )
    roll = np.zeros((frames, PITCHES), dtype=bool)
    notes = zip(pitches[kept].tolist(), first[kept].tolist(), last[kept].tolist(), strict=True)
    for pitch, frame, stop in notes:
        roll[frame:stop, pitch] = True
    return roll, account


def _no_notes(account: MidiAccount, options: ReadOptions) -> tuple[str, str]:
    """Return why no note remains, in a few words for many files and in a sentence for one."""
    if account.too_short:
        return "every note too short", _too_short(account, options)
    if account.out_of_range:
        return "no note within the 88 pitches", "no note within the 88 pitches of a piano"
    if account.hanging:
        return "no note that ends", f"none of its {_count(account.hanging, 'note')} ever ends"
    if account.drums:
        return "drums only", "it has drums only, and no notes for a piano"
    return "no notes", "it has no notes"


def _too_short(account: MidiAccount, options: ReadOptions) -> str:
    """Return the share of notes that vanish, and the cure."""
    share = f"{100 * account.too_short / account.notes:.0f} %"
    if options.frame_seconds is None:
        shorter = f"--frame_beats {options.frame_beats / 2:g}"
    else:
        shorter = f"--frame_seconds {options.frame_seconds / 2:g}"
    return (
        f"{share} of the notes ({account.too_short:,} of {account.notes:,}) are too short for the"
        f" frames and vanish; {shorter} or --min_frames 1 in training keeps them"
    )


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'s' * (number != 1)}"


# ---- times ---------------------------------------------------------------------------------------


def _ticks(sequence: Sequence) -> tuple[np.ndarray, np.ndarray]:
    """Return the starts and ends of the notes in ticks, (N,) int64 each."""
    starts = np.array([note.start for note in sequence.notes], dtype=np.int64)
    return starts, np.array([note.end for note in sequence.notes], dtype=np.int64)


def _seconds(sequence: Sequence, ticks: np.ndarray) -> np.ndarray:
    """Return times in seconds, by the tempo and its changes.

    Args:
        sequence: the piece.
        ticks: (N,) int64.
    """
    changes = np.array([(0, _DEFAULT_TEMPO), *sequence.tempos], dtype=np.float64)
    per_tick = changes[:, 1] / 1_000_000 / sequence.ticks_per_beat
    before = np.concatenate([[0.0], np.cumsum(np.diff(changes[:, 0]) * per_tick[:-1])])
    index = np.searchsorted(changes[:, 0], ticks, side="right") - 1
    return before[index] + (ticks - changes[index, 0]) * per_tick[index]


def _in_frames(sequence: Sequence, ticks: np.ndarray, options: ReadOptions) -> np.ndarray:
    """Return times in frames, (N,) float64."""
    if options.frame_seconds is None:
        return ticks / (sequence.ticks_per_beat * options.frame_beats)
    # A millionth of a frame makes up for the rounding of sums of seconds.
    return _seconds(sequence, ticks) / options.frame_seconds + 1e-6


def _sustained(sequence: Sequence, ends: np.ndarray) -> np.ndarray:
    """Return the ends of notes, in ticks, later where the pedal of their channel is down.

    A pedal that never rises holds to the end of the last note.
    """
    ends, final = ends.copy(), int(ends.max(initial=0))
    channels = np.array([note.channel for note in sequence.notes])
    for channel, events in sequence.pedals.items():
        ticks = np.array([tick for tick, _ in events])
        down = np.array([is_down for _, is_down in events])
        rises = np.append(ticks[~down], max(final, int(ticks[-1])))
        ours = np.flatnonzero(channels == channel)
        last = np.searchsorted(ticks, ends[ours], side="right") - 1  # the event before each end
        held = ours[(last >= 0) & down[last]]
        ends[held] = np.maximum(ends[held], rises[np.searchsorted(rises, ends[held])])
    return ends


def _is_free(onsets: np.ndarray) -> bool:
    """Return whether onsets fall anywhere between the beats, as without a click.

    For each division of the beat, the length of the mean of exp(2 pi i onset / division) is 1 if
    all onsets sit on it and near 0 if they fall anywhere (Mardia and Jupp, "Directional
    Statistics", 2000, section 2.3). Playing to a click, give or take 3 % of a beat, has 0.75.

    Args:
        onsets: (N,) float64, in beats.
    """
    onsets = np.unique(onsets)
    if len(onsets) < _MIN_ONSETS:
        return False
    phases = 2j * np.pi * np.outer(_DIVISIONS, onsets)
    return bool(np.abs(np.exp(phases).mean(axis=1)).max() < _ON_BEATS)


# ---- rolls and their notes -----------------------------------------------------------------------


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

    `read_midi` reads the file back as the same roll. A text event marks the end of the roll, so
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
    midi.text_events.append(pretty_midi.Text(_END_OF_ROLL.decode(), end_of_roll))
    return midi


def piece_to_midi(piece: Piece, velocity: int = 80, program: int = 0) -> pretty_midi.PrettyMIDI:
    """Convert a piece to MIDI: a track for each part, tempo, time and key signature.

    The generated notes are split into melody and chords, or soprano, alto, tenor and bass. Given
    notes are on a track of their own, exactly as they were given: their times are ticks of the
    file. With an upbeat, the first bar has a time signature of its own, as short as the upbeat.
    `read_midi` reads the generated and the given notes back.

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
    midi.text_events.append(pretty_midi.Text(_END_OF_ROLL.decode(), end))
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
        text: a name such as "Church Organ", in any case, or a number from 0 to 127. A part of a
            name from the start of a word on is enough: "Piano" is the first with that word,
            Acoustic Grand Piano.

    Returns:
        Its number.

    Raises:
        InputError: the text is neither; the message lists the most similar names.
    """
    names = pretty_midi.constants.INSTRUMENT_MAP
    if text.isdecimal() and int(text) < len(names):
        return int(text)
    numbers = {name.lower(): number for number, name in enumerate(names)}
    wanted = text.strip().lower()
    if wanted in numbers:
        return numbers[wanted]
    for name, number in numbers.items():
        if wanted and not wanted.isdecimal() and re.search(rf"\b{re.escape(wanted)}", name):
            return number
    similar = get_close_matches(wanted, numbers, cutoff=0.4)
    hint = f", such as {' or '.join(names[numbers[name]] for name in similar)}" if similar else ""
    raise InputError(f"--program {text}: give a number from 0 to 127 or a General MIDI name{hint}")
