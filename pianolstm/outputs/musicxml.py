"""Pieces as MusicXML, for notation programs, and engraved as SVG.

Sources: the MusicXML 4.0 specification (W3C, 2021); Gould, "Behind Bars" (2011), on beams, rests
and which note values may cross a beat; Temperley, "The Cognition of Basic Musical Structures"
(2001), chapter 5, on spelling by the line of fifths. SVG is by Verovio (Pugin et al., ISMIR 2014).
"""

import xml.etree.ElementTree as ET
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pretty_midi

from pianolstm.parts import all_notes, complete, cut, split_parts
from pianolstm.piece import Metre, Note, Piece
from pianolstm.tonality import Key

DIVISIONS = 12  # of a quarter note, the unit of all times here; sixteenth = 3, triplet eighth = 4
_SIXTEENTH, _THIRD = 3, 4
_TYPES = {  # length -> name, dots, time modification
    72: ("whole", 1, False), 48: ("whole", 0, False), 36: ("half", 1, False),
    24: ("half", 0, False), 18: ("quarter", 1, False), 12: ("quarter", 0, False),
    9: ("eighth", 1, False), 6: ("eighth", 0, False), 3: ("16th", 0, False),
    8: ("quarter", 0, True), 4: ("eighth", 0, True),
}  # fmt: skip
_BEAMS = {"eighth": 1, "16th": 2}
_HAND_SPAN = 16  # semitones that a hand plays at once: a tenth
_LINE_OF_FIFTHS = "FCGDAEB"
_STEPS = {"C": 0, "D": 2, "E": 4, "F": 5, "G": 7, "A": 9, "B": 11}
_ACCIDENTALS = {-2: "flat-flat", -1: "flat", 0: "natural", 1: "sharp", 2: "double-sharp"}
_BASS_BELOW = 59  # mean pitch of a staff below which it has a bass clef
_SVG_OPTIONS = {
    "pageWidth": 2100, "pageHeight": 60_000, "adjustPageHeight": True, "scale": 40,
    "header": "none", "footer": "none", "svgViewBox": True, "breaks": "auto",
    "pageMarginTop": 50, "pageMarginBottom": 50, "pageMarginLeft": 50, "pageMarginRight": 50,
}  # fmt: skip


def write_musicxml(path: Path, piece: Piece, program: int = 0) -> None:
    """Write a piece as MusicXML.

    Args:
        path: the file to write.
        piece: the piece; metre and key are estimated where they are None.
        program: General MIDI program of the part, 0 to 127.
    """
    path.write_text(to_musicxml(piece, program), encoding="utf-8")


def to_musicxml(piece: Piece, program: int = 0) -> str:
    """Return a piece as MusicXML: one part, with key, metre, tempo and title.

    Melody and chords are on two staves: the melody is voice 1, the chords are in the left hand, but
    for notes that it can't reach; these are voice 2 of the right hand. Chorales have soprano and
    alto on one staff, tenor and bass on the other. Times are rounded to sixteenths, or to triplet
    eighths in beats that these fit better. A note that is common to two chords is written twice
    rather than tied.

    Args:
        piece: the piece; metre and key are estimated where they are None.
        program: General MIDI program of the part, 0 to 127.
    """
    piece = complete(piece)
    metre = piece.metre or Metre()
    staves = _staves(piece, metre)
    root = ET.Element("score-partwise", version="4.0")
    _head(root, piece.title, program)
    part = _add(root, "part", id="P1")
    bars = list(_bars(metre, max(piece.beats, metre.upbeat + metre.bar_beats)))
    for number, (start, end) in enumerate(bars, start=metre.upbeat == 0):
        measure = _add(part, "measure", number=str(number))
        if number == 0:
            measure.set("implicit", "yes")
        if start == 0:
            _attributes(measure, piece, metre, staves)
        _write_bar(measure, staves, (start, end), metre, piece.key)
        if end == bars[-1][1]:
            _add(_add(measure, "barline", location="right"), "bar-style", "light-heavy")
    ET.indent(root)
    head = '<?xml version="1.0" encoding="UTF-8"?>\n<!DOCTYPE score-partwise PUBLIC'
    head += ' "-//Recordare//DTD MusicXML 4.0 Partwise//EN"'
    head += ' "http://www.musicxml.org/dtds/partwise.dtd">\n'
    return head + ET.tostring(root, encoding="unicode") + "\n"


