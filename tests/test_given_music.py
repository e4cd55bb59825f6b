"""What the user gives comes back untouched, in its key, tempo and metre, with all four flags."""

from pathlib import Path
from typing import Any

import mido
import numpy as np
import pytest

import generate
from generate import plan_piece, sample
from helpers import call, roll_from, steps_of
from helpers_sampling import sampling_model
from model import PianoLSTM
from pianolstm.checkpoint import PRETRAINED
from pianolstm.conditioning import (
    find_key,
    highest_notes,
    line_to_roll,
    onsets_off_grid,
    parse_notes,
    plan_transposition,
    top_line,
    transpose_notes,
)
from pianolstm.files import InputError
from pianolstm.inputs.music import read_music, read_score
from pianolstm.midi import parse_program, read_notes
from pianolstm.piece import Metre, Note, Piece, parse_metre
from pianolstm.tonality import Key, estimate_key, parse_key
from settings import PlaySettings, SampleSettings

FLAGS = ("harmonize", "melody_over", "primer_midi", "continue_from")
TICKS = 480
SCALE = (0, 2, 4, 5, 7, 9, 11, 12)  # of a major key, in semitones


def line(pitches: list[int], ticks: int, gap: int = 0) -> list[tuple[int, int, int]]:
    """Return (tick, last tick, pitch) of notes one after another."""
    starts = [i * ticks for i in range(len(pitches))]
    return [(t, t + ticks - gap, pitch) for t, pitch in zip(starts, pitches, strict=True)]


REEL = [62, 66, 69, 66, 74, 69, 66, 69, 62, 66, 69, 66, 71, 69, 66, 64]
MELODIES = {  # time signature, then notes
    "sixteenths": ((4, 4), line(REEL * 2, 120)),
    "triplets": ((4, 4), line([67, 69, 71, 72, 71, 69, 67, 66, 67, 62, 64, 66] * 2, 160)),
    "repeated": ((3, 4), line([60, 60, 67, 67, 69, 69, 67, 67, 65, 65, 64, 64], 480)),
    "upbeat": ((4, 4), line([67] + [72, 71, 72, 74, 76, 74, 72, 67] * 2 + [72], 480, 20)),
    "jig": ((6, 8), line([67] + [69, 71, 69, 67, 64, 62, 64, 67, 69, 71, 74, 71] * 2, 240)),
}


def write_melody(
    path: Path,
    notes: list[tuple[int, int, int]],
    metre: tuple[int, int] = (4, 4),
    bpm: float = 90,
    key: str | None = None,
) -> str:
    """Write notes as MIDI, each with a velocity of its own; return the path."""
    events = [
        (tick, mido.Message(kind, note=pitch, velocity=40 + i % 80 if kind == "note_on" else 0))
        for i, (start, end, pitch) in enumerate(notes)
        for kind, tick in (("note_on", start), ("note_off", end))
    ]
    events.append((0, mido.MetaMessage("set_tempo", tempo=mido.bpm2tempo(bpm))))
    signature = mido.MetaMessage("time_signature", numerator=metre[0], denominator=metre[1])
    events.append((0, signature))
    if key is not None:
        events.append((0, mido.MetaMessage("key_signature", key=key)))
    track, now = mido.MidiTrack(), 0
    for tick, message in sorted(events, key=lambda event: (event[0], event[1].type)):
        track.append(message.copy(time=tick - now))
        now = tick
    mido.MidiFile(ticks_per_beat=TICKS, tracks=[track]).save(path)
    return str(path)


def play(model: PianoLSTM | None = None, **wanted: Any) -> Piece:
    length = {} if {"harmonize", "melody_over", "bars"} & wanted.keys() else {"beats": 4.0}
    return sample(model or sampling_model(density=0.1), 3, **{**length, **wanted})[0]


