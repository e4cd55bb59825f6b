"""MIDI to roll and back. mido, which knows nothing of rolls, writes and reads the files."""

from collections import Counter
from pathlib import Path

import mido
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from helpers import one_line_naming, roll_from, steps_of
from pianolstm import midi
from pianolstm.files import InputError
from pianolstm.inputs.formats import read
from pianolstm.midi import MidiAccount, parse_program, read_midi, roll_to_midi, roll_to_notes
from pianolstm.rolls import PITCHES

EIGHTH = 240  # ticks, half a beat of 480
FRAME_BEATS = [0.1, 0.25, 0.3, 1 / 3, 0.5, 1.0, 1.5, 4.0]
Event = tuple[int, mido.Message]  # at this tick


def note(pitch: int, start: int, end: int, channel: int = 0) -> list[Event]:
    return [
        (start, mido.Message("note_on", note=pitch, velocity=64, channel=channel)),
        (end, mido.Message("note_off", note=pitch, channel=channel)),
    ]


def tempo(tick: int, bpm: float) -> list[Event]:
    return [(tick, mido.MetaMessage("set_tempo", tempo=mido.bpm2tempo(bpm)))]


def write_midi(path: Path, *tracks: list[Event], ticks_per_beat: int = 480) -> Path:
    """Write tracks of (tick, message); at one tick, notes end before others start."""
    file = mido.MidiFile(ticks_per_beat=ticks_per_beat)
    for events in tracks:
        track, now = mido.MidiTrack(), 0
        for tick, message in sorted(events, key=lambda event: (event[0], event[1].type)):
            track.append(message.copy(time=tick - now))
            now = tick
        file.tracks.append(track)
    file.save(path)
    return path


def notes_of(path: Path) -> list[tuple[int, int, int, int]]:
    """Return (MIDI number, first tick, last tick, velocity) of each note of a file, by mido."""
    notes = []
    for track in mido.MidiFile(path).tracks:
        now, sounding = 0, {}
        for message in track:
            now += message.time
            if message.type == "note_on" and message.velocity > 0:
                assert message.note not in sounding
                sounding[message.note] = (now, message.velocity)
            elif message.type in ("note_on", "note_off"):
                start, velocity = sounding.pop(message.note)
                notes.append((message.note, start, now, velocity))
        assert not sounding
    return sorted(notes)


# ---- roll -> MIDI -> roll ------------------------------------------------------------------------


@st.composite
def rolls(draw: st.DrawFn) -> np.ndarray:
    """Return rolls with held notes, and silence before and after them."""
    random = np.random.default_rng(draw(st.integers(0, 10**6)))
    density = draw(st.sampled_from([0.01, 0.1, 0.5]))
    cells = random.random((draw(st.integers(1, 8)), PITCHES)) < density
    held = np.repeat(cells, draw(st.integers(1, 3)), axis=0)
    before, after = draw(st.integers(0, 3)), draw(st.integers(0, 3))
    return np.pad(held, ((before, after), (0, 0)))


@given(roll=rolls(), frame_beats=st.sampled_from(FRAME_BEATS), bpm=st.floats(10, 1000, width=32))
@example(roll=np.ones((5, PITCHES), dtype=bool), frame_beats=1 / 3, bpm=77.7)
@example(roll=np.eye(PITCHES, dtype=bool), frame_beats=0.25, bpm=77.7)
@example(roll=np.zeros((7, PITCHES), dtype=bool), frame_beats=0.5, bpm=120.0)
@example(roll=np.tile(np.eye(2, PITCHES, dtype=bool), (8, 1)), frame_beats=0.01, bpm=120.0)
@example(roll=np.pad(np.eye(PITCHES, dtype=bool)[::3], ((3, 4), (0, 0))), frame_beats=0.3, bpm=60.5)
@example(roll=np.random.default_rng(0).random((1800, PITCHES)) < 0.04, frame_beats=1 / 3, bpm=77.7)
def test_a_roll_survives_midi_cell_for_cell(
    tmp_path: Path, roll: np.ndarray, frame_beats: float, bpm: float
) -> None:
    path = tmp_path / "a.mid"
    roll_to_midi(roll, frame_beats, bpm).write(str(path))
    result, dropped = read_midi(path, frame_beats)
    assert result.dtype == bool
    np.testing.assert_array_equal(result, roll)
    assert dropped == MidiAccount(notes=len(list(roll_to_notes(roll))), free=dropped.free)


