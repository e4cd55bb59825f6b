"""Scores: spelling, bars, voices and values of MusicXML, read back by music21; engraving."""

import re
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any

import hypothesis
import music21
import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st

from helpers import roll_from
from pianolstm.outputs.musicxml import engrave, key_name, spell, to_musicxml, write_musicxml
from pianolstm.parts import complete, whole_roll
from pianolstm.piece import Metre, Note, Piece
from pianolstm.tonality import Key, parse_key

EMPTY = np.zeros((0, 88), dtype=bool)


def score_of(piece: Piece, program: int = 0) -> Any:
    """Return the score of a piece as music21 reads it."""
    return music21.converter.parse(to_musicxml(piece, program), format="musicxml")


def roll_of(score: Any, frames: int, frame_beats: float) -> np.ndarray:
    """Return the roll, (T, 88) bool, of a score."""
    roll = np.zeros((frames, 88), dtype=bool)
    for element in score.flatten().notes:
        start = round(float(element.offset) / frame_beats)
        end = round(float(element.offset + element.quarterLength) / frame_beats)
        for pitch in element.pitches:
            roll[start:end, pitch.midi - 21] = True
    return roll


def shown_accidentals(score: Any) -> list[str]:
    """Return the names of the notes that have an accidental of their own."""
    notes = [pitch for element in score.flatten().notes for pitch in element.pitches]
    return [p.nameWithOctave for p in notes if p.accidental and p.accidental.displayStatus]


def given(*notes: tuple[float, float, int], **values: Any) -> Piece:
    """Return a piece of given notes in 4/4 and C major."""
    values = {"metre": Metre(4, 4), "key": Key(0, False)} | values
    return Piece(EMPTY, 0.5, given=tuple(Note(*note) for note in notes), **values)


# ---- what is written -----------------------------------------------------------------------------


@settings(max_examples=25)
@hypothesis.given(
    st.lists(st.sets(st.integers(21, 108), max_size=5), min_size=1, max_size=24),
    st.sampled_from([0.25, 0.5, 1.0]),
    st.sampled_from([Metre(4, 4), Metre(3, 4, 1.0), Metre(6, 8, 0.5), Metre(2, 4), Metre(9, 8)]),
    st.booleans(),
)
def test_a_score_holds_the_roll(
    frames: list[set[int]], frame_beats: float, metre: Metre, four_voices: bool
) -> None:
    roll = roll_from(*frames)
    piece = Piece(roll, frame_beats, metre=metre, four_voices=four_voices)
    np.testing.assert_array_equal(roll_of(score_of(piece), len(roll), frame_beats), roll)


def test_given_notes_off_the_grid_of_the_model_are_in_the_score() -> None:
    piece = given((0, 0.25, 72), (0.25, 0.5, 74), (1, 4 / 3, 76), (4 / 3, 5 / 3, 77), (2, 3, 79))
    notes = score_of(piece).flatten().notes
    places = [(float(n.offset), float(n.quarterLength), n.pitch.midi) for n in notes]
    expected = [(0, 0.25, 72), (0.25, 0.25, 74), (1, 1 / 3, 76), (4 / 3, 1 / 3, 77), (2, 1, 79)]
    assert places == [pytest.approx(place) for place in expected]


def test_a_part_has_a_name_an_instrument_a_tempo_and_a_title() -> None:
    piece = given((0, 1, 60), (0, 1, 76), bpm=90.0, title="A tune & more")
    score = score_of(piece, 40)
    assert score.metadata.bestTitle == "A tune & more"
    assert {part.partName for part in score.parts} == {"Violin"}
    assert isinstance(
        score.flatten().getElementsByClass("Instrument")[0], music21.instrument.Violin
    )
    assert [mark.number for mark in score.flatten().getElementsByClass("MetronomeMark")] == [90]


def test_the_tempo_of_compound_metres_counts_dotted_quarters() -> None:
    (mark,) = score_of(given((0, 1, 60), bpm=120.0, metre=Metre(6, 8))).flatten()["MetronomeMark"]
    assert (mark.number, mark.referent.quarterLength) == (80, 1.5)


# ---- spelling ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "spelt"),
    [
        ("C", "C C# D Eb E F F# G G# A Bb B"),
        ("Am", "C C# D D# E F F# G G# A Bb B"),
        ("D", "C C# D D# E F F# G G# A A# B"),
        ("Eb", "C Db D Eb E F Gb G Ab A Bb B"),
        ("Cm", "C Db D Eb E F F# G Ab A Bb B"),
        ("F#m", "B# C# D D# E E# F# G G# A A# B"),
        ("Db", "C Db D Eb Fb F Gb G Ab A Bb Cb"),
    ],
)
def test_each_pitch_class_has_its_name_in_the_key(key: str, spelt: str) -> None:
    names = []
    for pitch in range(60, 72):
        step, alteration, octave = spell(pitch, parse_key(key))
        accidental = {-1: "b", 0: "", 1: "#"}[alteration]
        assert music21.pitch.Pitch(f"{step}{accidental.replace('b', '-')}{octave}").midi == pitch
        names.append(step + accidental)
    assert names == spelt.split()


