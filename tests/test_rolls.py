"""Packed rolls: what goes in comes out, and counting them is counting the cells."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from rolls import BYTES, Rolls, unpack
from settings import K

lists_of_rolls = st.lists(
    st.integers(0, 12).flatmap(lambda n: arrays.arrays(bool, (n, K))), max_size=5
)


@given(lists_of_rolls)
def test_rolls_come_out_as_they_went_in(rolls: list[np.ndarray]) -> None:
    packed = Rolls.of(rolls)
    assert len(packed) == len(rolls)
    assert packed.packed.nbytes == BYTES * sum(map(len, rolls))
    for roll, expected in zip(packed, rolls, strict=True):
        assert roll.dtype == bool
        np.testing.assert_array_equal(roll, expected)
    if rolls:
        np.testing.assert_array_equal(packed[-1], rolls[-1])
    assert Rolls.of(packed) is packed
    for outside in (len(rolls), -len(rolls) - 1):
        with pytest.raises(IndexError):
            packed[outside]


@given(lists_of_rolls, st.integers(1, 9))
def test_counts_are_those_of_the_cells(rolls: list[np.ndarray], block: int) -> None:
    packed = Rolls.of(rolls)
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr("rolls.BLOCK", block)
        counts, steps = packed.key_counts(), list(packed.steps())
    np.testing.assert_array_equal(counts, sum((r.sum(axis=0) for r in rolls), np.zeros(K, int)))
    for side, part in ((0, slice(None, -1)), (1, slice(1, None))):
        expected = [frame for roll in rolls for frame in roll[part]]
        found = [frame for step in steps for frame in unpack(step[side])]
        np.testing.assert_array_equal(np.array(found), np.array(expected))


@given(lists_of_rolls, st.integers(1, 12))
def test_tunes_can_be_left_out(rolls: list[np.ndarray], shortest: int) -> None:
    packed = Rolls.of(rolls)
    kept = packed.without(packed.lengths < shortest)
    assert [len(roll) for roll in kept] == [len(roll) for roll in rolls if len(roll) >= shortest]
    assert all((a == b).all() for a, b in zip(kept, (r for r in rolls if len(r) >= shortest)))  # noqa: B905


@pytest.mark.parametrize(("frames", "lengths"), [(3, [1, 1]), (3, [4, -1]), (0, [1])])
def test_lengths_that_do_not_add_up_are_refused(frames: int, lengths: Sequence[int]) -> None:
    with pytest.raises(ValueError, match="do not add up"):
        Rolls(np.zeros((frames, BYTES), np.uint8), np.array(lengths))


@pytest.mark.parametrize(("frames", "lengths"), [(float, int), (bool, int), (np.uint8, float)])
def test_arrays_of_another_kind_are_refused(frames: type, lengths: type) -> None:
    with pytest.raises(ValueError, match="no bytes"):
        Rolls(np.zeros((2, BYTES), frames), np.array([2], lengths))


def test_a_memory_map_is_as_good_as_an_array(tmp_path: Path) -> None:
    whole = Rolls.of([np.random.default_rng(i).random((5 + i, K)) < 0.1 for i in range(4)])
    np.save(tmp_path / "frames.npy", whole.packed)
    mapped = Rolls(np.load(tmp_path / "frames.npy", mmap_mode="r"), whole.lengths)
    for roll, expected in zip(mapped, whole, strict=True):
        np.testing.assert_array_equal(roll, expected)
    np.testing.assert_array_equal(mapped.key_counts(), whole.key_counts())
