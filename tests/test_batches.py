"""Rolls to batches, batches to chunks: every tune and every frame once, padded on the right."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from data import RollDataset, batches, chunks, collate, length_groups
from helpers import K

# ---- Dataset and batches -------------------------------------------------------------------------


def make_rolls(lengths: list[int], seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.random((length, K)) < 0.1 for length in lengths]


def test_a_tune_of_the_dataset_is_its_roll() -> None:
    rolls = make_rolls([3, 7, 2])
    dataset = RollDataset(rolls)
    assert len(dataset) == 3
    for i in range(3):
        assert dataset[i].dtype == torch.uint8
        np.testing.assert_array_equal(dataset[i].numpy(), rolls[i])


def test_a_batch_is_silence_then_tune_then_padding_longest_first() -> None:
    tunes = [torch.full((length, K), 1, dtype=torch.uint8) for length in (2, 4, 1)]
    batch = collate(tunes)
    assert batch.lengths.tolist() == [4, 2, 1]
    assert batch.frames.shape == (3, 6, K)
    assert batch.frames.dtype == torch.uint8
    assert batch.frames[:, :, 0].tolist() == [
        [0, 1, 1, 1, 1, 0],
        [0, 1, 1, 0, 0, 0],
        [0, 1, 0, 0, 0, 0],
    ]
    assert (batch.frames == batch.frames[:, :, :1]).all()


@settings(max_examples=100)
@given(lengths=st.lists(st.integers(1, 20), min_size=1, max_size=8), seed=st.integers(0, 99))
def test_padding_is_on_the_right_and_only_there(lengths: list[int], seed: int) -> None:
    rolls = make_rolls(lengths, seed)
    batch = collate([torch.from_numpy(roll.view(np.uint8)) for roll in rolls])
    assert batch.frames.shape == (len(rolls), max(lengths) + 2, K)
    assert batch.lengths.tolist() == sorted(lengths, reverse=True)
    assert not batch.frames[:, 0].any()  # the first row is silence
    for row, length in zip(batch.frames, batch.lengths.tolist(), strict=True):
        assert not row[1 + length :].any()
    cut_out = [
        row[1 : 1 + length].numpy().tobytes()
        for row, length in zip(batch.frames, batch.lengths.tolist(), strict=True)
    ]
    assert sorted(cut_out) == sorted(roll.tobytes() for roll in rolls)


@pytest.mark.parametrize("batch_size", [1, 2, 3, 7, 23, 24, 1000])
@pytest.mark.parametrize("seed", [None, 0, 1])
def test_every_tune_is_in_exactly_one_batch(batch_size: int, seed: int | None) -> None:
    lengths = [2 + (7 * i) % 23 for i in range(23)]
    rolls = make_rolls(lengths)
    generator = None if seed is None else np.random.default_rng(seed)
    found, sizes = [], []
    for batch in batches(RollDataset(rolls), batch_size, generator):
        sizes.append(len(batch.lengths))
        for row, length in zip(batch.frames, batch.lengths.tolist(), strict=True):
            found.append(row[1 : 1 + length].numpy().tobytes())
    assert sorted(found) == sorted(roll.tobytes() for roll in rolls)
    assert len(sizes) == -(-23 // batch_size)
    assert sorted(sizes)[1:] == [batch_size] * (len(sizes) - 1)  # one may be smaller


@settings(max_examples=100)
@given(
    lengths=st.lists(st.integers(1, 2000), min_size=1, max_size=60),
    batch_size=st.integers(1, 70),
    seed=st.none() | st.integers(0, 99),
)
def test_groups_are_of_similar_length(
    lengths: list[int], batch_size: int, seed: int | None
) -> None:
    generator = None if seed is None else np.random.default_rng(seed)
    groups = length_groups(np.array(lengths), batch_size, generator)
    assert sorted(i for group in groups for i in group) == list(range(len(lengths)))
    spans = sorted((min(lengths[i] for i in g), max(lengths[i] for i in g)) for g in groups)
    # A tune may be in another's batch out of turn only where the two are within about a tenth.
    slack = 1.0 if generator is None else np.exp(0.1)
    for (_, longest), (shortest, _) in itertools.pairwise(spans):
        assert longest <= shortest * slack * (1 + 1e-9)


def test_only_lengths_within_about_a_tenth_change_places() -> None:
    lengths = np.linspace(100, 300, 1000).round().astype(np.int64)
    groups = length_groups(lengths, 10, np.random.default_rng(0))
    order = np.array(
        [i for group in sorted(groups, key=lambda g: -lengths[g].max()) for i in group]
    )
    longest_yet_to_come = np.maximum.accumulate(lengths[order][::-1])[::-1]
    ratio = (longest_yet_to_come / lengths[order]).max()
    assert 1.05 < ratio < 1.16  # exp(0.1) = 1.105, and a batch's own span on top


def test_the_order_of_batches_and_their_tunes_are_shuffled() -> None:
    lengths = np.array([100] * 8 + [200] * 8 + [400] * 8)
    epochs = [length_groups(lengths, 4, np.random.default_rng(seed)) for seed in range(20)]
    # By chance all 20 begin with the same length once in 3^19, or pair the same tunes in 35^19.
    assert len({lengths[groups[0][0]] for groups in epochs}) > 1
    assert len({frozenset(map(frozenset, groups)) for groups in epochs}) > 1


def test_without_a_generator_batches_go_from_long_to_short() -> None:
    groups = length_groups(np.array([5, 30, 2, 9, 9, 100]), 2, None)
    assert [sorted(group) for group in groups] == [[1, 5], [3, 4], [0, 2]]


def test_batches_come_in_another_order_each_epoch_and_in_the_same_for_a_seed() -> None:
    dataset = RollDataset(make_rolls([10] * 12 + [40] * 12))

    def epoch(generator: np.random.Generator) -> list[bytes]:
        return [batch.frames.numpy().tobytes() for batch in batches(dataset, 4, generator)]

    generator = np.random.default_rng(5)
    first, second = epoch(generator), epoch(generator)
    assert first != second  # 24 tunes come in the same order by chance in less than 1 of 10^12
    again = np.random.default_rng(5)
    assert [epoch(again), epoch(again)] == [first, second]


def test_batching_draws_nothing_from_global_randomness() -> None:
    dataset = RollDataset(make_rolls([4, 5, 6]))
    before = torch.get_rng_state()
    legacy = np.random.get_state()[1].copy()  # noqa: NPY002  (it is the global state we look at)
    list(batches(dataset, 2, np.random.default_rng(0)))
    assert torch.equal(torch.get_rng_state(), before)
    np.testing.assert_array_equal(np.random.get_state()[1], legacy)  # noqa: NPY002


# ---- chunks --------------------------------------------------------------------------------------


def marked(length: int) -> torch.Tensor:
    """Return a tune whose frame t (from 1) sounds key t alone."""
    return torch.eye(K, dtype=torch.uint8)[1 : length + 1]


def letters(frames: torch.Tensor) -> list[str]:
    """Write each row of frames as text: silence as a dot, key 1 as a, key 2 as b, ..."""
    return [
        "".join(chr(96 + int(frame.argmax())) if frame.any() else "." for frame in row)
        for row in frames
    ]


def test_chunks_of_a_small_batch_are_these() -> None:
    found = [
        (letters(chunk.inputs), letters(chunk.targets), chunk.scored.int().tolist())
        for chunk in chunks(collate([marked(2), marked(7), marked(6), marked(3)]), 3)
    ]
    assert found == [
        (
            [".ab", ".ab", ".ab", ".ab"],
            ["abc", "abc", "abc", "ab."],
            [[1, 1, 1], [1, 1, 1], [1, 1, 1], [1, 1, 0]],
        ),
        (["cde", "cde", "c.."], ["def", "def", "..."], [[1, 1, 1], [1, 1, 1], [0, 0, 0]]),
        (["fg", "f."], ["g.", ".."], [[1, 0], [0, 0]]),
    ]


@pytest.mark.parametrize("bptt", [0, 7, 8, 100])
def test_a_batch_no_longer_than_bptt_is_one_chunk(bptt: int) -> None:
    (chunk,) = chunks(collate([marked(7), marked(3)]), bptt)
    assert letters(chunk.inputs) == [".abcdefg", ".abc...."]
    assert letters(chunk.targets) == ["abcdefg.", "abc....."]
    assert chunk.scored.int().tolist() == [[1] * 7 + [0], [1] * 3 + [0] * 5]


def test_chunks_are_float_for_the_model() -> None:
    chunk = next(iter(chunks(collate([marked(4)]), 2)))
    assert (chunk.inputs.dtype, chunk.targets.dtype) == (torch.float32, torch.float32)
    assert chunk.scored.dtype == torch.bool


@settings(max_examples=300)
@given(
    lengths=st.lists(st.integers(1, 30), min_size=1, max_size=6),
    bptt=st.integers(0, 35),
    seed=st.integers(0, 99),
)
def test_chunks_read_and_score_every_frame_once_and_in_order(
    lengths: list[int], bptt: int, seed: int
) -> None:
    rolls = sorted(make_rolls(lengths, seed), key=len, reverse=True)
    batch = collate([torch.from_numpy(roll.view(np.uint8)) for roll in rolls])
    read_frames: list[list[np.ndarray]] = [[] for _ in rolls]
    predicted: list[list[np.ndarray]] = [[] for _ in rolls]
    rows = len(rolls)
    for chunk in chunks(batch, bptt):
        B, t = chunk.scored.shape
        assert chunk.inputs.shape == chunk.targets.shape == (B, t, K)
        assert 1 <= B <= rows  # once left out, a row never comes back
        assert bptt == 0 or t <= bptt + 1
        rows = B
        for row in range(B):
            read_frames[row].extend(chunk.inputs[row].numpy())
            predicted[row].extend(chunk.targets[row][chunk.scored[row]].numpy())
    for roll, frames_in, frames_out in zip(rolls, read_frames, predicted, strict=True):
        heard = np.array(frames_in)
        assert not heard[0].any()
        np.testing.assert_array_equal(heard[1 : len(roll) + 1], roll)
        assert not heard[len(roll) + 1 :].any()
        np.testing.assert_array_equal(np.array(frames_out), roll)