# ---- the user's notes ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", MELODIES)
@pytest.mark.parametrize("flag", FLAGS)
@pytest.mark.parametrize("frame_beats", [0.5, 1.0])
def test_every_given_note_is_in_the_result_as_it_was(
    tmp_path: Path, flag: str, name: str, frame_beats: float
) -> None:
    metre, notes = MELODIES[name]
    path = write_melody(tmp_path / "a.mid", notes, metre)
    model = sampling_model(density=0.1, frame_beats=frame_beats)
    piece = play(model, **{flag: path, "primer_beats": 99.0})
    expected = [
        Note(start / TICKS, end / TICKS, pitch, 40 + i % 80)
        for i, (start, end, pitch) in enumerate(notes)
    ]
    assert sorted(piece.given) == sorted(expected)
    assert (piece.bpm, str(piece.metre)) == (90, f"{metre[0]}/{metre[1]}")


@pytest.mark.parametrize("flag", FLAGS)
def test_the_file_of_the_result_has_every_given_note_to_the_tick(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flag: str
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, (metre, notes) in MELODIES.items():
        path = write_melody(tmp_path / f"{name}.mid", notes, metre, bpm=108)
        flags = [f"--{flag}", path, "--seed=1", "--beats=4", "--formats=mid", "--num_samples=1"]
        flags += ["--primer_beats=99"]
        weights = PRETRAINED / "jsb.safetensors"
        assert call(generate, weights, *flags, f"--output_dir={name}") == 0
        result = read_notes(Path(name, "sample-1-1.mid"))
        assert set(read_notes(path).notes) <= set(result.notes)
        assert result.bpm == 108
        assert str(result.metre) == f"{metre[0]}/{metre[1]}"


def test_tempo_metre_and_key_of_a_file_are_replaced_by_the_flags(tmp_path: Path) -> None:
    metre, notes = MELODIES["jig"]
    path = write_melody(tmp_path / "a.mid", notes, metre, bpm=108, key="G")
    piece = play(continue_from=path)
    assert (piece.bpm, piece.metre, piece.key) == (108, Metre(6, 8, 0.5), Key(7, False))
    piece = play(continue_from=path, bpm=60.0, metre="3/4", key="A")
    assert (piece.bpm, piece.metre, piece.key) == (60, Metre(3, 4, 0.5), Key(9, False))
    moved = [note.pitch - 2 for note in piece.given]
    assert moved == [pitch for _, _, pitch in notes]


def test_without_a_file_the_tempo_is_120_and_metre_and_key_are_open() -> None:
    piece = play()
    assert (piece.bpm, piece.metre, piece.key, piece.given) == (120, None, None, ())


@pytest.mark.parametrize("flag", FLAGS)
def test_new_notes_follow_the_primer_or_sound_with_the_given_ones(
    tmp_path: Path, flag: str
) -> None:
    path = write_melody(tmp_path / "a.mid", line([60, 62, 64, 65, 67, 69, 71, 72], 240))
    piece = play(sampling_model(density=0.3), **{flag: path}, normalize_key=False)
    given = roll_from(*[{note.pitch} for note in piece.given])
    if flag in ("primer_midi", "continue_from"):
        assert len(piece.roll) == 8 + 8
        assert not piece.roll[:8].any()
        assert piece.roll[8:].any()
    else:
        assert len(piece.roll) == 8
        assert piece.roll.any()
        assert not (piece.roll & given).any(), "given notes are not written twice"


def test_without_the_primer_the_result_begins_where_it_ended(tmp_path: Path) -> None:
    path = write_melody(tmp_path / "a.mid", line([60, 62, 64, 65, 67], 480), (3, 4))
    piece = play(continue_from=path, include_primer=False)
    assert piece.given == ()
    assert len(piece.roll) == 8
    assert piece.metre == Metre(3, 4, 1.0)  # five of six beats are over


def test_what_lies_between_the_frames_is_said_with_its_share_and_the_cure(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_melody(tmp_path / "reel.mid", MELODIES["sixteenths"][1])
    play(harmonize=path)
    error = capsys.readouterr().err
    assert f"--harmonize {path}: 16 of 32 onsets (50%) are between" in error
    assert "--frame_beats 0.25" in error
    play(sampling_model(frame_beats=1.0), harmonize=path)
    assert "24 of 32 onsets (75%)" in capsys.readouterr().err
    path = write_melody(tmp_path / "jig.mid", MELODIES["jig"][1], (6, 8))
    play(sampling_model(frame_beats=1.0), harmonize=path)
    assert "such as pretrained/nottingham.safetensors" in capsys.readouterr().err
    play(harmonize=path)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("name", "frame_beats", "between", "repeated", "needed"),
    [
        ("sixteenths", 0.5, 16, 0, 0.25),
        ("triplets", 0.5, 16, 0, 1 / 3),
        ("repeated", 0.5, 0, 6, 1),
        ("upbeat", 1.0, 0, 0, 1),
        ("jig", 1.0, 12, 0, 0.5),
    ],
)
def test_onsets_that_frames_can_not_show_are_counted(
    name: str, frame_beats: float, between: int, repeated: int, needed: float
) -> None:
    notes = [Note(start / TICKS, end / TICKS, pitch) for start, end, pitch in MELODIES[name][1]]
    off_grid = onsets_off_grid(notes, frame_beats)
    assert off_grid == (len(notes), between, repeated, needed)


def test_drums_left_out_are_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_melody(tmp_path / "a.mid", line([60, 62], 480))
    file = mido.MidiFile(path)
    for kind in ("note_on", "note_off"):
        file.tracks[0].append(mido.Message(kind, channel=9, note=36, time=10))
    file.save(path)
    play(continue_from=path)
    assert "left out: drums, 1 note" in capsys.readouterr().err


def test_pedal_and_changes_of_tempo_metre_and_key_left_out_are_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_melody(tmp_path / "a.mid", line([60, 62], 480), key="C")
    file = mido.MidiFile(path)
    file.tracks[0][-1:-1] = [
        mido.Message("control_change", control=64, value=127),
        mido.MetaMessage("set_tempo", tempo=mido.bpm2tempo(60)),
        mido.MetaMessage("time_signature", numerator=3, denominator=4),
        mido.MetaMessage("key_signature", key="G"),
    ]
    file.save(path)
    play(continue_from=path)
    error = capsys.readouterr().err
    for words in ("tempo, 60 to 90 beats", "changes of metre", "changes of key", "sustain pedal"):
        assert words in error
    assert len(error.splitlines()) == 4


# ---- what the model reads ------------------------------------------------------------------------


def test_of_notes_in_one_frame_the_model_reads_the_longest_then_the_first() -> None:
    notes = [Note(0, 0.25, 60), Note(0.25, 0.5, 62), Note(0.5, 0.6, 64), Note(0.6, 1, 65)]
    assert steps_of(line_to_roll(notes, 0.5, 3)) == [[60], [65], []]
    assert steps_of(line_to_roll(notes, 1.0, 1)) == [[65]]


def test_the_melody_is_what_has_no_higher_note_above_it() -> None:
    melody = [Note(0, 1.05, 72), Note(1, 2, 71), Note(2.5, 3, 69)]  # the first overlaps a little
    chords = [Note(0, 2, 60), Note(0, 2, 64), Note(2, 3, 67)]
    assert top_line(sorted(melody + chords)) == tuple(melody)


def test_chords_under_a_melody_to_harmonise_are_left_out_and_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    notes = [*line([72, 74, 76, 77], 480), (0, 1920, 60), (0, 1920, 64)]
    piece = play(harmonize=write_melody(tmp_path / "a.mid", notes))
    assert [note.pitch for note in piece.given] == [72, 74, 76, 77]
    assert "2 below them are left out" in capsys.readouterr().err


def test_jsb_weights_are_given_music_an_octave_up_and_play_an_octave_down(tmp_path: Path) -> None:
    model = sampling_model(frame_beats=1.0)
    model.metadata["dataset"] = "jsb"
    path = write_melody(tmp_path / "a.mid", line([60, 62, 64, 65, 67, 65, 64, 60], 480), key="C")
    plan = plan_piece(model, SampleSettings(), PlaySettings(continue_from=path))
    assert steps_of(plan.primer)[0] == [72]
    assert plan.shift == -12
    assert plan.piece.given[0].pitch == 60
    assert plan_piece(model, SampleSettings(), PlaySettings()).shift == -12


@pytest.mark.parametrize("count", [1, 3])
def test_the_result_is_thinned_to_its_highest_notes_not_what_the_model_reads(count: int) -> None:
    model = sampling_model(density=0.3)
    whole, thinned = play(model), play(model, max_polyphony=count)
    assert np.array_equal(thinned.roll, highest_notes(whole.roll, count))
    for all_pitches, kept in zip(steps_of(whole.roll), steps_of(thinned.roll), strict=True):
        assert kept == all_pitches[-count:]


# ---- keys ----------------------------------------------------------------------------------------

KEYS = [Key(tonic, minor) for minor in (False, True) for tonic in range(12)]
MINOR = (0, 2, 3, 5, 7, 8, 11, 12)


def scale_in(key: Key) -> list[int]:
    """Return a scale up and down, then the triad of the key."""
    degrees = MINOR if key.minor else SCALE
    pitches = [60 + key.tonic + degree for degree in degrees]
    return [*pitches, *pitches[::-1], pitches[2], pitches[4], pitches[0]]


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("flag", FLAGS)
def test_music_is_read_in_c_and_what_follows_is_in_its_own_key(
    tmp_path: Path, flag: str, key: Key
) -> None:
    path = write_melody(tmp_path / "a.mid", line(scale_in(key), 480))
    settings, files = {}, {}
    (settings if flag == "primer_midi" else files)[flag] = path
    for wanted in ({}, {"key": str(key)}):
        plan = plan_piece(
            sampling_model(),
            SampleSettings(**settings, **wanted, primer_beats=99.0),
            PlaySettings(**files),
        )
        read = plan.primer if plan.context is None else plan.context
        assert estimate_key(read) == Key(0, key.minor)
        assert (plan.shift - key.tonic) % 12 == 0
        assert plan.piece.key == key
        assert [note.pitch for note in plan.piece.given] == scale_in(key)


def test_a_key_is_found_from_the_notes_with_the_signature_as_a_hint() -> None:
    d_major = [Note(i, i + 1, pitch) for i, pitch in enumerate(scale_in(Key(2, False)))]
    assert find_key(d_major, None) == Key(2, False)
    assert find_key(d_major, Key(0, False)) == Key(2, False), "C is often written for want of one"
    ambiguous = [Note(i, i + 1, pitch) for i, pitch in enumerate([60, 64, 69, 60, 64, 69, 67, 72])]
    assert find_key(ambiguous, Key(0, False)) == Key(0, False)
    assert find_key(ambiguous, Key(9, True)) == Key(9, True)
    assert find_key([], Key(5, False)) == Key(5, False)


@pytest.mark.parametrize(
    ("wanted", "result", "given"),
    [("D", "D", 2), ("Am", "C", 0), ("F#m", "A", -3), ("Db", "Db", 1)],
)
def test_given_music_keeps_its_mode_and_goes_to_the_key_with_the_wanted_signature(
    wanted: str, result: str, given: int
) -> None:
    moves = plan_transposition(Key(0, False), parse_key(wanted), in_c=True, octave=0)
    assert (str(moves.key), moves.given, moves.from_model) == (result, given, given)


def test_a_wanted_key_of_the_other_mode_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_melody(tmp_path / "a.mid", line(scale_in(Key(2, False)), 480))
    piece = play(harmonize=path, key="Am")
    assert piece.key == Key(0, False)
    assert f"--harmonize {path} is in major; it is now in C, the relative of Am" in (
        capsys.readouterr().err
    )


@pytest.mark.parametrize("key", ["Am", "F#m", "D"])
def test_a_wanted_key_is_that_of_the_samples(key: str) -> None:
    model = PianoLSTM.load(PRETRAINED / "jsb.safetensors")
    for piece in sample(model, 1, num_samples=2, beats=32.0, key=key, threads=1):
        assert str(estimate_key(piece.roll)) == key
        assert str(piece.key) == key
        assert piece.remarks == ()


def test_a_wanted_key_that_no_sample_has_is_said() -> None:
    model = PianoLSTM.load(PRETRAINED / "jsb.safetensors")
    free = sample(model, 1, beats=24.0, temperature=0.0)[0]
    mode = estimate_key(free.roll).minor
    wanted = Key(9, not mode)
    piece = sample(model, 1, beats=24.0, temperature=0.0, key=str(wanted))[0]  # has no other
    assert "its relative" in piece.remarks[0]
    assert piece.key == estimate_key(piece.roll)
    assert piece.key.minor == mode


def test_models_of_other_data_reach_the_wanted_key_too_or_say_so() -> None:
    model = sampling_model(density=0.1)
    model.metadata["dataset"] = "mine"
    for key in ("Am", "D"):
        for piece in sample(model, 1, num_samples=3, beats=16.0, key=key):
            assert piece.key == estimate_key(piece.roll)
            assert str(piece.key) == key or "its relative" in piece.remarks[0]


def test_a_continued_sample_stays_in_its_key_with_or_without_the_flag(tmp_path: Path) -> None:
    model = PianoLSTM.load(PRETRAINED / "jsb.safetensors")
    path = write_melody(tmp_path / "a.mid", line(scale_in(Key(2, False)), 480), key="D")
    plain, named = (
        sample(model, 1, beats=24.0, continue_from=path, threads=1, **wanted)[0]
        for wanted in ({}, {"key": "D"})
    )
    assert np.array_equal(plain.roll, named.roll)
    assert plain.key == named.key == estimate_key(plain.roll) == Key(2, False)


def test_primer_notes_are_in_the_wanted_key_and_stay_as_they_are() -> None:
    settings = SampleSettings(primer_notes="D4,F#4,A4", key="D")
    plan = plan_piece(sampling_model(), settings, PlaySettings())
    assert steps_of(plan.primer)[0] == [60, 64, 67]
    assert [note.pitch for note in plan.piece.given] == [62, 66, 69]
    assert plan.shift == 2


# ---- notes on the command line -------------------------------------------------------------------


def test_primer_notes_have_lengths_and_rests() -> None:
    notes, beats = parse_notes("C4:2 E4 r | C4,E4,G4:0.5 r:1.5", velocity=70)
    assert notes == (
        Note(0, 2, 60, 70),
        Note(2, 3, 64, 70),
        *(Note(4, 4.5, pitch, 70) for pitch in (60, 64, 67)),
    )
    assert beats == 6
    assert len(play(primer_notes="C4:2 E4 r C4:0.5 r:1.5").roll) == 12 + 8


@pytest.mark.parametrize(
    "word", ["C4:", "C4:0", "C4:-1", "C4:x", "C4:nan", "C4:inf", "r:", "C4:1:2"]
)
def test_a_wrong_length_is_named(word: str) -> None:
    with pytest.raises(InputError, match=r"^--primer_notes: [^\n]*$") as refused:
        parse_notes(f"E4 {word}")
    assert repr(word) in str(refused.value)


def test_notes_stay_within_midi_when_transposed() -> None:
    pitches = [note.pitch for note in transpose_notes([Note(0, 1, 3), Note(0, 1, 60)], -5)]
    assert pitches == [10, 55]
    pitches = [note.pitch for note in transpose_notes([Note(0, 1, 125), Note(0, 1, 60)], 6)]
    assert pitches == [119, 66]


# ---- scores --------------------------------------------------------------------------------------

ABC = """X:1
T:A jig
M:6/8
L:1/8
Q:3/8=72
K:G
D|G2B d2B|c2A F2D|G3 G2:|
"""

MUSICXML = """<?xml version="1.0"?>
<score-partwise version="4.0"><part-list><score-part id="P1"><part-name>x</part-name></score-part>
</part-list><part id="P1">
<measure number="0" implicit="yes"><attributes><divisions>4</divisions><key><fifths>2</fifths></key>
<time><beats>3</beats><beat-type>4</beat-type></time></attributes>
<direction><sound tempo="84"/></direction>
<note><pitch><step>A</step><octave>4</octave></pitch><duration>4</duration></note></measure>
<measure number="1"><note><pitch><step>D</step><octave>5</octave></pitch><duration>12</duration>
<tie type="start"/></note></measure>
<measure number="2"><note><pitch><step>D</step><octave>5</octave></pitch><duration>4</duration>
<tie type="stop"/></note><note><pitch><step>F</step><alter>1</alter><octave>4</octave></pitch>
<duration>3</duration></note><note><pitch><step>E</step><octave>4</octave></pitch>
<duration>1</duration></note></measure></part></score-partwise>
"""


def test_an_abc_tune_is_read_as_it_sounds(tmp_path: Path) -> None:
    path = tmp_path / "a.abc"
    path.write_text(ABC)
    music = read_score(path)
    assert [note.pitch for note in music.notes[:6]] == [62, 67, 71, 74, 71, 72]
    assert [note.start for note in music.notes[:4]] == [0, 0.5, 1.5, 2]
    assert len(music.notes) == 22, "the repeat is played"
    assert (music.bpm, music.metre, music.key) == (108, Metre(6, 8, 0.5), Key(7, False))


def test_of_a_book_of_tunes_the_first_is_taken_and_that_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "a.abc"
    path.write_text(f"{ABC}\n{ABC.replace('X:1', 'X:2')}")
    assert len(play(continue_from=str(path)).given) == 22
    assert "a file of 2 pieces; only the first is used" in capsys.readouterr().err


def test_musicxml_is_read_with_ties_upbeat_tempo_and_key(tmp_path: Path) -> None:
    path = tmp_path / "a.musicxml"
    path.write_text(MUSICXML)
    music = read_score(path)
    spans = [(note.start, note.end, note.pitch) for note in music.notes]
    assert spans == [(0, 1, 69), (1, 5, 74), (5, 5.75, 66), (5.75, 6, 64)]
    assert (music.bpm, music.metre, music.key) == (84, Metre(3, 4, 1.0), Key(2, False))
    for flag in FLAGS:
        assert play(**{flag: str(path)}).given == music.notes


@pytest.mark.parametrize("name", ["a.musicxml", "a.abc", "a.mid", "missing.xml", "missing.mid"])
def test_a_file_that_can_not_be_read_is_named_with_its_flag(tmp_path: Path, name: str) -> None:
    if name.startswith("a"):
        (tmp_path / name).write_text("no music")
    with pytest.raises(InputError, match=rf"^--harmonize [^\n]*{name}[^\n]*$"):
        play(harmonize=str(tmp_path / name))


def test_music_that_is_too_long_is_refused(tmp_path: Path) -> None:
    path = write_melody(
        tmp_path / "a.mid", [(0, TICKS, 60), (180 * TICKS, 181 * TICKS, 60)], bpm=90
    )
    with pytest.raises(InputError, match="2 minutes long; the limit is 1"):
        read_music(path, 1)


# ---- what flags can't do -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        ({"harmonize": "a.mid", "bars": 4.0}, "--bars: has no effect with --harmonize"),
        ({"melody_over": "a.mid", "seconds": 4.0}, "--seconds: has no effect with --melody_over"),
        ({"include_primer": False}, "--include_primer: has no effect without --primer_notes"),
        ({"primer_beats": 4.0}, "--primer_beats: has no effect without --primer_midi"),
        ({"temperature": 0.0, "num_samples": 3}, "the 3 pieces are alike"),
    ],
)
def test_a_flag_without_effect_is_said(
    tmp_path: Path, wanted: dict[str, Any], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_melody(tmp_path / "a.mid", line([60, 62, 64, 65], 480))
    play(**{name: path if value == "a.mid" else value for name, value in wanted.items()})
    assert words in capsys.readouterr().err


@pytest.mark.parametrize("wanted", [{"temperature": 0.0}, {"bars": 2.0}, {"primer_notes": "C4"}])
def test_nothing_is_said_where_all_is_well(
    wanted: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    play(**wanted)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("text", "number"),
    [("Piano", 0), ("grand piano", 0), ("Guitar", 24), ("violin", 40), ("sax", 64), ("0", 0)],
)
def test_a_part_of_an_instruments_name_is_enough(text: str, number: int) -> None:
    assert parse_program(text) == number


@pytest.mark.parametrize("text", ["4", "0/4", "4/3", "99/4", "3/4/4", "", "waltz"])
def test_a_wrong_metre_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a time signature"):
        parse_metre(text)
    if text:
        with pytest.raises(InputError, match=r"^--metre [^\n]*$"):
            play(metre=text)