def test_an_hour_at_300_beats_a_minute_becomes_midi() -> None:
    # The longest sample of the settings: 18,000 beats. pretty_midi stops at 20,833.
    roll = np.zeros((4_500, PITCHES), dtype=bool)
    roll[-1, 0] = True
    assert roll_to_midi(roll, 4.0, bpm=300.0).get_end_time() == pytest.approx(3600)


def test_consecutive_frames_of_a_pitch_are_one_note(tmp_path: Path) -> None:
    path = tmp_path / "a.mid"
    roll = roll_from(set(), {60, 64}, {60}, {60, 64}, set(), {108}, {21})
    roll_to_midi(roll, 0.5, velocity=101).write(str(path))
    assert notes_of(path) == [
        (21, 6 * EIGHTH, 7 * EIGHTH, 101),
        (60, 1 * EIGHTH, 4 * EIGHTH, 101),
        (64, 1 * EIGHTH, 2 * EIGHTH, 101),
        (64, 3 * EIGHTH, 4 * EIGHTH, 101),
        (108, 5 * EIGHTH, 6 * EIGHTH, 101),
    ]


@pytest.mark.parametrize(
    ("frame_beats", "ticks"), [(0.3, 144), (1 / 3, 160), (0.1, 48), (0.7, 336)]
)
def test_frames_begin_on_their_exact_ticks(tmp_path: Path, frame_beats: float, ticks: int) -> None:
    path = tmp_path / "a.mid"
    roll_to_midi(np.eye(PITCHES, dtype=bool), frame_beats, bpm=77.7).write(str(path))
    expected = [(21 + t, t * ticks, (t + 1) * ticks, 80) for t in range(PITCHES)]
    assert notes_of(path) == expected


@pytest.mark.parametrize(
    ("velocity", "program", "bpm"), [(1, 0, 10.0), (80, 19, 77.7), (127, 127, 1000.0)]
)
def test_velocity_program_and_tempo_are_written(
    tmp_path: Path, velocity: int, program: int, bpm: float
) -> None:
    path = tmp_path / "a.mid"
    roll_to_midi(roll_from({60}, {62}), 1.0, bpm, velocity, program).write(str(path))
    assert [velocity for *_, velocity in notes_of(path)] == [velocity, velocity]
    messages = {m.type: m for track in mido.MidiFile(path).tracks for m in track}
    assert messages["program_change"].program == program
    assert messages["set_tempo"].tempo == pytest.approx(60_000_000 / bpm, abs=1.01)  # microseconds
    assert mido.MidiFile(path).length == pytest.approx(2 * 60 / bpm, rel=0.01)


def test_the_notes_of_a_roll_are_the_runs_of_each_pitch() -> None:
    roll = roll_from({60, 62}, {60}, set(), {60, 21}, {60, 108})
    assert list(roll_to_notes(roll)) == [(0, 3, 4), (39, 0, 2), (39, 3, 5), (41, 0, 1), (87, 4, 5)]
    assert list(roll_to_notes(roll_from())) == list(roll_to_notes(roll_from(set(), set()))) == []


# ---- MIDI -> roll --------------------------------------------------------------------------------


def test_a_hand_made_file_gives_exactly_this_roll(tmp_path: Path) -> None:
    melody = [
        *note(60, 0, 480),
        *note(64, 480, 720),
        *note(67, 720, 1440),
        *note(20, 0, 240),  # below the piano
        *note(109, 0, 960),  # and above
        *note(109, 960, 970),
        *note(90, 970, 1000),  # a grace note, too short once rounded
    ]
    bass = [*note(21, 0, 960), *note(108, 1200, 1440), *note(36, 240, 480)]
    drums = [*note(40, 0, 1440, channel=9), *note(10, 0, 5, channel=9)]
    path = write_midi(tmp_path / "a.mid", tempo(0, 97), melody, bass, drums)
    roll, dropped = read_midi(path, 0.5)
    assert (roll.dtype, roll.shape) == (bool, (6, 88))
    assert steps_of(roll) == [[21, 60], [21, 36, 60], [21, 64], [21, 67], [67], [67, 108]]
    assert (dropped.out_of_range, dropped.too_short) == (3, 1)


@pytest.mark.parametrize(
    ("start", "end", "frames"),
    [
        (0, 240, [0]),
        (119, 359, [0]),
        (120, 360, [1]),  # half a frame goes up, at the start and at the end
        (119, 360, [0, 1]),
        (121, 599, [1]),
        (240, 600, [1, 2]),
        (0, 120, [0]),
        (0, 119, []),  # too short
        (121, 359, []),
        (480, 599, []),
    ],
)
def test_notes_are_rounded_to_the_nearest_frame_half_up(
    tmp_path: Path, start: int, end: int, frames: list[int]
) -> None:
    path = write_midi(tmp_path / "a.mid", [*note(60, start, end), *note(70, 0, 4 * EIGHTH)])
    roll, dropped = read_midi(path, 0.5)
    assert [t for t, pitches in enumerate(steps_of(roll)) if 60 in pitches] == frames
    assert dropped.too_short == (0 if frames else 1)


