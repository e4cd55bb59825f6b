"""Copies, in any key: their share and the longest, compared with slow searches, and by hand."""

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from helpers import roll_from
from pianolstm.metrics.copying import KnownPieces, Passage, copied_share, window_hashes
from pianolstm.tonality import transpose


def two_pitches(seed: int, frames: int) -> np.ndarray:
    """Return a random roll of two pitches, in which windows often recur."""
    return np.pad(np.random.default_rng(seed).random((frames, 2)) < 0.5, ((0, 0), (40, 46)))


few_rolls = st.lists(st.builds(two_pitches, st.integers(0, 2**16), st.integers(0, 12)), max_size=3)


def equal(roll: np.ndarray, other: np.ndarray) -> bool:
    """Return whether two rolls of one length are equal once transposed."""
    return any(np.array_equal(roll, np.roll(other, shift, axis=1)) for shift in (-2, -1, 0, 1, 2))


def search(sampled: list[np.ndarray], known: list[np.ndarray], frames: int) -> float:
    """Return the share of copied windows by comparing each window with each known one."""
    windows, others = (
        [roll[t : t + frames] for roll in rolls for t in range(len(roll) - frames + 1)]
        for rolls in (sampled, known)
    )
    windows = [window for window in windows if (window != window[0]).any()]
    copies = [any(equal(window, other) for other in others) for window in windows]
    return float(np.mean(copies)) if copies else math.nan


@given(few_rolls, few_rolls, st.integers(1, 4))
def test_the_copied_share_equals_that_of_a_slow_search(
    sampled: list[np.ndarray], known: list[np.ndarray], frames: int
) -> None:
    share = copied_share(sampled, window_hashes(known, frames), frames)
    np.testing.assert_allclose(share, search(sampled, known, frames))


def random_piece(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).random((100, 88)) < 0.05


def test_copied_music_counts_wherever_it_occurs_in_a_piece() -> None:
    known, new = random_piece(1), random_piece(2)
    assert copied_share([known[7:57]], window_hashes([new, known])) == 1
    assert copied_share([new], window_hashes([known])) == 0
    mixed = np.concatenate([new, known[40:73]])
    assert copied_share([mixed], window_hashes([known])) == 2 / (133 - 31)


def test_a_window_does_not_span_two_known_pieces() -> None:
    known = random_piece(1)
    assert copied_share([known[30:70]], window_hashes([known[:50], known[50:]])) == 0


def test_windows_of_silence_or_of_one_held_frame_are_not_counted() -> None:
    held = roll_from(*[{60, 64}] * 40, *[set()] * 40)
    assert copied_share([held], window_hashes([held[:40], held[40:]])) == 0  # of 31 windows
    assert math.isnan(copied_share([held[:40], held[40:], held[:0]], window_hashes([held])))


# ---- transposed, and the longest passage ---------------------------------------------------------


def test_a_transposed_copy_is_a_copy_in_every_octave() -> None:
    known = np.pad(random_piece(1)[:, :40], ((0, 0), (20, 28)))
    other = known.copy()
    other[50] = np.roll(other[50], 1)  # one frame a semitone higher than the rest
    for semitones in (-20, -1, 1, 12, 28):
        assert copied_share([transpose(known, semitones)], window_hashes([known])) == 1
        assert copied_share([transpose(other, semitones)], window_hashes([known])) < 0.6


@given(st.lists(st.builds(two_pitches, st.integers(0, 2**16), st.integers(0, 12)), max_size=3),
       st.builds(two_pitches, st.integers(0, 2**16), st.integers(0, 12)))  # fmt: skip
def test_the_longest_passage_is_that_of_a_slow_search(
    known: list[np.ndarray], roll: np.ndarray
) -> None:
    # Without silence, before which a step is counted from the last note.
    known, roll = ([piece[piece.any(axis=1)] for piece in known], roll[roll.any(axis=1)])
    lengths = [
        frames
        for frames in range(2, len(roll) + 1)
        for start in range(len(roll) - frames + 1)
        if (roll[start : start + frames] != roll[start]).any()
        for other in known
        for place in range(len(other) - frames + 1)
        if equal(roll[start : start + frames], other[place : place + frames])
    ]
    passage = KnownPieces(known).longest_passage(roll)
    assert (passage.frames if passage else 0) == max(lengths, default=0)
    if passage:
        copy = roll[passage.start : passage.start + passage.frames]
        place = slice(passage.piece_start, passage.piece_start + passage.frames)
        assert np.array_equal(copy, np.roll(known[passage.piece][place], passage.semitones, axis=1))


def test_the_longest_passage_worked_out_by_hand() -> None:
    first = roll_from({60, 64}, {62}, {65}, set(), {67})
    second = roll_from({48}, {48, 52}, {50}, {53}, set(), {55}, {50})
    roll = roll_from({90}, {70, 74}, {72}, {75}, set(), {77}, {30})
    assert KnownPieces([first]).longest_passage(roll) == Passage(5, 1, 0, 0, 10)
    assert KnownPieces([first[:3], second]).longest_passage(roll) == Passage(5, 1, 1, 1, 22)
    assert KnownPieces([first[:1], second[:2]]).longest_passage(roll[:2]) is None
    assert KnownPieces([]).longest_passage(roll) is None


def test_a_held_chord_is_no_passage_but_what_moves_around_it_is() -> None:
    held = [{60, 64}] * 20
    known = KnownPieces([roll_from(*held, {62})])
    assert known.longest_passage(roll_from(*held)) is None
    assert known.longest_passage(roll_from({50}, *held, {62})) == Passage(21, 1, 0, 0, 0)