@pytest.mark.parametrize(
    ("key", "name"),
    [("C", "C major"), ("Bbm", "B-flat minor"), ("F#m", "F-sharp minor"), ("Abm", "G-sharp minor")],
)
def test_a_key_is_named_as_its_score_spells_it(key: str, name: str) -> None:
    assert key_name(parse_key(key)) == name


@pytest.mark.parametrize("minor", [False, True])
@pytest.mark.parametrize("tonic", range(12))
def test_a_scale_needs_no_accidental_in_any_key(tonic: int, minor: bool) -> None:
    scale = (0, 2, 3, 5, 7, 8, 10, 12) if minor else (0, 2, 4, 5, 7, 9, 11, 12)
    notes = [(i / 2, i / 2 + 0.5, 60 + tonic + step) for i, step in enumerate(scale)]
    assert shown_accidentals(score_of(given(*notes, key=Key(tonic, minor)))) == []


def test_an_accidental_holds_until_the_bar_line_and_is_then_repeated() -> None:
    pitches = [66, 66, 65, 66, 66, 65]  # F# F# F F# | F# F
    piece = given(*((i, i + 1, pitch) for i, pitch in enumerate(pitches)))
    written = re.findall(r"<accidental>(.*?)</accidental>", to_musicxml(piece))
    assert written == ["sharp", "natural", "sharp", "sharp", "natural"]


def test_a_note_tied_over_the_bar_line_has_its_accidental_once() -> None:
    piece = given((3, 5, 66), (5, 6, 66))
    written = re.findall(r"<accidental>(.*?)</accidental>", to_musicxml(piece))
    assert written == ["sharp", "sharp"]


# ---- bars ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("metre", "lengths"),
    [
        (Metre(4, 4), [4, 4, 4]),
        (Metre(4, 4, 1.0), [1, 4, 4, 4]),
        (Metre(3, 4, 0.5), [0.5, 3, 3, 3, 3]),
        (Metre(6, 8, 0.5), [0.5, 3, 3, 3, 3]),
    ],
)
def test_bars_begin_where_the_metre_says(metre: Metre, lengths: list[float]) -> None:
    score = score_of(given(*((i, i + 1, 60 + i) for i in range(12)), metre=metre))
    bars = list(score.parts[0].getElementsByClass("Measure"))
    assert [float(bar.duration.quarterLength) for bar in bars] == lengths
    assert [bar.number for bar in bars] == list(
        range(metre.upbeat == 0, len(bars) + (metre.upbeat == 0))
    )
    (signature,) = score.parts[0].flatten().getElementsByClass("TimeSignature")
    assert signature.ratioString == str(metre)


@pytest.mark.parametrize(
    ("metre", "lengths", "values"),
    [
        (Metre(4, 4), [1.5, 0.5, 2], ["1.5", "0.5", "2"]),
        (Metre(4, 4), [0.5, 1, 1, 1, 0.5], ["0.5", "1", "0.5+0.5", "1", "0.5"]),
        (Metre(3, 4), [2.5, 0.5], ["2+0.5", "0.5"]),
        (Metre(6, 8), [2.5, 0.5], ["1.5+1", "0.5"]),
        (Metre(6, 8), [3], ["3"]),
        (Metre(6, 8), [1, 0.5, 0.5, 1], ["1", "0.5", "0.5", "1"]),
    ],
)
def test_values_keep_the_beats_of_the_bar_visible(
    metre: Metre, lengths: list[float], values: list[str]
) -> None:
    times = np.cumsum([0, *lengths]).tolist()
    notes = [(start, end, 72 + i) for i, (start, end) in enumerate(pairwise(times))]
    written: list[str] = []
    for element in score_of(given(*notes, metre=metre)).flatten().notes:
        length = f"{float(element.quarterLength):g}"
        if element.tie is not None and element.tie.type != "start":
            written[-1] += f"+{length}"
        else:
            written.append(length)
    assert written == values


