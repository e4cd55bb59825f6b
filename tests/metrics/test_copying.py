"""The share of copied windows, compared with a slow search and worked out by hand."""

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from helpers import roll_from
from pianolstm.metrics.copying import copied_share, window_hashes


def two_pitches(seed: int, frames: int) -> np.ndarray:
    """Return a random roll of two pitches, in which windows often recur."""
    return np.pad(np.random.default_rng(seed).random((frames, 2)) < 0.5, ((0, 0), (40, 46)))


few_rolls = st.lists(st.builds(two_pitches, st.integers(0, 2**16), st.integers(0, 12)), max_size=3)


def search(sampled: list[np.ndarray], known: list[np.ndarray], frames: int) -> float:
    """Return the share of copied windows by comparing each window with each known one."""
    windows, others = (
        [roll[t : t + frames] for roll in rolls for t in range(len(roll) - frames + 1)]
        for rolls in (sampled, known)
    )
    windows = [window for window in windows if (window != window[0]).any()]
    copies = [any(np.array_equal(window, other) for other in others) for window in windows]
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