def can_engrave() -> bool:
    """Return whether Verovio is installed."""
    return find_spec("verovio") is not None


def engrave(musicxml: str) -> str:
    """Return a score as SVG, on one page as long as it needs; equal scores give equal bytes.

    Raises:
        ImportError: Verovio is not installed.
    """
    import verovio

    verovio.enableLog(verovio.LOG_ERROR)
    toolkit = verovio.toolkit()
    toolkit.setOptions(_SVG_OPTIONS | {"xmlIdSeed": 1})
    toolkit.loadData(musicxml)
    return str(toolkit.renderToSVG(1))


# ---- staves, voices, chords ----------------------------------------------------------------------


class _Chord(NamedTuple):
    """Notes that begin together in a voice, or a rest; times in divisions."""

    start: int
    end: int
    pitches: tuple[int, ...]  # MIDI numbers; () = rest
    tied_from: frozenset[int] = frozenset()  # pitches that go on from the chord before
    tied_to: frozenset[int] = frozenset()  # pitches that go on in the next chord
    held: frozenset[int] = frozenset()  # pitches that are tied over bar lines, not written again


@dataclass
class _Voice:
    """A voice of a staff."""

    number: int
    chords: list[_Chord]
    stem: str | None = None  # "up" or "down"; None = as the notation program likes
    rests: bool = True  # whether bars without notes have rests


@dataclass
class _Staff:
    """A staff and its voices."""

    voices: list[_Voice]
    bass_clef: bool = False


def _staves(piece: Piece, metre: Metre) -> list[_Staff]:
    """Return the staves of a piece, from the top."""
    notes = _quantise(all_notes(piece), metre)
    given = {
        rounded
        for rounded, note in zip(notes, all_notes(piece), strict=True)
        if note in piece.given
    }
    parts = [part.notes for part in split_parts(notes, four_voices=piece.four_voices)]
    if piece.four_voices:
        voices = [
            _Voice(number, _chords(part, set(part)), stem)
            for number, part, stem in zip((1, 2, 5, 6), parts, ("up", "down") * 2, strict=True)
        ]
        groups = [(voices[:2], parts[0] + parts[1]), (voices[2:], parts[2] + parts[3])]
    else:
        melody, chords = parts
        left, right = _hands(_chords(chords, given))
        upper = [_Voice(1, _chords(melody, set(melody)))]
        if right:
            upper[0].stem = "up"
            upper.append(_Voice(2, right, "down", rests=False))
        groups = [(upper, melody)]
        if chords:
            groups.append(([_Voice(5, left)], chords))
    return [
        _Staff(voices, bool(part) and float(np.mean([n.pitch for n in part])) < _BASS_BELOW)
        for voices, part in groups
    ]


def _quantise(notes: Sequence[Note], metre: Metre) -> list[Note]:
    """Return notes with times in divisions, rounded to sixteenths or triplet eighths.

    Each beat has one grid for all its notes: the one with the smaller sum of errors.
    """
    # Beats are counted from the bar line, and from 1, so that none is negative.
    shift = 1 - metre.upbeat % 1
    times = np.array([time for note in notes for time in note[:2]]).reshape(-1, 2) + shift
    beats = np.floor(times + 1e-6).astype(np.int64)
    errors = np.zeros((int(beats.max(initial=0)) + 1, 2))
    for column, steps in enumerate((4, 3)):
        off = np.abs(times * steps - np.round(times * steps)) / steps
        np.add.at(errors[:, column], beats, off)
    triplets = errors[:, 1] < errors[:, 0] - 1e-6  # (beats,)
    if _is_compound(metre):
        triplets[:] = False  # a beat has three parts anyway
    grids = np.where(triplets[beats], 3, 4)
    rounded = np.round(times * grids) * DIVISIONS // grids - round(shift * DIVISIONS)
    rounded = np.maximum(rounded, 0).astype(np.int64)
    shortest = np.where(triplets[beats[:, 0]], _THIRD, _SIXTEENTH)
    ends = np.maximum(rounded[:, 1], rounded[:, 0] + shortest)
    starts = rounded[:, 0].tolist()
    return [
        note._replace(start=start, end=end)
        for note, start, end in zip(notes, starts, ends.tolist(), strict=True)
    ]


