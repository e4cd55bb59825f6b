"""Reads music that a user gives: a MIDI file, or a score in MusicXML or ABC.

Scores are parsed by music21 (Cuthbert and Ariza 2010).
"""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

from pianolstm.files import InputError, one_line
from pianolstm.inputs.scores import SCORE_SUFFIXES, parse_scores, sounding_notes
from pianolstm.midi import MidiMusic, NoRollError, ReadOptions, read_notes, read_pieces
from pianolstm.piece import Metre
from pianolstm.tonality import Key


def read_music(
    path: str | Path,
    max_minutes: float = math.inf,
    *,
    by_seconds: bool = False,
    sustain: bool = False,
) -> tuple[MidiMusic, list[str]]:
    """Read a MIDI file, or a score whose name ends in .musicxml, .xml, .mxl, .abc or .krn.

    Args:
        path: the file.
        max_minutes: the longest duration that is accepted, in minutes.
        by_seconds: whether a beat of the result is half a second of a MIDI file, as for a model
            trained with --frame_seconds, in place of a beat of the file.
        sustain: whether the pedal of a MIDI file holds notes.

    Returns:
        The music, and remarks on what was left out of it, one line each.

    Raises:
        InputError: the file can't be read, has no note, or is too long.
    """
    if Path(path).suffix.lower() in SCORE_SUFFIXES:
        music = read_score(path)
        remarks = [*music.left_out]
    else:
        music = read_notes(path, by_seconds=by_seconds, sustain=sustain)
        pieces = read_pieces(path, ReadOptions())
        first = pieces[0].account if isinstance(pieces[0], NoRollError) else pieces[0][1]
        account = replace(first, too_short=0, out_of_range=0, free=0, other_pieces=len(pieces) - 1)
        remarks = [*account.remarks(ReadOptions()), *music.left_out]
    if not music.notes:
        raise InputError(f"{path}: has no notes")
    minutes = music.beats / music.bpm
    if minutes > max_minutes:
        raise InputError(f"{path}: {minutes:.0f} minutes long; the limit is {max_minutes:g}")
    return music, remarks


def read_score(path: str | Path) -> MidiMusic:
    """Read the first piece of a score as it sounds.

    Repeats are played, tied notes are one, grace notes and names of chords left out.

    Args:
        path: a MusicXML, ABC or Humdrum file.

    Raises:
        InputError: the file can't be read.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    try:
        score, *others = parse_scores(path)
        flat = score.flatten()
        notes, counts = sounding_notes(score, join_ties=True)
        left_out = []
        if counts.unplayed_repeats:
            left_out.append("its repeat signs contradict one another and are not played")
        if others:
            left_out.append(f"a file of {len(others) + 1} pieces; only the first is used")
        return MidiMusic(
            tuple(sorted(notes)),
            _bpm(flat),
            _metre(score),
            _key(flat),
            max([note.end for note in notes], default=0.0),
            tuple(left_out),
        )
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    except Exception as error:  # music21 raises dozens of types for damaged files
        raise InputError(f"{path}: not a readable score ({one_line(error)})") from None


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