@pytest.mark.parametrize(
    ("first", "second"),
    [((0, 480), (480, 960)), ((0, 720), (240, 960)), ((0, 960), (240, 480)), ((0, 960), (0, 960))],
    ids=["touching", "overlapping", "within", "twice"],
)
def test_notes_of_one_pitch_that_touch_or_overlap_become_one(
    tmp_path: Path, first: tuple[int, int], second: tuple[int, int]
) -> None:
    path = write_midi(tmp_path / "a.mid", note(60, *first), note(60, *second))
    roll, dropped = read_midi(path, 0.5)
    assert list(roll_to_notes(roll)) == [(39, 0, 4)]
    assert dropped == MidiAccount(notes=2)


def test_frames_follow_a_change_of_tempo(tmp_path: Path) -> None:
    # A frame is a part of a beat, however long the beat is; the note at tick 480 is held over it.
    times = [*tempo(0, 120), *tempo(600, 61.3), *tempo(1000, 222)]
    melody = [*note(60, 0, 480), *note(64, 480, 1200), *note(67, 1200, 1440)]
    path = write_midi(tmp_path / "a.mid", times, melody)
    assert steps_of(read_midi(path, 0.5)[0]) == [[60], [60], [64], [64], [64], [67]]


@pytest.mark.parametrize("ticks", [24, 220, 960, 10_080])
def test_any_resolution_is_read(tmp_path: Path, ticks: int) -> None:
    melody = [*note(60, 0, ticks), *note(64, ticks, ticks * 3 // 2)]
    path = write_midi(tmp_path / "a.mid", melody, ticks_per_beat=ticks)
    assert steps_of(read_midi(path, 0.5)[0]) == [[60], [60], [64]]


def test_frame_beats_is_the_length_of_a_frame(tmp_path: Path) -> None:
    path = write_midi(tmp_path / "a.mid", [*note(60, 0, 960), *note(62, 960, 1440)])
    assert steps_of(read_midi(path, 1.0)[0]) == [[60], [60], [62]]
    assert steps_of(read_midi(path, 0.25)[0]) == [[60]] * 8 + [[62]] * 4


def test_note_on_with_velocity_0_ends_a_note(tmp_path: Path) -> None:
    events = [
        (0, mido.Message("note_on", note=60, velocity=90)),
        (480, mido.Message("note_on", note=60, velocity=0)),
        (480, mido.Message("note_on", note=62, velocity=90)),
        (720, mido.Message("note_on", note=62, velocity=0)),
    ]
    path = write_midi(tmp_path / "a.mid", events)
    assert steps_of(read_midi(path, 0.5)[0]) == [[60], [60], [62]]


def test_all_instruments_and_channels_but_drums_are_read(tmp_path: Path) -> None:
    organ = [(0, mido.Message("program_change", program=19)), *note(60, 0, 480)]
    path = write_midi(tmp_path / "a.mid", organ, note(64, 240, 480, channel=3))
    assert steps_of(read_midi(path, 0.5)[0]) == [[60], [60, 64]]


def test_silence_before_the_first_note_is_kept(tmp_path: Path) -> None:
    path = write_midi(tmp_path / "a.mid", note(60, 480, 720))
    assert steps_of(read_midi(path, 0.5)[0]) == [[], [], [60]]


# ---- files that can't be used --------------------------------------------------------------------


def assert_refused(path: Path) -> None:
    with pytest.raises(InputError) as caught:
        read_midi(path, 0.5)
    assert one_line_naming(path, caught.value)


@pytest.fixture
def midi_bytes(tmp_path: Path) -> bytes:
    melody = [*note(60, 0, 480), *note(64, 480, 720), *note(67, 720, 1440)]
    path = write_midi(tmp_path / "good.mid", tempo(0, 90), melody, note(48, 0, 1440))
    return path.read_bytes()


def test_a_truncated_file_is_refused(tmp_path: Path, midi_bytes: bytes) -> None:
    path = tmp_path / "cut.mid"
    for size in range(len(midi_bytes)):
        path.write_bytes(midi_bytes[:size])
        try:
            _, account = read_midi(path)
        except InputError as error:
            assert one_line_naming(path, error)
        else:  # whole tracks, but fewer than the header promises
            assert midi_bytes.startswith(b"MTrk", size)
            assert account.missing_tracks == 1


@pytest.mark.parametrize(
    "content",
    [
        b"MThd",
        b"this is a text file\n",
        b"MThd\x00\x00\x00\x06\x00\x01\x00\x00\x01\xe0",  # no tracks
        b"MThd\x00\x00\x00\x06\x00\x01\x00\x01\x00\x00MTrk\x00\x00\x00\x04\x00\xff\x2f\x00",
        bytes(range(256)) * 8,
        None,
    ],
    ids=["4-bytes", "text", "no-tracks", "0-ticks-a-beat", "all-bytes", "missing"],
)
def test_what_is_not_midi_is_refused(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "a.mid"
    if content is not None:
        path.write_bytes(content)
    assert_refused(path)


@pytest.mark.parametrize(
    "events",
    [[], note(60, 0, 240, channel=9), note(20, 0, 240), note(60, 0, 100)],
    ids=["none", "drums", "out-of-range", "too-short"],
)
def test_a_file_without_a_note_for_the_roll_is_refused(tmp_path: Path, events: list[Event]) -> None:
    assert_refused(write_midi(tmp_path / "a.mid", events))


def test_a_file_longer_than_max_minutes_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "long.mid"
    roll_to_midi(roll_from(*[{60}] * (31 * 60)), 2.0).write(str(path))  # a frame lasts a second
    assert len(read_midi(path, 2.0)[0]) == len(read_midi(path, 2.0, max_minutes=32)[0]) == 31 * 60
    with pytest.raises(InputError, match=r"31 minutes long; the limit is 30, or --max_minutes"):
        read_midi(path, 2.0, max_minutes=30)


def test_a_file_above_the_size_limit_is_not_parsed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(midi, "read_smf", lambda _: pytest.fail("parsed"))
    path = tmp_path / "large.mid"
    with path.open("wb") as file:
        file.truncate(midi._MAX_BYTES + 1)
    with pytest.raises(InputError, match=r"8 MB; the limit is 8"):
        read_midi(path, 0.5)


def test_a_roll_of_too_many_frames_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(midi, "_MAX_FRAMES", 3)
    path = write_midi(tmp_path / "a.mid", note(60, 0, 4 * EIGHTH))
    with pytest.raises(InputError, match=r"4 frames; the limit is 3"):
        read_midi(path, 0.5)


@given(data=st.data())
def test_a_damaged_file_gives_a_roll_or_is_refused(
    tmp_path: Path, midi_bytes: bytes, data: st.DataObject
) -> None:
    path, damaged = tmp_path / "a.mid", bytearray(midi_bytes)
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(damaged)
    try:
        roll, dropped = read_midi(path, 4.0)
    except InputError as error:
        assert one_line_naming(path, error)
    else:
        assert roll.shape[1] == 88
        assert dropped.notes >= dropped.too_short + dropped.out_of_range


# ---- the real files ------------------------------------------------------------------------------


def up_to_transposition(roll: np.ndarray) -> tuple[int, bytes]:
    """Return what all transpositions of a roll have in common."""
    columns = np.flatnonzero(roll.any(axis=0))
    return len(roll), np.packbits(roll[:, columns.min() : columns.max() + 1], axis=1).tobytes()


def test_the_midi_files_of_the_benchmark_give_its_rolls(data_dir: Path) -> None:
    # The benchmark transposed its pieces, dropped the first frame, and has 14 pieces whose MIDI
    # differs otherwise.
    files = sorted((data_dir / "nottingham-midi" / "valid").glob("*.mid"))
    if not files:
        pytest.skip("PIANO_DATA_DIR has no nottingham-midi/valid")
    ours = Counter(up_to_transposition(read_midi(path, 0.5)[0][1:]) for path in files)
    rolls = read(data_dir / "Nottingham.mat", 0.5)[0]["valid"]
    theirs = Counter(up_to_transposition(roll) for roll in rolls)
    assert len(files) == len(rolls) == 173
    assert (ours & theirs).total() >= 159


# ---- instruments ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "program"),
    [("0", 0), ("127", 127), ("Church Organ", 19), (" violin ", 40), ("Acoustic Grand Piano", 0)],
)
def test_programs_are_given_by_name_or_number(text: str, program: int) -> None:
    assert parse_program(text) == program


@pytest.mark.parametrize(
    ("text", "words"),
    [("128", "0 to 127"), ("-1", "0 to 127"), ("church", "Church Organ"), ("violine", "Violin")],
)
def test_another_program_is_refused_with_similar_names(text: str, words: str) -> None:
    with pytest.raises(InputError, match=rf"^--program {text}: .*{words}"):
        parse_program(text)