def _chords(notes: Sequence[Note], held: Collection[Note]) -> list[_Chord]:
    """Return the chords and rests of a voice, one after another.

    Args:
        notes: of the voice, in any order.
        held: those that are tied where others begin or end, and over bar lines; the others are
            written again there.
    """
    chords: list[_Chord] = []
    before: set[int] = set()
    segments = list(cut(notes))
    for i, segment in enumerate(segments):
        sounding = set(segment.sounding)
        after = set(segments[i + 1].sounding) if i + 1 < len(segments) else set()
        tied = {index for index in sounding if notes[index] in held}
        if not chords and segment.start:
            chords.append(_Chord(0, round(segment.start), ()))
        pitches = [
            frozenset(notes[index].pitch for index in chosen)
            for chosen in (sounding, tied & before, tied & after, tied)
        ]
        start, end = round(segment.start), round(segment.end)
        chords.append(_Chord(start, end, tuple(sorted(pitches[0])), *pitches[1:]))
        before = sounding
    return chords


def _hands(chords: Sequence[_Chord]) -> tuple[list[_Chord], list[_Chord]]:
    """Return the chords of the left hand, and those notes that it can't reach, for the right."""
    left, right = [], []
    for chord in chords:
        reach = chord.pitches[0] + _HAND_SPAN if chord.pitches else 0
        far = tuple(pitch for pitch in chord.pitches if pitch > reach)
        left.append(chord._replace(pitches=chord.pitches[: len(chord.pitches) - len(far)]))
        right.append(chord._replace(pitches=far))
    return left, right if any(chord.pitches for chord in right) else []


# ---- bars and note values ------------------------------------------------------------------------


def _bars(metre: Metre, beats: float) -> Iterator[tuple[int, int]]:
    """Yield start and end of each bar in divisions, until `beats` are filled."""
    size = max(1, round(metre.bar_beats * DIVISIONS))
    start, end = 0, round(metre.upbeat * DIVISIONS) or size
    while start < beats * DIVISIONS - 1e-6:
        yield start, end
        start, end = end, end + size


class _Value(NamedTuple):
    """A written note, chord or rest: one note value."""

    chord: _Chord
    start: int  # in divisions
    length: int  # in divisions, one of `_TYPES`, or of a bar for a rest
    offset: int  # from the bar line; in an upbeat bar, as if it were at the end of a full one
    ends_bar: bool


def _values(voice: _Voice, start: int, end: int, metre: Metre) -> list[_Value]:
    """Return the note values of a voice in a bar; [] if it has none and needs no rests."""
    bar = round(metre.bar_beats * DIVISIONS)
    chords = [chord for chord in voice.chords if chord.start < end and chord.end > start]
    if not any(chord.pitches for chord in chords):
        if not voice.rests:
            return []
        chords = [_Chord(start, end, ())]
        if end - start == bar:  # a rest of a whole bar, however long it is
            return [_Value(chords[0], start, bar, 0, ends_bar=True)]
    if chords[-1].end < end:
        chords.append(_Chord(chords[-1].end, end, ()))
    shift = bar - (end - start)  # of an upbeat bar
    values = []
    for chord in chords:
        position, stop = max(chord.start, start), min(chord.end, end)
        while position < stop:
            offset = position - start + shift
            length = _longest(offset, stop - position, metre)
            values.append(_Value(chord, position, length, offset, position + length == end))
            position += length
    return values


def _longest(offset: int, rest: int, metre: Metre) -> int:
    """Return the longest note value that may stand at an offset in a bar.

    Args:
        offset: from the bar line, in divisions.
        rest: length of the note that is left to write.
        metre: of the bar.
    """
    fits = _fits_compound if _is_compound(metre) else _fits_simple
    bar = round(metre.bar_beats * DIVISIONS)
    allowed = [d for d in _TYPES if d <= rest and offset + d <= bar and fits(offset, d, bar)]
    return max(allowed, default=rest)


