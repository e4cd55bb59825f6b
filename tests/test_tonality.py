"""Keys: their names, their estimation, and transposition."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers import roll_from, steps_of
from pianolstm.rolls import PITCHES
from pianolstm.tonality import (
    Key,
    estimate_key,
    nearest_shift,
    parse_key,
    pitch_class_counts,
    transpose,
)

MAJOR_SCALE = (0, 2, 4, 5, 7, 9, 11, 12)
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
def test_key_names_are_parsed_and_printed(text: str, key: Key) -> None:
    assert parse_key(text) == key
    assert parse_key(str(key)) == key


@pytest.mark.parametrize("text", ["", "H", "C##", "Cmaj", "Amin", "M", "c m", "#", "C4"])
def test_other_text_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a key"):
        parse_key(text)


def test_pitch_classes_count_once_for_each_frame_and_octave() -> None:
    counts = pitch_class_counts(roll_from({60, 64}, {48, 60}, set(), {21, 108}))
    assert counts.tolist() == [4, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0]  # C four times, E and A once


@pytest.mark.parametrize("tonic", range(12))
@pytest.mark.parametrize(("scale", "minor"), [(MAJOR_SCALE, False), (MINOR_SCALE, True)])
def test_a_scale_with_its_tonic_triad_is_in_its_key(
    tonic: int, scale: tuple[int, ...], minor: bool
) -> None:
    notes = [{48 + tonic + degree} for degree in scale]
    chord = {48 + tonic, 48 + tonic + scale[2], 48 + tonic + 7}
    assert estimate_key(roll_from(*notes, chord, chord)) == Key(tonic, minor)


@pytest.mark.parametrize("roll", [roll_from(), roll_from(set()), roll_from(set(range(48, 60)))])
def test_silence_and_equal_durations_have_no_key(roll: np.ndarray) -> None:
    assert estimate_key(roll) is None


@given(st.integers(0, 11), st.integers(0, 11))
def test_the_nearest_shift_is_the_shorter_way(source: int, target: int) -> None:
    shift = nearest_shift(source, target)
    assert (source + shift) % 12 == target
    assert -5 <= shift <= 6


def test_notes_that_would_leave_the_range_stay_in_it_by_octaves() -> None:
    roll = roll_from({21, 60, 108}, {22})
    assert steps_of(transpose(roll, 2)) == [[23, 62, 98], [24]]
    assert steps_of(transpose(roll, -2)) == [[31, 58, 106], [32]]


@given(st.sets(st.integers(33, 96), max_size=5), st.integers(-12, 12))
def test_transposing_back_restores_the_roll(pitches: set[int], semitones: int) -> None:
    roll = roll_from(pitches, set())
    transposed = transpose(roll, semitones)
    assert transposed.shape == (2, PITCHES)
    assert steps_of(transposed)[0] == sorted(pitch + semitones for pitch in pitches)
    assert np.array_equal(transpose(transposed, -semitones), roll)
