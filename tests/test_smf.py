"""MIDI files as people have them: each kind that was read wrongly or refused, and what is right."""

import math
import struct
from collections import defaultdict
from itertools import pairwise
from pathlib import Path

import mido
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers import roll_from, steps_of
from helpers_midi import SCALE, TICKS, Event, line, meta, number, off, on, smf, track, write_midi
from pianolstm.files import InputError
from pianolstm.midi import MidiAccount, ReadOptions, read_midi, read_notes, roll_to_midi
from pianolstm.smf import MidiError, read_smf

PLAIN = [[pitch] for pitch in SCALE for _ in range(2)]  # frames of half a beat


def read_bytes(folder: Path, data: bytes, **options: float) -> tuple[list[list[int]], MidiAccount]:
    """Return the pitches of each frame of a file, and its account."""
    path = folder / "piece.mid"
    path.write_bytes(data)
    roll, account = read_midi(path, **options)
    return steps_of(roll), account


def sounding(steps: list[list[int]], pitch: int) -> list[int]:
    """Return the frames in which a pitch sounds."""
    return [frame for frame, pitches in enumerate(steps) if pitch in pitches]


def refusal_of(folder: Path, data: bytes) -> str:
    path = folder / "piece.mid"
    path.write_bytes(data)
    with pytest.raises(InputError) as caught:
        read_midi(path)
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message
    return message


# ---- a cell is set while its pitch sounds --------------------------------------------------------


