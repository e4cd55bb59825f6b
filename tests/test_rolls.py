"""Packed rolls, their fingerprint, and the .npz format."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from helpers import Splits, assert_same, names_in, one_line_naming
from pianolstm.files import InputError
from pianolstm.rolls import (
    PACKED_BYTES,
    PITCHES,
    SPLITS,
    PackedRolls,
    fingerprint,
    read_npz,
    unpack,
    write_npz,
)

lists_of_rolls = st.lists(
    st.integers(0, 12).flatmap(lambda n: arrays.arrays(bool, (n, PITCHES))), max_size=5
)

# ---- packed rolls --------------------------------------------------------------------------------


@given(lists_of_rolls)
def test_rolls_survive_packing(rolls: list[np.ndarray]) -> None:
    packed = PackedRolls.pack(rolls)
    assert len(packed) == len(rolls)
    assert packed.packed.nbytes == PACKED_BYTES * sum(map(len, rolls))
    for roll, expected in zip(packed, rolls, strict=True):
        assert roll.dtype == bool
        np.testing.assert_array_equal(roll, expected)
    if rolls:
        np.testing.assert_array_equal(packed[-1], rolls[-1])
    assert PackedRolls.pack(packed) is packed
    for outside in (len(rolls), -len(rolls) - 1):
        with pytest.raises(IndexError):
            packed[outside]


@given(lists_of_rolls, st.integers(1, 9))
def test_counts_and_transitions_are_those_of_the_cells(rolls: list[np.ndarray], block: int) -> None:
    packed = PackedRolls.pack(rolls)
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr("pianolstm.rolls._BLOCK", block)
        counts, transitions = packed.pitch_counts(), list(packed.transitions())
    expected_counts = sum((roll.sum(axis=0) for roll in rolls), np.zeros(PITCHES, int))
    np.testing.assert_array_equal(counts, expected_counts)
    for side, part in ((0, slice(None, -1)), (1, slice(1, None))):
        expected = [frame for roll in rolls for frame in roll[part]]
        actual = [frame for pair in transitions for frame in unpack(pair[side])]
        np.testing.assert_array_equal(np.array(actual), np.array(expected))


@given(lists_of_rolls, st.integers(1, 12))
def test_pieces_can_be_left_out(rolls: list[np.ndarray], shortest: int) -> None:
    packed = PackedRolls.pack(rolls)
    kept = packed.without(packed.lengths < shortest)
    expected = [roll for roll in rolls if len(roll) >= shortest]
    assert [len(roll) for roll in kept] == [len(roll) for roll in expected]
    assert all((a == b).all() for a, b in zip(kept, expected, strict=True))


@pytest.mark.parametrize(("frames", "lengths"), [(3, [1, 1]), (3, [4, -1]), (0, [1])])
def test_lengths_that_do_not_add_up_are_refused(frames: int, lengths: Sequence[int]) -> None:
    with pytest.raises(ValueError, match="don't add up"):
        PackedRolls(np.zeros((frames, PACKED_BYTES), np.uint8), np.array(lengths))


@pytest.mark.parametrize(("frames", "lengths"), [(float, int), (bool, int), (np.uint8, float)])
def test_arrays_of_other_types_are_refused(frames: type, lengths: type) -> None:
    with pytest.raises(ValueError, match="must be uint8"):
        PackedRolls(np.zeros((2, PACKED_BYTES), frames), np.array([2], lengths))


def test_a_memory_map_works_like_an_array(tmp_path: Path) -> None:
    rolls = [np.random.default_rng(i).random((5 + i, PITCHES)) < 0.1 for i in range(4)]
    whole = PackedRolls.pack(rolls)
    np.save(tmp_path / "frames.npy", whole.packed)
    mapped = PackedRolls(np.load(tmp_path / "frames.npy", mmap_mode="r"), whole.lengths)
    for roll, expected in zip(mapped, whole, strict=True):
        np.testing.assert_array_equal(roll, expected)
    np.testing.assert_array_equal(mapped.pitch_counts(), whole.pitch_counts())


# ---- fingerprint ---------------------------------------------------------------------------------


def test_the_fingerprint_is_this_sha_256() -> None:
    # Pinned: the weights and runs of earlier versions name their data by it.
    roll = np.zeros((2, PITCHES), dtype=bool)
    roll[0, 0] = roll[1, 87] = True
    frames = bytes([0x80, *[0] * 10, *[0] * 10, 0x01])
    expected = hashlib.sha256()
    for split in ("train", "valid", "test"):
        expected.update(split.encode() + b" 1\n" + b"\x02\0\0\0\0\0\0\0" + frames)
    assert fingerprint({split: [roll] for split in SPLITS}) == expected.hexdigest()


@given(data=st.data())
def test_the_fingerprint_changes_with_any_moved_cell(
    tiny_splits: Splits, data: st.DataObject
) -> None:
    before = fingerprint(tiny_splits)
    roll = data.draw(st.sampled_from(tiny_splits[data.draw(st.sampled_from(SPLITS))]))
    source = tuple(data.draw(st.sampled_from(np.argwhere(roll).tolist())))
    target = tuple(data.draw(st.sampled_from(np.argwhere(~roll).tolist())))
    roll[source], roll[target] = False, True
    assert fingerprint(tiny_splits) != before
    roll[source], roll[target] = True, False
    assert fingerprint(tiny_splits) == before


def test_the_fingerprint_changes_with_the_splits_and_the_limits_of_pieces(
    tiny_splits: Splits,
) -> None:
    train, valid, test = (tiny_splits[split] for split in SPLITS)
    whole = np.concatenate(train)
    variants = [
        {"train": train, "valid": valid, "test": test},
        {"train": valid, "valid": train, "test": test},
        {"train": train, "valid": test, "test": valid},
        {"train": train[::-1], "valid": valid, "test": test},
        {"train": [whole], "valid": valid, "test": test},
        {"train": np.split(whole, [6]), "valid": valid, "test": test},
        {"train": np.split(whole, [4, 8]), "valid": valid, "test": test},
        {"train": train[:2], "valid": [train[2], *valid], "test": test},
        {"train": train, "valid": valid, "test": []},
        {"train": [*train, np.zeros((0, PITCHES), dtype=bool)], "valid": valid, "test": test},
    ]
    assert len({fingerprint(variant) for variant in variants}) == len(variants)


# ---- .npz ----------------------------------------------------------------------------------------


def npz_refusal(path: Path) -> str:
    with pytest.raises(InputError) as caught:
        read_npz(path)
    assert one_line_naming(path, caught.value)
    return str(caught.value)


def rewrite(path: Path, **change: np.ndarray | None) -> None:
    """Replace arrays of an .npz file; None = leave it out."""
    with np.load(path) as loaded:
        contents = {**loaded, **change}
    np.savez(path, **{name: array for name, array in contents.items() if array is not None})  # type: ignore[arg-type]


@pytest.fixture
def npz(tmp_path: Path, tiny_splits: Splits) -> Path:
    write_npz(tmp_path / "a.npz", tiny_splits)
    return tmp_path / "a.npz"


def test_rolls_survive_npz(npz: Path, tiny_splits: Splits) -> None:
    assert_same(read_npz(npz), tiny_splits)
    assert names_in(npz.parent) == ["a.npz"]


@pytest.mark.parametrize(
    "change",
    [
        {"train_lengths": np.array([4, 2, 5])},
        {"train_lengths": np.array([4, 2, 7])},
        {"train_lengths": np.array([14, -2])},
        {"train_lengths": np.array([12, 0])},
        {"train_lengths": np.array([4.0, 2.0, 6.0])},
        {"train_lengths": np.array([12], dtype=object)},
        {"train_frames": np.zeros((12, 11))},
        {"train_frames": np.zeros(132, dtype=np.uint8)},
        {"train_frames": np.full((12, 12), 255, dtype=np.uint8)},
        {"train_frames": None},
    ],
)
def test_arrays_that_are_not_rolls_are_refused(npz: Path, change: dict[str, Any]) -> None:
    rewrite(npz, sha256=None, **change)
    npz_refusal(npz)


def test_a_changed_frame_is_refused_by_the_checksum(npz: Path) -> None:
    with np.load(npz) as loaded:
        frames = loaded["train_frames"]
    frames[0] ^= 1
    rewrite(npz, train_frames=frames)
    assert "the checksum is wrong" in npz_refusal(npz)
    rewrite(npz, sha256=None)  # as other programs may write it
    read_npz(npz)


def test_a_truncated_npz_is_refused(npz: Path) -> None:
    whole = npz.read_bytes()
    for size in range(0, len(whole), len(whole) // 40):
        npz.write_bytes(whole[:size])
        npz_refusal(npz)


def test_a_damaged_npz_gives_its_rolls_or_is_refused(npz: Path, tiny_splits: Splits) -> None:
    whole = npz.read_bytes()
    for position in range(0, len(whole), len(whole) // 40):
        damaged = bytearray(whole)
        damaged[position] ^= 0xFF
        npz.write_bytes(damaged)
        try:
            splits = read_npz(npz)
        except InputError as error:
            assert one_line_naming(npz, error)
        else:
            assert_same(splits, tiny_splits)