def test_short_notes_are_beamed_by_beats() -> None:
    eighths = [(i / 2, i / 2 + 0.5, 72 + i % 3) for i in range(6)]
    for metre, beams in (
        (Metre(3, 4), "start stop " * 3),
        (Metre(6, 8), "start continue stop " * 2),
    ):
        notes = score_of(given(*eighths, metre=metre)).flatten().notes
        assert [note.beams.getTypes()[0] for note in notes] == beams.split()


# ---- voices --------------------------------------------------------------------------------------


def voices_of(score: Any) -> list[list[int]]:
    """Return the pitches of each staff's notes in time order."""
    return [[p.midi for n in part.flatten().notes for p in n.pitches] for part in score.parts]


def test_the_melody_is_above_and_the_chords_are_below_wherever_they_lie() -> None:
    high = given((0, 1, 84), (1, 2, 86), (0, 2, 72), (0, 2, 76))
    assert voices_of(score_of(high)) == [[84, 86], [72, 76]]
    clefs = [part.flatten().getElementsByClass("Clef")[0].sign for part in score_of(high).parts]
    assert clefs == ["G", "G"]


def test_a_melody_alone_has_one_staff() -> None:
    assert voices_of(score_of(given((0, 1, 60), (1, 2, 48)))) == [[60, 48]]


def test_the_left_hand_plays_what_it_can_span() -> None:
    piece = given((0, 2, 84), (0, 2, 40), (0, 2, 52), (0, 2, 56), (0, 2, 64))
    assert voices_of(score_of(piece)) == [[84, 64], [40, 52, 56]]  # a tenth, and not more


def test_chords_with_common_notes_are_written_anew_and_not_tied() -> None:
    roll = roll_from(*[{84, 60, 64, 67}] * 8, *[{86, 60, 65, 69}] * 8, *[{84, 60, 64, 67}] * 8)
    piece = Piece(roll, 0.5, metre=Metre(4, 4), key=Key(0, False))
    assert "<tie " not in to_musicxml(piece)
    chords = score_of(piece).parts[1].flatten().notes
    assert [[p.midi for p in chord.pitches] for chord in chords] == [
        [60, 64, 67], [60, 65, 69], [60, 64, 67]
    ]  # fmt: skip


def test_a_given_chord_that_lasts_over_a_bar_line_is_tied() -> None:
    piece = given((0, 8, 60), (0, 8, 64), (0, 4, 84), (4, 8, 86))
    assert to_musicxml(piece).count("<tied ") == 4


def test_a_chorale_has_four_voices_on_two_staves() -> None:
    roll = roll_from({48, 60, 67, 76}, {50, 59, 67, 79}, {48, 60, 64, 84}, {48, 60, 64, 84})
    score = score_of(Piece(roll, 1.0, metre=Metre(4, 4), four_voices=True))
    measures = [part.getElementsByClass("Measure")[0] for part in score.parts]
    voices = [[[n.pitch.midi for n in v.notes] for v in bar.voices] for bar in measures]
    assert voices == [[[76, 79, 84], [67, 64]], [[60, 59, 60], [48, 50, 48]]]


# ---- engraving -----------------------------------------------------------------------------------

needs_verovio = pytest.mark.skipif(find_spec("verovio") is None, reason="Verovio is not installed")


@needs_verovio
@pytest.mark.parametrize("four_voices", [False, True])
def test_a_score_is_engraved_without_a_complaint_and_equally_each_time(
    four_voices: bool, capfd: pytest.CaptureFixture[str]
) -> None:
    roll = np.random.default_rng(1).random((32, 88)) < 0.05
    notes = (Note(1 / 3, 2 / 3, 80), Note(2.25, 2.5, 81), Note(3.75, 5, 60))
    score = to_musicxml(Piece(roll, 0.5, given=notes, four_voices=four_voices))
    svg = engrave(score)
    assert capfd.readouterr() == ("", "")
    assert svg.lstrip().startswith("<svg")
    assert svg.count('class="note"') == score.count("<pitch>")
    assert engrave(score) == svg


def test_equal_pieces_give_equal_files(tmp_path: Path) -> None:
    piece = Piece(roll_from({60, 64}, {60}, {62, 67}), 0.5, title="t")
    for name in ("a", "b"):
        write_musicxml(tmp_path / name, piece)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_metre_and_key_are_estimated_where_they_are_missing() -> None:
    piece = Piece(roll_from(*[{67}, {69}, {71}, {72}, {74}, {76}, {78}, {79}] * 2), 0.5)
    done = complete(piece)
    score = score_of(piece)
    assert score.flatten().getElementsByClass("KeySignature")[0].sharps == 1
    assert score.flatten().getElementsByClass("TimeSignature")[0].ratioString == str(done.metre)
    np.testing.assert_array_equal(whole_roll(done), piece.roll)