def _is_compound(metre: Metre) -> bool:
    return metre.denominator >= 8 and metre.numerator % 3 == 0


def _fits_simple(offset: int, length: int, bar: int) -> bool:
    """Return whether a value keeps the beats of a simple bar visible."""
    place = offset % DIVISIONS
    if length in (_THIRD, 2 * _THIRD):  # only where nothing else fits: within a triplet
        return place % _THIRD == 0 and place + length <= DIVISIONS
    if place == 0:
        return True
    if place == DIVISIONS // 2:
        middle = bar // 2 if bar == 4 * DIVISIONS else bar
        crosses = offset < middle < offset + length
        return length <= DIVISIONS // 2 or (length <= 3 * DIVISIONS // 2 and not crosses)
    return place + length <= DIVISIONS


def _fits_compound(offset: int, length: int, bar: int) -> bool:
    """Return whether a value keeps the dotted beats of a compound bar visible."""
    beat = 3 * DIVISIONS // 2
    place = offset % beat
    if length % _SIXTEENTH:
        return False
    return place + length <= beat or (place == 0 and length % beat == 0 and offset + length <= bar)


def _beam_groups(values: Sequence[_Value], metre: Metre) -> list[list[_Value]]:
    """Return the groups of at least two values of a bar that are beamed together."""
    beat = 3 * DIVISIONS // 2 if _is_compound(metre) else DIVISIONS
    groups: list[list[_Value]] = []
    for value in values:
        short = bool(value.chord.pitches) and _TYPES[value.length][0] in _BEAMS
        if not short:
            groups.append([])
            continue
        last = groups[-1] if groups else []
        same_beat = bool(last) and last[-1].offset // beat == value.offset // beat
        if same_beat and last[-1].start + last[-1].length == value.start:
            last.append(value)
        else:
            groups.append([value])
    if metre.denominator == 4 and metre.numerator in (2, 4):
        groups = _join_eighths(groups)
    return [group for group in groups if len(group) > 1]


