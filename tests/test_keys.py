"""Keys: their names, finding them, and moving music from one to another."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers import K, roll_from, steps_of
from keys import Key, find_key, move, nearest_shift, parse_key, pitch_classes

SCALE = (0, 2, 4, 5, 7, 9, 11, 12)
MINOR_SCALE = (0, 2, 3, 5, 7, 8, 11, 12)


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("C", Key(0, False)),
        ("F#", Key(6, False)),
        ("Gb", Key(6, False)),
        ("Cb", Key(11, False)),
        ("B#", Key(0, False)),
        ("am", Key(9, True)),
        (" Bbm ", Key(10, True)),
    ],
)
def test_names_of_keys(text: str, key: Key) -> None:
    assert parse_key(text) == key
    assert parse_key(str(key)) == key


@pytest.mark.parametrize("text", ["", "H", "C##", "Cmaj", "Amin", "M", "c m", "#", "C4"])
def test_what_is_no_key_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no key"):
        parse_key(text)


def test_pitch_classes_are_counted_by_frames_and_doublings() -> None:
    counts = pitch_classes(roll_from({60, 64}, {48, 60}, set(), {21, 108}))
    assert counts.tolist() == [4, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0]  # C four times, E and A once


@pytest.mark.parametrize("tonic", range(12))
@pytest.mark.parametrize(("scale", "minor"), [(SCALE, False), (MINOR_SCALE, True)])
def test_a_scale_with_its_tonic_triad_tells_its_key(
    tonic: int, scale: tuple[int, ...], minor: bool
) -> None:
    notes = [{48 + tonic + step} for step in scale]
    chord = {48 + tonic, 48 + tonic + scale[2], 48 + tonic + 7}
    assert find_key(roll_from(*notes, chord, chord)) == Key(tonic, minor)


@pytest.mark.parametrize("roll", [roll_from(), roll_from(set()), roll_from(set(range(48, 60)))])
def test_silence_and_all_notes_alike_tell_no_key(roll: np.ndarray) -> None:
    assert find_key(roll) is None


@given(st.integers(0, 11), st.integers(0, 11))
def test_the_shorter_way_between_two_pitch_classes(source: int, target: int) -> None:
    shift = nearest_shift(source, target)
    assert (source + shift) % 12 == target
    assert -5 <= shift <= 6


def test_what_would_leave_the_keys_moves_by_octaves_less() -> None:
    roll = roll_from({21, 60, 108}, {22})
    assert steps_of(move(roll, 2)) == [[23, 62, 98], [24]]
    assert steps_of(move(roll, -2)) == [[31, 58, 106], [32]]


@given(st.sets(st.integers(33, 96), max_size=5), st.integers(-12, 12))
def test_moved_back_it_is_the_same_again(notes: set[int], semitones: int) -> None:
    roll = roll_from(notes, set())
    moved = move(roll, semitones)
    assert moved.shape == (2, K)
    assert steps_of(moved)[0] == sorted(note + semitones for note in notes)
    assert np.array_equal(move(moved, -semitones), roll)
