"""Reads music that a user gives: a MIDI file, or a score in MusicXML or ABC.

Scores are parsed by music21 (Cuthbert and Ariza 2010).
"""

import io
import math
import warnings
from contextlib import redirect_stderr
from dataclasses import replace
from pathlib import Path
from typing import Any

from pianolstm.files import InputError, one_line
from pianolstm.midi import MidiMusic, NoRollError, ReadOptions, read_notes, read_pieces
from pianolstm.piece import Metre, Note
from pianolstm.tonality import Key

_SCORES = {  # music21's names of formats, by suffix
    ".musicxml": "musicxml",
    ".xml": "musicxml",
    ".mxl": "musicxml",
    ".abc": "abc",
    ".krn": "humdrum",
}
_VELOCITY = 80  # of notes without a dynamic
_MAX_BYTES = 2**24  # of a score


def read_music(
    path: str | Path, max_minutes: float = math.inf, *, by_seconds: bool = False
) -> tuple[MidiMusic, list[str]]:
    """Read a MIDI file, or a score whose name ends in .musicxml, .xml, .mxl, .abc or .krn.

    Args:
        path: the file.
        max_minutes: the longest duration that is accepted, in minutes.
        by_seconds: whether a beat of the result is half a second of a MIDI file, as for a model
            trained with --frame_seconds, in place of a beat of the file.

    Returns:
        The music, and remarks on what was left out of it, one line each.

    Raises:
        InputError: the file can't be read, has no note, or is too long.
    """
    if Path(path).suffix.lower() in _SCORES:
        music, remarks = read_score(path), []
    else:
        music = read_notes(path, by_seconds=by_seconds)
        pieces = read_pieces(path, ReadOptions())
        first = pieces[0].account if isinstance(pieces[0], NoRollError) else pieces[0][1]
        account = replace(first, too_short=0, out_of_range=0, free=0, other_pieces=len(pieces) - 1)
        remarks = account.remarks(ReadOptions())
    if not music.notes:
        raise InputError(f"{path}: has no notes")
    minutes = music.beats / music.bpm
    if minutes > max_minutes:
        raise InputError(f"{path}: {minutes:.0f} minutes long; the limit is {max_minutes:g}")
    return music, remarks


def read_score(path: str | Path) -> MidiMusic:
    """Read a score as it sounds: repeats are played, tied notes are one, grace notes left out.

    Args:
        path: a file that music21 reads.

    Raises:
        InputError: the file can't be read.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    if path.stat().st_size > _MAX_BYTES:
        raise InputError(f"{path}: larger than {_MAX_BYTES >> 20} MB")
    try:
        with redirect_stderr(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # music21 warns of scores that are odd but readable
            score = _parse(path)
            flat = _as_played(score).stripTies().flatten()
            beats = float(flat.highestTime)
            return MidiMusic(_notes(flat), _bpm(flat), _metre(score), _key(flat), beats)
    except Exception as error:  # music21 raises dozens of types for damaged files
        raise InputError(f"{path}: not a readable score ({one_line(error)})") from None


def _parse(path: Path) -> Any:
    """Return the first score of a file at sounding pitch, as music21 reads it."""
    from music21.converter import Converter  # half a second to import
    from music21.stream import Opus

    converter, kind = Converter(), _SCORES[path.suffix.lower()]
    # Not `converter.parse`, which keeps pickles of the files, and opens addresses.
    if path.suffix.lower() == ".mxl":
        converter.parseFileNoPickle(path, format=kind)
    else:
        converter.parseData(_decode(path.read_bytes()), format=kind)
    score: Any = converter.stream
    score = score.scores[0] if isinstance(score, Opus) else score
    if any(part.transposition for part in score.recurse().getElementsByClass("Instrument")):
        score.toSoundingPitch(inPlace=True)
    return score


def _decode(data: bytes) -> str:
    """Return the text of a score; Latin-1, in which every byte is a letter, if it is not UTF-8."""
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return data.decode("utf-16")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("latin-1")


def _as_played(score: Any) -> Any:
    """Return the score with its repeats written out, or as it is if they are contradictory."""
    try:
        return score.expandRepeats()
    except Exception:  # music21's Expander raises several types
        return score


def _notes(flat: Any) -> tuple[Note, ...]:
    """Return the notes of a flat music21 stream, by start and pitch."""
    notes = []
    for element in flat.notes:
        start, length = float(element.offset), float(element.quarterLength)
        if length <= 0 or "ChordSymbol" in element.classes:
            continue
        for part in getattr(element, "notes", [element]):  # those of a chord have their own volume
            velocity = part.volume.velocity or element.volume.velocity or _VELOCITY
            notes += [Note(start, start + length, pitch.midi, velocity) for pitch in part.pitches]
    return tuple(sorted(notes))


def _bpm(flat: Any) -> float:
    """Return the first tempo in quarter notes per minute; 120 without one."""
    for mark in flat.getElementsByClass("MetronomeMark"):
        if (bpm := mark.getQuarterBPM()) is not None:
            return float(bpm)
    return 120.0


def _metre(score: Any) -> Metre | None:
    """Return the first time signature and the length of the upbeat."""
    signature = score.recurse().getElementsByClass("TimeSignature").first()
    if signature is None:
        return None
    metre = Metre(signature.numerator, signature.denominator)
    first = score.recurse().getElementsByClass("Measure").first()
    if first is None:
        return metre
    length = float(first.duration.quarterLength)
    return metre._replace(upbeat=length if length < metre.bar_beats else 0.0)


def _key(flat: Any) -> Key | None:
    """Return the first key signature; one without a mode is taken for major."""
    signature = flat.getElementsByClass("KeySignature").first()
    if signature is None:
        return None
    mode = getattr(signature, "mode", None)
    named = signature if mode in ("major", "minor") else signature.asKey("major")
    return Key(named.tonic.pitchClass, named.mode == "minor")