def _join_eighths(groups: Sequence[list[_Value]]) -> list[list[_Value]]:
    """Join two beats of plain eighth notes in each half of a 4/4 bar, and in a 2/4 bar."""
    joined: list[list[_Value]] = []
    for group in groups:
        last = joined[-1] if joined else []
        plain = all(v.length == DIVISIONS // 2 for v in last + group)
        full = len(last) == 2 and len(group) == 2
        if plain and full and last[0].offset % (2 * DIVISIONS) == 0:
            last += group
        else:
            joined.append(list(group))
    return joined


# ---- spelling ------------------------------------------------------------------------------------


def _signature(key: Key | None) -> int:
    """Return the sharps of a key signature; negative = flats."""
    if key is None:
        return 0
    major = (key.tonic + 3 * key.minor) % 12  # the tonic of the relative major
    sharps = (major * 7 + 5) % 12 - 5
    return -6 if sharps == 6 and key.minor else sharps  # E-flat minor, but F-sharp major


def spell(pitch: int, key: Key | None) -> tuple[str, int, int]:
    """Return step, alteration and octave of a pitch, by its key.

    A pitch class is the one of its names that lies within twelve fifths around the tonic: from the
    minor third to the raised fourth and fifth of a major key, from the minor second to the leading
    notes of a minor one.

    Args:
        pitch: MIDI number.
        key: the key; None = C major.

    Returns:
        For example ("F", 1, 4) for F#4, 66.
    """
    lowest = _signature(key) - (2 if key is not None and key.minor else 3)
    fifth = (pitch % 12 * 7 - lowest) % 12 + lowest  # on the line of fifths, C = 0
    step = _LINE_OF_FIFTHS[(fifth + 1) % 7]
    alteration = (fifth + 1) // 7
    return step, alteration, (pitch - alteration - _STEPS[step]) // 12 - 1


def key_name(key: Key) -> str:
    """Return the name of a key as its scores spell it: "E-flat major", "F-sharp minor"."""
    step, alteration, _ = spell(60 + key.tonic, key)
    accidental = {-1: "-flat", 0: "", 1: "-sharp"}[alteration]
    return f"{step}{accidental} {'minor' if key.minor else 'major'}"


def _signature_alteration(step: str, fifths: int) -> int:
    """Return the alteration that a key signature gives a step."""
    index = _LINE_OF_FIFTHS.index(step)
    return int(index < fifths) - int(6 - index < -fifths)


# ---- elements ------------------------------------------------------------------------------------


def _add(parent: ET.Element, tag: str, text: object = None, **attributes: str) -> ET.Element:
    """Append an element."""
    element = ET.SubElement(parent, tag, attributes)
    if text is not None:
        element.text = str(text)
    return element


def _head(root: ET.Element, title: str, program: int) -> None:
    """Append title, source and instrument."""
    if title:
        _add(_add(root, "work"), "work-title", title)
    identification = _add(root, "identification")
    _add(identification, "creator", "PianoLSTM", type="composer")
    _add(_add(identification, "encoding"), "software", "PianoLSTM")
    name = pretty_midi.program_to_instrument_name(program)
    part = _add(_add(root, "part-list"), "score-part", id="P1")
    _add(part, "part-name", "Piano" if program == 0 else name)
    _add(_add(part, "score-instrument", id="P1-I1"), "instrument-name", name)
    instrument = _add(part, "midi-instrument", id="P1-I1")
    _add(instrument, "midi-channel", 1)
    _add(instrument, "midi-program", program + 1)


def _attributes(measure: ET.Element, piece: Piece, metre: Metre, staves: Sequence[_Staff]) -> None:
    """Append key, metre, clefs and tempo."""
    attributes = _add(measure, "attributes")
    _add(attributes, "divisions", DIVISIONS)
    key = _add(attributes, "key")
    _add(key, "fifths", _signature(piece.key))
    if piece.key is not None:
        _add(key, "mode", "minor" if piece.key.minor else "major")
    time = _add(attributes, "time")
    _add(time, "beats", metre.numerator)
    _add(time, "beat-type", metre.denominator)
    if len(staves) > 1:
        _add(attributes, "staves", len(staves))
    for number, staff in enumerate(staves, start=1):
        clef = _add(attributes, "clef")
        if len(staves) > 1:
            clef.set("number", str(number))
        _add(clef, "sign", "F" if staff.bass_clef else "G")
        _add(clef, "line", 4 if staff.bass_clef else 2)
    direction = _add(measure, "direction", placement="above")
    metronome = _add(_add(direction, "direction-type"), "metronome")
    _add(metronome, "beat-unit", "quarter")
    if _is_compound(metre):
        _add(metronome, "beat-unit-dot")
    per_minute = piece.bpm / 1.5 if _is_compound(metre) else piece.bpm
    _add(metronome, "per-minute", f"{per_minute:.4g}")
    if len(staves) > 1:
        _add(direction, "staff", 1)
    _add(direction, "sound", tempo=f"{piece.bpm:g}")


def _write_bar(
    measure: ET.Element,
    staves: Sequence[_Staff],
    span: tuple[int, int],
    metre: Metre,
    key: Key | None,
) -> None:
    """Append the notes of a bar, voice by voice."""
    first = True
    for number, staff in enumerate(staves, start=1):
        voices = [(voice, _values(voice, *span, metre)) for voice in staff.voices]
        accidentals = _accidentals([value for _, values in voices for value in values], key)
        for voice, values in voices:
            if values and not first:
                _add(_add(measure, "backup"), "duration", span[1] - span[0])
            first = first and not values
            beams, tuplets = _beams(values, metre), _tuplets(values)
            rests_all_bar = len(values) == 1 and values[0].offset == 0
            for value in values:
                for pitch in value.chord.pitches or (None,):
                    note = _add(measure, "note")
                    if pitch is None:
                        _add(note, "rest", **({"measure": "yes"} if rests_all_bar else {}))
                    else:
                        if pitch != value.chord.pitches[0]:
                            _add(note, "chord")
                        _write_pitch(_add(note, "pitch"), *spell(pitch, key))
                    _add(note, "duration", value.length)
                    ties = _ties(value, pitch)
                    for kind in ties:
                        _add(note, "tie", type=kind)
                    _add(note, "voice", voice.number)
                    if value.length in _TYPES and (pitch is not None or not rests_all_bar):
                        _write_type(note, value.length, accidentals.get((value.start, pitch)))
                    if voice.stem and pitch is not None:
                        _add(note, "stem", voice.stem)
                    if len(staves) > 1:
                        _add(note, "staff", number)
                    leads = pitch is None or pitch == value.chord.pitches[0]
                    if leads:
                        for level, text in enumerate(beams.get(value.start, ()), start=1):
                            _add(note, "beam", text, number=str(level))
                    tuplet = tuplets.get(value.start, ()) if leads else ()
                    if ties or tuplet:
                        notations = _add(note, "notations")
                        for kind in ties:
                            _add(notations, "tied", type=kind)
                        for kind in tuplet:
                            _add(notations, "tuplet", type=kind)


def _write_pitch(element: ET.Element, step: str, alteration: int, octave: int) -> None:
    _add(element, "step", step)
    if alteration:
        _add(element, "alter", alteration)
    _add(element, "octave", octave)


def _write_type(note: ET.Element, length: int, accidental: str | None) -> None:
    """Append the name of a note value, its dots, its accidental and its share of a triplet."""
    name, dots, triplet = _TYPES[length]
    _add(note, "type", name)
    for _ in range(dots):
        _add(note, "dot")
    if accidental:
        _add(note, "accidental", accidental)
    if triplet:
        modification = _add(note, "time-modification")
        _add(modification, "actual-notes", 3)
        _add(modification, "normal-notes", 2)


def _ties(value: _Value, pitch: int | None) -> list[str]:
    """Return the ties of a note: "stop", "start", both or none."""
    if pitch is None:
        return []
    chord, end = value.chord, value.start + value.length
    back, forth = pitch in chord.tied_from, pitch in chord.tied_to
    if value.start > chord.start:
        back = value.offset > 0 or pitch in chord.held
    if end < chord.end:
        forth = not value.ends_bar or pitch in chord.held
    return ["stop"] * back + ["start"] * forth


def _accidentals(values: Sequence[_Value], key: Key | None) -> dict[tuple[int, int | None], str]:
    """Return the accidentals that a staff needs in a bar, by time and pitch.

    An accidental holds until the bar line, for its octave. A note that is tied from before the bar
    needs none.
    """
    fifths = _signature(key)
    state: dict[tuple[str, int], int] = {}
    needed: dict[tuple[int, int | None], str] = {}
    for value in sorted(values, key=lambda value: value.start):
        for pitch in value.chord.pitches:
            step, alteration, octave = spell(pitch, key)
            current = state.get((step, octave), _signature_alteration(step, fifths))
            if alteration != current and "stop" not in _ties(value, pitch):
                needed[value.start, pitch] = _ACCIDENTALS[alteration]
                state[step, octave] = alteration
    return needed


def _beams(values: Sequence[_Value], metre: Metre) -> dict[int, list[str]]:
    """Return the beams of each value by its start, from the first level."""
    beams: dict[int, list[str]] = {}
    for group in _beam_groups(values, metre):
        levels = [_BEAMS[_TYPES[value.length][0]] for value in group]
        for i, value in enumerate(group):
            texts = []
            for level in range(1, levels[i] + 1):
                before = i > 0 and levels[i - 1] >= level
                after = i + 1 < len(group) and levels[i + 1] >= level
                hook = "forward hook" if i == 0 else "backward hook"
                text = {
                    (False, False): hook, (False, True): "begin",
                    (True, False): "end", (True, True): "continue",
                }[before, after]  # fmt: skip
                texts.append(text)
            beams[value.start] = texts
    return beams


def _tuplets(values: Sequence[_Value]) -> dict[int, list[str]]:
    """Return where the brackets of triplets start and stop, by start of the value."""
    beats: dict[int, list[int]] = {}
    for value in values:
        if value.length in _TYPES and _TYPES[value.length][2]:
            beats.setdefault(value.offset // DIVISIONS, []).append(value.start)
    marks: dict[int, list[str]] = {}
    for starts in beats.values():
        marks.setdefault(starts[0], []).append("start")
        marks.setdefault(starts[-1], []).append("stop")
    return marks