@pytest.mark.parametrize(
    ("pitch", "channel", "ticks"), [(60, 0, 480), (21, 3, 96), (108, 15, 24), (47, 10, 10_080)]
)
@pytest.mark.parametrize(
    ("strikes", "frames"),
    [
        ([(0, 1), (0, 1), (1, 0), (4, 0)], [(0, 8)]),  # two voices, one beat and four
        ([(0, 1), (1, 1), (2, 0), (3, 0)], [(0, 6)]),  # they overlap
        ([(0, 1), (0, 1), (0, 1), (1, 0), (2, 0), (3, 0)], [(0, 6)]),
        ([(0, 1), (2, 1), (2, 0), (4, 0)], [(0, 8)]),  # the next on before the off, at one tick
        ([(0, 1), (1, 0), (2, 1), (3, 0)], [(0, 2), (4, 6)]),  # apart
    ],
)
def test_an_off_ends_the_oldest_note_where_every_on_has_an_off(
    tmp_path: Path,
    pitch: int,
    channel: int,
    ticks: int,
    strikes: list[tuple[int, int]],
    frames: list[tuple[int, int]],
) -> None:
    events: list[Event] = []
    now = 0
    for beat, is_on in strikes:
        event = on(pitch, channel) if is_on else off(pitch, channel)
        events.append(((beat - now) * ticks, event))
        now = beat
    steps, account = read_bytes(tmp_path, smf(track(*events), division=ticks))
    assert sounding(steps, pitch) == [f for first, last in frames for f in range(first, last)]
    assert account == MidiAccount(notes=len(strikes) // 2)


def test_voices_in_two_tracks_or_channels_do_not_end_one_another(tmp_path: Path) -> None:
    short, long = [(0, on(60)), (TICKS, off(60))], [(0, on(60)), (4 * TICKS, off(60))]
    for_channels = [(0, on(60)), (0, on(60, 1)), (TICKS, off(60)), (3 * TICKS, off(60, 1))]
    for data in (smf(track(*short), track(*long), kind=1), smf(track(*for_channels))):
        assert sounding(read_bytes(tmp_path, data)[0], 60) == list(range(8))


@pytest.mark.parametrize("pitch", [33, 60, 96])
def test_where_an_off_is_missing_an_off_ends_all_and_it_is_reported(
    tmp_path: Path, pitch: int
) -> None:
    events = [(0, on(pitch)), (TICKS, on(pitch)), (TICKS, off(pitch)), *line([50], TICKS)]
    steps, account = read_bytes(tmp_path, smf(track(*events)))
    assert sounding(steps, pitch) == [0, 1, 2, 3]
    assert account == MidiAccount(notes=3, unbalanced=1)
    assert "1 note more on than off" in account.remarks(ReadOptions())[0]


def test_where_an_off_is_missing_a_note_that_starts_with_an_off_goes_on(tmp_path: Path) -> None:
    events = [(0, on(60)), (TICKS, on(60)), (0, off(60)), (TICKS, off(60)), (TICKS, on(60))]
    steps, account = read_bytes(tmp_path, smf(track(*events)))
    assert sounding(steps, 60) == [0, 1, 2, 3]
    assert (account.notes, account.hanging) == (2, 1)


def test_offs_of_silent_pitches_do_not_count(tmp_path: Path) -> None:
    voices = [(0, on(60)), (0, on(60)), (TICKS, off(60)), (3 * TICKS, off(60))]
    all_off = [(0, off(pitch)) for pitch in range(128)]
    steps, account = read_bytes(tmp_path, smf(track(*all_off, *voices, *all_off)))
    assert sounding(steps, 60) == list(range(8))
    assert account == MidiAccount(notes=2)


def test_a_note_that_never_ends_is_left_out_and_reported(tmp_path: Path) -> None:
    events = [(0, on(60)), (TICKS, off(60)), (0, on(64)), (0, on(67)), (4 * TICKS, meta(6))]
    steps, account = read_bytes(tmp_path, smf(track(*events)))
    assert steps == [[60], [60]]
    assert account == MidiAccount(notes=1, hanging=2)
    assert account.remarks(ReadOptions()) == ["left out: 2 notes without an end"]


def test_a_grace_note_written_as_off_and_on_takes_no_other_note_along(tmp_path: Path) -> None:
    # music21 writes notes of no length so.
    events = [(0, off(60)), (0, on(60)), *line([62, 60, 64, 60], TICKS)]
    steps, account = read_bytes(tmp_path, smf(track(*events)))
    assert sounding(steps, 60) == [2, 3, 6, 7]
    assert account == MidiAccount(notes=5, too_short=1)


@given(
    notes=st.lists(st.tuples(st.integers(0, 16), st.integers(1, 12)), min_size=1, max_size=8),
    seed=st.integers(0, 99),
)
def test_a_pitch_sounds_while_more_notes_have_started_than_ended(
    tmp_path: Path, notes: list[tuple[int, int]], seed: int
) -> None:
    # The order of events at one tick is any in which a note does not end before it starts.
    shuffled = np.random.default_rng(seed).permutation(2 * len(notes)).tolist()
    strikes = [(start, True) for start, _ in notes] + [(s + length, False) for s, length in notes]
    strikes = sorted((strikes[i] for i in shuffled), key=lambda strike: strike[0])
    events, now = [], 0
    for time, is_on in strikes:
        events.append(((time - now) * 240, on(60) if is_on else off(60)))
        now = time
    steps, _ = read_bytes(tmp_path, smf(track(*events)))
    wanted = {frame for start, length in notes for frame in range(start, start + length)}
    assert set(sounding(steps, 60)) == wanted


# ---- what is not about notes never costs a file --------------------------------------------------


def wrapped(data: bytes, *chunks: bytes) -> bytes:
    """Return a file in a RIFF wrapper, as .rmi files are, after other RIFF chunks."""
    body = b"RMID" + b"".join(chunks) + b"data" + struct.pack("<I", len(data)) + data
    return b"RIFF" + struct.pack("<I", len(body)) + body


NOTES = track(*line(SCALE))
ODD = {
    "key of 18 flats": smf(track((0, meta(0x59, 0xEE, 1)), *line(SCALE))),
    "key of mode 7": smf(track((0, meta(0x59, 0, 7)), *line(SCALE))),
    "key of one byte": smf(track((0, meta(0x59, 3)), *line(SCALE))),
    "metre of nothing": smf(track((0, meta(0x58, 0, 200)), *line(SCALE))),
    "tempo 0": smf(track((0, meta(0x51, 0, 0, 0)), *line(SCALE))),
    "controller 226": smf(track((0, bytes((0xB0, 10, 226))), *line(SCALE))),
    "program 200": smf(track((0, bytes((0xC0, 200))), *line(SCALE))),
    "bend 255": smf(track((0, bytes((0xE0, 255, 255))), *line(SCALE))),
    "velocity 200": smf(track((0, on(60, velocity=200)), (TICKS, off(60)), *line(SCALE[1:]))),
    "unknown chunk before": smf(b"XFIH\0\0\0\4abcd", NOTES, kind=1, count=1),
    "unknown chunk behind": smf(NOTES, b"XFKM\0\0\0\4abcd", kind=1, count=1),
    "unknown chunk cut off": smf(NOTES, b"XFKM\0\0\0\4ab", kind=1, count=1),
    "bytes behind": smf(NOTES) + bytes(100),
    "RIFF": wrapped(smf(NOTES)),
    "RIFF with a title": wrapped(smf(NOTES), b"LIST\4\0\0\0INFO"),
    "MacBinary": bytes(128) + smf(NOTES),
    "too few tracks promised": smf(track((0, meta(3))), NOTES, kind=1, count=1),
    "too many tracks promised": smf(NOTES, kind=1, count=9),
    "no tracks promised": smf(NOTES, kind=0, count=0),
    "longer header": b"MThd" + struct.pack(">IHHHH", 8, 0, 1, TICKS, 7) + NOTES,
    "type 7": smf(NOTES, kind=7),
    "marker far behind": smf(track(*line(SCALE), (TICKS * 100_000, meta(6)))),
    "tempo far behind": smf(track(*line(SCALE), (TICKS * 100_000, meta(0x51, 7, 0, 0)))),
    "system exclusive": smf(track((0, b"\xf0\x03\x01\x02\xf7"), *line(SCALE))),
    "sequencer's own": smf(track((0, meta(0x7F, *range(100))), *line(SCALE))),
    "no end of track": smf(NOTES[:4] + struct.pack(">I", len(NOTES) - 12) + NOTES[8:-4]),
    "length too long": smf(NOTES[:4] + struct.pack(">I", len(NOTES) + 900) + NOTES[8:]),
    "running status": smf(
        track(*[(0 if v else TICKS, (on(p) if p == 60 and v else bytes((p, v)))) for p in SCALE
                for v in (80, 0)])
    ),
    "running status over a meta event": smf(
        track((0, on(60)), (0, meta(1, 65)), (TICKS, bytes((60, 0))), *line(SCALE[1:]))
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", ODD)
def test_what_does_not_concern_notes_costs_no_file(tmp_path: Path, kind: str) -> None:
    steps, account = read_bytes(tmp_path, ODD[kind])
    assert steps == PLAIN
    assert account == MidiAccount(notes=8, missing_tracks=8 * ("too many" in kind))


@pytest.mark.parametrize("too_long", [1, 8, 40, 10_000])
def test_a_length_that_reaches_into_the_next_tracks_costs_none_of_them(
    tmp_path: Path, too_long: int
) -> None:
    voices = [track(*line([pitch] * 2)) for pitch in (60, 64, 67)]
    size = struct.unpack(">I", voices[0][4:8])[0]
    longer = voices[0][:4] + struct.pack(">I", size + too_long) + voices[0][8:]
    steps, account = read_bytes(tmp_path, smf(longer, *voices[1:], kind=1))
    assert steps == [[60, 64, 67]] * 4
    assert account.notes == 6 and not account.remarks(ReadOptions())


@pytest.mark.parametrize("division", [1, 24, 96, 120, 960, 10_080, 32_767])
def test_any_number_of_ticks_is_read(tmp_path: Path, division: int) -> None:
    data = smf(track(*line(SCALE * 130, division)), division=division)
    assert read_bytes(tmp_path, data)[0] == PLAIN * 130


def test_each_track_of_a_type_2_file_is_a_piece_of_its_own(tmp_path: Path) -> None:
    data = smf(track((0, meta(3))), track(*line(SCALE[:4])), track(*line(SCALE[4:])), kind=2)
    pieces = read_smf(data)
    assert [[note.pitch for note in piece.notes] for piece in pieces] == [
        [*SCALE[:4]],
        [*SCALE[4:]],
    ]
    steps, account = read_bytes(tmp_path, data)
    assert steps == PLAIN[:8]
    assert account.remarks(ReadOptions()) == [
        "a file of 2 pieces (MIDI type 2); only the first is used"
    ]


@pytest.mark.parametrize(("division", "rate"), [(0xE728, 25), (0xE250, 30), (0xE804, 24)])
def test_time_in_smpte_frames_is_refused_by_its_name(
    tmp_path: Path, division: int, rate: int
) -> None:
    message = refusal_of(tmp_path, smf(NOTES, division=division))
    assert f"SMPTE frames ({rate} a second), not in beats" in message


DAMAGED = {
    "not a MIDI file": b"RIFF\0\0\0\0WAVEfmt ",
    "ends within its header": smf(NOTES)[:13],
    "0 ticks per beat": smf(NOTES, division=0),
    "has no tracks": smf(),
    "track 1 of 1 is cut off": smf(NOTES)[:-6],
    "track 2 of 2 is cut off": smf(NOTES, NOTES, kind=1)[:-9],
    "no event at byte 1": smf(track((0, b"\x40\x40"))),
    "a number of more than 4 bytes": smf(track((0, b""))[:8] + b"\xff" * 4),
    "it has no notes": smf(track((0, meta(3)))),
    "drums only": smf(track(*line((35, 38), channel=9))),
    "no note within the 88 pitches": smf(track(*line((12, 120)))),
    "none of its 1 note ever ends": smf(track((0, on(60)))),
    "it has no bytes": b"",
}


@pytest.mark.parametrize("words", DAMAGED)
def test_each_refusal_has_words_of_its_own(tmp_path: Path, words: str) -> None:
    assert words in refusal_of(tmp_path, DAMAGED[words])


def test_a_file_that_cannot_be_opened_is_refused(tmp_path: Path) -> None:
    (tmp_path / "link.mid").symlink_to("nowhere.mid")
    for name, words in (("link.mid", "link to a file that is missing"), ("no.mid", "no such file")):
        with pytest.raises(InputError, match=words):
            read_midi(tmp_path / name)
    with pytest.raises(InputError, match="a folder"):
        read_midi(tmp_path)


@given(data=st.binary(max_size=60))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    body = b"MTrk" + struct.pack(">I", len(data)) + data
    for whole in (data, smf(body), smf(track((0, data)))):
        try:
            read_smf(whole)
        except MidiError as error:
            assert "\n" not in str(error)


# ---- short notes ---------------------------------------------------------------------------------


@pytest.mark.parametrize("pitches", [SCALE, (21, 108, 50, 51)])
@pytest.mark.parametrize("division", [48, 480, 960])
def test_staccato_notes_are_kept_for_a_frame_by_min_frames(
    tmp_path: Path, pitches: tuple[int, ...], division: int
) -> None:
    half, length = division // 2, division // 5
    events = [e for p in pitches for e in ((0, on(p)), (length, off(p)), (half - length, meta(6)))]
    data = smf(track(*events), division=division)
    message = refusal_of(tmp_path, data)
    assert "100 % of the notes" in message
    assert "--frame_beats 0.25" in message
    assert "--min_frames 1" in message
    steps, account = read_bytes(tmp_path, data, min_frames=1)
    assert steps == [[pitch] for pitch in pitches]
    assert account.too_short == 0


def test_sixteenths_that_vanish_are_reported_as_a_share_with_the_cure(tmp_path: Path) -> None:
    data = smf(track(*line([pitch for pitch in SCALE for _ in range(2)], TICKS // 4)))
    steps, account = read_bytes(tmp_path, data)
    assert steps == [[pitch] for pitch in SCALE]
    (remark,) = account.remarks(ReadOptions())
    assert remark.startswith("50 % of the notes (8 of 16) are too short")
    assert "--frame_beats 0.25 or --min_frames 1" in remark
    steps, account = read_bytes(tmp_path, data, frame_beats=0.25)
    assert steps == PLAIN
    assert account == MidiAccount(notes=16)


def test_a_few_short_notes_are_counted_without_a_cure(tmp_path: Path) -> None:
    events = [*line(SCALE * 2), (0, on(50)), (9, off(50))]
    assert read_bytes(tmp_path, smf(track(*events)))[1].remarks(ReadOptions()) == [
        "left out: 1 note too short for a frame"
    ]


@pytest.mark.parametrize(
    ("start", "end", "min_frames", "frames"),
    [
        (250, 290, 1, [1]),  # starts in frame 1, and rounds to no frame
        (130, 200, 1, [0]),  # most of it sounds in frame 0, though its start rounds to 1
        (230, 300, 1, [1]),  # most of it sounds in frame 1: a note struck too early
        (240, 480, 1, [1]),  # a frame already
        (240, 480, 3, [1, 2, 3]),
        (250, 290, 2, [1, 2]),
        (240, 960, 2, [1, 2, 3]),
    ],
)
def test_min_frames_is_the_shortest_note(
    tmp_path: Path, start: int, end: int, min_frames: int, frames: list[int]
) -> None:
    data = smf(track((start, on(60)), (end - start, off(60)), (0, on(40)), (TICKS * 4, off(40))))
    steps, account = read_bytes(tmp_path, data, min_frames=min_frames)
    assert sounding(steps, 60) == frames
    assert account.too_short == 0


# ---- free performances, seconds, pedal -----------------------------------------------------------


def performance(spread: float, notes: int = 400, seed: int = 5) -> bytes:
    """Return a file of onsets on 16ths, each early or late by `spread` beats on average."""
    random = np.random.default_rng(seed)
    beats = np.sort(np.arange(notes) / 4 + random.normal(0, spread, notes) + 1)
    ticks = np.diff(np.round(beats * TICKS).astype(int), prepend=0).tolist()
    events: list[Event] = []
    for index, delta in enumerate(ticks):
        pitch = 40 + index % 40
        events += [(max(delta - 5, 0), on(pitch)), (5, off(pitch))]
    return smf(track(*events))


def test_a_free_performance_is_reported_with_the_flag_for_it(tmp_path: Path) -> None:
    _, account = read_bytes(tmp_path, performance(1.0), min_frames=1)
    (remark,) = account.remarks(ReadOptions())
    assert "do not sit on the beats" in remark
    assert "--frame_seconds" in remark
    assert account.remarks(ReadOptions(frame_seconds=0.1)) == []


@pytest.mark.parametrize("spread", [0.0, 0.01, 0.03])
def test_playing_to_a_click_is_no_free_performance(tmp_path: Path, spread: float) -> None:
    assert read_bytes(tmp_path, performance(spread), min_frames=1)[1].free == 0


@pytest.mark.parametrize("divisions", [3, 5, 8, 12, 24])
def test_tuplets_and_swing_are_no_free_performance(tmp_path: Path, divisions: int) -> None:
    ticks = 480 // divisions
    assert read_bytes(tmp_path, smf(track(*line(SCALE * 20, ticks))), min_frames=1)[1].free == 0
    swing = [e for p in SCALE * 9 for e in ((0, on(p)), (310, off(p)), (0, on(p)), (170, off(p)))]
    assert read_bytes(tmp_path, smf(track(*swing)), min_frames=1)[1].free == 0


def test_frames_of_seconds_follow_every_tempo(tmp_path: Path) -> None:
    sixty, half = meta(0x51, 0x0F, 0x42, 0x40), meta(0x51, 0x07, 0xA1, 0x20)  # a second, a half
    events = [(0, sixty), *line([60]), (0, half), *line([62, 64]), (0, sixty), *line([65])]
    steps, _ = read_bytes(tmp_path, smf(track(*events)), frame_seconds=0.25)
    assert steps == [[60]] * 4 + [[62]] * 2 + [[64]] * 2 + [[65]] * 4
    assert steps_of(read_midi(tmp_path / "piece.mid", 0.5)[0]) == [
        [pitch] for pitch in (60, 62, 64, 65) for _ in range(2)
    ]


def test_a_roll_of_seconds_survives_midi_at_120_beats_a_minute(tmp_path: Path) -> None:
    roll = np.random.default_rng(0).random((600, 88)) < 0.03
    roll_to_midi(roll, frame_beats=2 * 0.06, bpm=120.0).write(str(tmp_path / "piece.mid"))
    result, _ = read_midi(tmp_path / "piece.mid", frame_seconds=0.06)
    np.testing.assert_array_equal(result, roll)


def pedal(value: int, channel: int = 0) -> bytes:
    return bytes((0xB0 | channel, 64, value))


@pytest.mark.parametrize(
    ("events", "frames"),
    [
        ([(0, on(60)), (0, pedal(127)), (TICKS, off(60)), (TICKS, pedal(0))], 4),
        ([(0, on(60)), (0, pedal(63)), (TICKS, off(60)), (TICKS, pedal(0))], 2),  # not down
        ([(0, on(60)), (0, pedal(127, 3)), (TICKS, off(60)), (TICKS, pedal(0, 3))], 2),
        ([(0, pedal(90)), (0, on(60)), (9, pedal(0)), (TICKS - 9, off(60))], 2),  # up before
        ([(0, on(60)), (TICKS, off(60)), (9, pedal(127)), (TICKS, pedal(0))], 2),  # too late
        ([(0, pedal(64)), (0, on(60)), (TICKS, off(60)), (0, on(40)), (TICKS, off(40))], 4),
        ([(0, pedal(99)), (0, on(60)), (TICKS, off(60)), (0, pedal(80)), (TICKS, pedal(2))], 4),
    ],
)
def test_sustain_lets_the_pedal_hold_notes(
    tmp_path: Path, events: list[Event], frames: int
) -> None:
    path = write_midi(tmp_path / "piece.mid", events)
    assert sounding(steps_of(read_midi(path, 0.5, sustain=True)[0]), 60) == list(range(frames))
    assert sounding(steps_of(read_midi(path, 0.5)[0]), 60) == [0, 1]


# ---- notes as they are ---------------------------------------------------------------------------


def test_read_notes_keeps_exact_times_and_velocities(tmp_path: Path) -> None:
    melody = [(20, on(60, velocity=1)), (460, off(60)), (7, on(127, velocity=127)), (1, off(127))]
    bass = [(0, on(36)), (960, off(36)), (0, on(60)), (3, off(60))]
    path = write_midi(tmp_path / "piece.mid", melody, bass, line((35, 38), channel=9))
    assert read_notes(path).notes == (
        (0.0, 2.0, 36, 80),
        (20 / 480, 1.0, 60, 1),
        (487 / 480, 488 / 480, 127, 127),
        (2.0, 963 / 480, 60, 80),
    )


@pytest.mark.parametrize("bpm", [20, 60, 90, 97, 108, 133.333, 240])
def test_read_notes_gives_the_first_tempo(tmp_path: Path, bpm: float) -> None:
    first = meta(0x51, *struct.pack(">I", round(6e7 / bpm))[1:])
    then = meta(0x51, 7, 0, 0)
    path = write_midi(tmp_path / "piece.mid", [(0, first), (TICKS, then)], line(SCALE))
    assert read_notes(path).bpm == pytest.approx(bpm, abs=0.001)


@pytest.mark.parametrize(
    ("sharps", "minor", "name"),
    [(0, 0, "C"), (2, 0, "D"), (-3, 0, "Eb"), (7, 0, "Db"), (0, 1, "Am"), (-5, 1, "Bbm")],
)
def test_read_notes_gives_the_key_signature(
    tmp_path: Path, sharps: int, minor: int, name: str
) -> None:
    path = write_midi(tmp_path / "piece.mid", [(0, meta(0x59, sharps % 256, minor))], line(SCALE))
    assert str(read_notes(path).key) == name


def metre(numerator: int, denominator: int) -> bytes:
    return meta(0x58, numerator, denominator.bit_length() - 1, 24, 8)


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        ([], None),
        ([(0, (3, 4))], (3, 4, 0.0)),
        ([(0, (6, 8)), (1440, (2, 4))], (6, 8, 0.0)),  # a change after a whole bar
        ([(0, (1, 8)), (240, (6, 8))], (6, 8, 0.5)),  # an upbeat of an eighth
        ([(0, (1, 4)), (480, (3, 4))], (3, 4, 1.0)),
        ([(0, (1, 4)), (4800, (3, 4))], (1, 4, 0.0)),  # ten bars of 1/4 are no upbeat
        ([(0, (4, 4)), (0, (2, 2))], (2, 2, 0.0)),
    ],
)
def test_read_notes_gives_the_metre_and_its_upbeat(
    tmp_path: Path, changes: list[tuple[int, tuple[int, int]]], wanted: tuple[int, int, float]
) -> None:
    events, now = [], 0
    for tick, (numerator, denominator) in changes:
        events.append((tick - now, metre(numerator, denominator)))
        now = tick
    path = write_midi(tmp_path / "piece.mid", events, line(SCALE))
    assert read_notes(path).metre == wanted


def test_read_notes_by_seconds_counts_two_beats_a_second(tmp_path: Path) -> None:
    sixty = meta(0x51, 0x0F, 0x42, 0x40)
    path = write_midi(tmp_path / "piece.mid", [(0, sixty), *line([60, 62])])
    music = read_notes(path, by_seconds=True)
    assert [(note.start, note.end) for note in music.notes] == [(0.0, 2.0), (2.0, 4.0)]
    assert music.bpm == 120.0
    assert read_notes(path).bpm == 60.0


# ---- an independent reader -----------------------------------------------------------------------


def cells_by_counting(path: Path, frame_beats: float) -> set[tuple[int, int]]:
    """Return (frame, MIDI number) of the cells of a file, by mido and by counting.

    A pitch of a track and channel sounds from one tick to the next while more notes have started
    than ended, whatever the order at one tick.
    """
    file, cells = mido.MidiFile(path, clip=True), set()
    for messages in file.tracks:
        now, change = 0, defaultdict(lambda: defaultdict(int))
        for message in messages:
            now += message.time
            if message.type in ("note_on", "note_off") and message.channel != 9:
                is_on = message.type == "note_on" and message.velocity > 0
                change[message.channel, message.note][now] += 1 if is_on else -1
        for (_, pitch), steps in change.items():
            ticks, count = sorted(steps), 0
            for tick, after in pairwise(ticks):
                count += steps[tick]
                if count > 0:
                    frames = [
                        math.floor(t / file.ticks_per_beat / frame_beats + 0.5)
                        for t in (tick, after)
                    ]
                    cells |= {(frame, pitch) for frame in range(*frames)}
    return {(frame, pitch) for frame, pitch in cells if 21 <= pitch <= 108}


def assert_no_cell_lost(path: Path) -> None:
    roll, _ = read_midi(path, 0.5)
    ours = {(int(frame), int(column) + 21) for frame, column in np.argwhere(roll)}
    assert ours == cells_by_counting(path, 0.5)


def test_no_cell_of_nottingham_is_lost(data_dir: Path) -> None:
    files = sorted((data_dir / "nottingham-midi").rglob("*.mid"))
    if not files:
        pytest.skip("PIANO_DATA_DIR has no nottingham-midi/")
    for path in files[::20]:
        assert_no_cell_lost(path)


@pytest.mark.parametrize(
    "name", ["ryansMammoth/RumAndOnionsJig", "bach/bwv66.6", "ryansMammoth/CharterOakReel"]
)
def test_no_cell_of_the_corpus_of_music21_is_lost(tmp_path: Path, name: str) -> None:
    from music21 import corpus

    path = tmp_path / "piece.mid"
    corpus.parse(name).write("midi", str(path))
    assert_no_cell_lost(path)


def test_the_helper_of_the_tests_reads_a_plain_file(tmp_path: Path) -> None:
    path = write_midi(tmp_path / "piece.mid", line((60, 62)))
    assert cells_by_counting(path, 0.5) == {(0, 60), (1, 60), (2, 62), (3, 62)}
    np.testing.assert_array_equal(read_midi(path)[0], roll_from({60}, {60}, {62}, {62}))
    assert number(240) == b"\x81\x70"
