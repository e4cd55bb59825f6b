"""What tunes start from: chords by name, MIDI files, and the key they are moved to."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from files import InputError
from helpers import K, roll_from, steps_of
from keys import move
from midi import roll_to_midi
from prompt import parse_chords, read_part, read_prompt
from settings import SampleSettings

# I, IV, V and I of G major, two frames each.
CADENCE = roll_from(
    *[{55, 59, 62, 67}] * 2,
    *[{55, 60, 64, 67}] * 2,
    *[{54, 57, 62, 69}] * 2,
    *[{55, 59, 62, 67}] * 2,
)


def prompt_of(dataset: str = "nottingham", frame_beats: float = 0.5, **wanted: Any) -> Any:
    return read_prompt(SampleSettings(**wanted), frame_beats, dataset)


def write_midi(path: Path, roll: np.ndarray, frame_beats: float = 0.5) -> str:
    roll_to_midi(roll, frame_beats).write(str(path))
    return str(path)


# ---- chords --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "notes"),
    [
        ("C4", [[60]]),
        ("A0 C8", [[21], [108]]),
        ("60", [[60]]),
        ("C4,E4,G4", [[60, 64, 67]]),
        ("C4,E4,G4 67", [[60, 64, 67], [67]]),
        ("  F#3   Bb5 ", [[54], [82]]),
        ("f#3 bb5 Db4,C#4", [[54], [82], [61]]),
        ("Cb4 B#3", [[59], [60]]),
        ("21 108 21,108", [[21], [108], [21, 108]]),
        ("60,60", [[60]]),
        ("60, 64 ,67  72", [[60, 64, 67], [72]]),
        ("", []),
    ],
)
def test_chords_are_read(text: str, notes: list[list[int]]) -> None:
    roll = parse_chords(text, 1)
    assert roll.dtype == bool
    assert roll.shape == (len(notes), K)
    assert steps_of(roll) == notes


def test_chord_lasts_its_frames() -> None:
    assert steps_of(parse_chords("C4 D4,F4", 3)) == [[60]] * 3 + [[62, 65]] * 3


@pytest.mark.parametrize(
    "word",
    ["H4", "C", "4C", "-1", "+60", "60.5", "C##4", "C4;E4", "C4-E4", "²", "x", "nan", "C 4"],
)
def test_word_that_is_no_note_is_named(word: str) -> None:
    with pytest.raises(InputError, match=r"^--primer_notes: [^\n]*$") as refused:
        parse_chords(f"C4,E4 {word}", 2)
    assert repr(word.split()[0]) in str(refused.value)


@pytest.mark.parametrize(
    "word", ["20", "109", "0", "4", "128", "G#0", "C#8", "C-1", "G9", "9" * 30]
)
def test_note_off_the_piano_is_named(word: str) -> None:
    with pytest.raises(InputError, match=r"^--primer_notes: [^\n]*88 keys[^\n]*$") as refused:
        parse_chords(word, 2)
    assert repr(word) in str(refused.value)


@settings(deadline=None, derandomize=True, max_examples=50)
@given(st.lists(st.sets(st.integers(21, 108), min_size=1, max_size=5), max_size=5))
def test_names_and_numbers_say_the_same(chords: list[set[int]]) -> None:
    names = ["C", "C#", "D", "Eb", "E", "F", "F#", "G", "Ab", "A", "Bb", "B"]

    def name(note: int) -> str:
        return f"{names[note % 12]}{note // 12 - 1}"

    by_name = " ".join(",".join(map(name, chord)) for chord in chords)
    by_number = " ".join(",".join(map(str, chord)) for chord in chords)
    assert steps_of(parse_chords(by_name, 1)) == [sorted(chord) for chord in chords]
    assert steps_of(parse_chords(by_number, 1)) == [sorted(chord) for chord in chords]


@pytest.mark.parametrize(
    ("frame_beats", "frames"), [(0.5, 2), (0.25, 4), (1.0, 1), (4.0, 1), (1 / 3, 3)]
)
def test_primer_chord_lasts_one_beat_where_it_was_written(frame_beats: float, frames: int) -> None:
    roll, back = prompt_of(frame_beats=frame_beats, primer_notes="D4 A4")
    assert steps_of(roll) == [[62]] * frames + [[69]] * frames
    assert back == 0


def test_without_a_primer_it_is_empty() -> None:
    roll, back = prompt_of()
    assert roll.shape == (0, K)
    assert back == 0


# ---- MIDI files ----------------------------------------------------------------------------------


def test_a_midi_file_is_moved_to_the_key_of_training_and_the_result_back(tmp_path: Path) -> None:
    path = write_midi(tmp_path / "g.mid", CADENCE)
    roll, back = prompt_of(primer_midi=path)
    assert steps_of(roll)[0] == [60, 64, 67, 72]  # from G up to C: the shorter way
    assert back == -5
    assert np.array_equal(move(roll, back), CADENCE)


@pytest.mark.parametrize("wanted", [{"match_key": False}, {"dataset": "chorales"}])
def test_it_stays_where_it_is_if_told_so_or_if_training_had_many_keys(
    tmp_path: Path, wanted: dict[str, Any]
) -> None:
    path = write_midi(tmp_path / "g.mid", CADENCE)
    roll, back = prompt_of(primer_midi=path, **wanted)
    assert np.array_equal(roll, CADENCE)
    assert back == 0


@pytest.mark.parametrize(("frame_beats", "beats", "frames"), [(0.5, 2, 4), (0.5, 99, 8), (1, 1, 1)])
def test_as_many_beats_of_it_as_are_wanted(
    tmp_path: Path, frame_beats: float, beats: float, frames: int
) -> None:
    path = write_midi(tmp_path / "g.mid", CADENCE, frame_beats)
    assert (
        len(prompt_of(frame_beats=frame_beats, primer_midi=path, primer_beats=beats).roll) == frames
    )


@pytest.mark.parametrize(
    ("key", "semitones"), [("C", 0), ("G", -5), ("F#", 6), ("Am", -3), ("Db", 1)]
)
def test_key_moves_the_result_from_where_the_model_plays(key: str, semitones: int) -> None:
    assert prompt_of(key=key).back == semitones


# ---- what can't be used --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        ({"key": "H"}, ["--key", "'H'"]),
        ({"key": "G", "dataset": "chorales"}, ["--key", "chorales"]),
        ({"primer_notes": "C4", "primer_midi": "x.mid"}, ["--primer_notes", "--primer_midi"]),
        ({"primer_midi": "nowhere.mid"}, ["--primer_midi", "nowhere.mid"]),
    ],
)
def test_what_can_not_be_used_is_named_in_one_line(
    wanted: dict[str, Any], words: list[str]
) -> None:
    with pytest.raises(InputError) as refused:
        prompt_of(**wanted)
    assert all(word in str(refused.value) for word in words)
    assert "\n" not in str(refused.value)


def test_a_part_that_is_no_midi_is_named_with_its_flag(tmp_path: Path) -> None:
    path = tmp_path / "no.mid"
    path.write_bytes(b"no MIDI")
    with pytest.raises(InputError, match=r"^--harmonize .*no.mid"):
        read_part("--harmonize", path, 0.5)
