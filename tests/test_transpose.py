"""Transposition: tunes move whole and stay on the keyboard, and the model is told by how much."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from data import Batch, chunks, collate, transposed
from helpers import K, draw_frames
from helpers_train import MEMORY, make_model, make_trainer, rolls_of, unmoved
from model import PianoLSTM

WIDE = 20  # a tune on the middle keys, with room for every move on either side


def batch_of(*rolls: np.ndarray) -> Batch:
    return collate([torch.from_numpy(roll.view(np.uint8)) for roll in rolls])


def middle_tunes(count: int, length: int = 3) -> Batch:
    rolls = [np.zeros((length, K), dtype=bool) for _ in range(count)]
    for number, roll in enumerate(rolls):
        roll[:, WIDE + number % 48] = True
    return batch_of(*rolls)


# ---- the tunes -----------------------------------------------------------------------------------


@settings(max_examples=200)
@given(
    tunes=st.lists(
        st.tuples(st.integers(1, 9), st.integers(0, K - 1), st.integers(1, K)),
        min_size=1,
        max_size=6,
    ),
    share=st.floats(0, 1),
    seed=st.integers(0, 999),
)
def test_a_moved_tune_is_the_tune_shifted_and_never_wraps(
    tunes: list[tuple[int, int, int]], share: float, seed: int
) -> None:
    generator, rolls = np.random.default_rng(seed), []
    for length, low, width in tunes:
        roll = np.zeros((length, K), dtype=bool)
        roll[:, low : low + width] = generator.random((length, min(width, K - low))) < 0.3
        rolls.append(roll)
    batch = batch_of(*rolls)
    before = batch.frames.clone()
    moved, shift = transposed(batch, share, np.random.default_rng(seed))
    assert torch.equal(batch.frames, before), "the tunes themselves stay where they are"
    assert torch.equal(moved.lengths, batch.lengths)
    assert moved.frames.shape == before.shape
    assert (moved.frames.dtype, shift.dtype) == (torch.uint8, torch.int64)
    assert shift.shape == (len(rolls),)
    for now, tune, by in zip(moved.frames.numpy(), before.numpy(), shift.tolist(), strict=True):
        assert -5 <= by <= 6
        np.testing.assert_array_equal(now, np.roll(tune, by, axis=1))
        frames, keys = tune.nonzero()
        assert ((keys + by >= 0) & (keys + by < K)).all()
        assert sorted(zip(*now.nonzero(), strict=True)) == sorted(
            zip(frames, keys + by, strict=True)
        )


def test_no_share_leaves_batch_and_generator_as_they_are() -> None:
    generator = np.random.default_rng(1)
    batch = middle_tunes(5)
    moved, shift = transposed(batch, 0.0, generator)
    assert torch.equal(moved.frames, batch.frames)
    assert shift.tolist() == [0] * 5
    assert generator.bit_generator.state == np.random.default_rng(1).bit_generator.state


@pytest.mark.parametrize("share", [0.3, 1.0])
def test_share_is_that_of_the_tunes_drawn_and_every_key_comes(share: float) -> None:
    _, shift = transposed(middle_tunes(3000), share, np.random.default_rng(0))
    # One draw in twelve is a move by nothing. Off by 0.04 is 4 standard deviations and more.
    assert (shift != 0).float().mean().item() == pytest.approx(share * 11 / 12, abs=0.04)
    counts = torch.bincount(shift + 5, minlength=12)
    assert (counts > 0).all()
    assert len(counts) == 12
    others = torch.cat([counts[:5], counts[6:]])
    assert others.min() > 0.6 * others.max()


def test_a_tune_near_an_end_goes_as_far_as_there_is_room() -> None:
    low, high, wide = (np.zeros((2, K), dtype=bool) for _ in range(3))
    low[1, [2, 9]] = high[0, [80, 86]] = wide[0, 0] = wide[1, 87] = True
    seen: list[set[int]] = [set(), set(), set(), set()]
    for seed in range(200):
        batch = batch_of(low, high, wide, np.zeros((2, K), dtype=bool))
        _, shift = transposed(batch, 1.0, np.random.default_rng(seed))
        for found, by in zip(seen, shift.tolist(), strict=True):
            found.add(by)
    assert seen[0] == set(range(-2, 7))
    assert seen[1] == set(range(-5, 2))
    assert seen[2] == {0}, "a tune from end to end has no room"
    assert seen[3] == {0}, "silence is in no key"


def test_one_seed_moves_alike_and_another_otherwise() -> None:
    batch = middle_tunes(40)
    first, again, other = (transposed(batch, 0.7, np.random.default_rng(s)) for s in (1, 1, 2))
    assert torch.equal(first[0].frames, again[0].frames)
    assert torch.equal(first[1], again[1])
    assert not torch.equal(first[1], other[1])


# ---- the model is told ---------------------------------------------------------------------------


def told(model: PianoLSTM, *shift: int) -> Tensor:
    frames = draw_frames(5, K, 0.1).float()[None].expand(len(shift) or 1, -1, -1)
    hidden, _ = model(frames, shift=torch.tensor(shift) if shift else None)
    return hidden


@torch.no_grad()
@pytest.mark.parametrize("memory", [{}, MEMORY], ids=["none", "memory"])
def test_model_tells_twelve_keys_apart_and_octaves_not(memory: dict[str, Any]) -> None:
    model = make_model(transpose=0.5, **memory).eval()
    every = told(model, *range(-5, 7))
    for one in range(12):
        for other in range(one):
            assert not torch.allclose(every[one], every[other], atol=1e-4)
    # An octave further is the same key. (A batch of another size may round otherwise.)
    torch.testing.assert_close(told(model, *range(7, 19)), every, rtol=0, atol=1e-6)
    torch.testing.assert_close(told(model, *range(-17, -5)), every, rtol=0, atol=1e-6)
    assert torch.equal(told(model, 12), told(model, 0))
    assert torch.equal(told(model), told(model, 0)), "not told is not moved"


@torch.no_grad()
def test_what_a_tune_is_told_is_its_own_affair() -> None:
    model = make_model(transpose=0.5).eval()
    both = told(model, 3, -2)
    torch.testing.assert_close(both[0], told(model, 3)[0], rtol=0, atol=1e-6)
    torch.testing.assert_close(both[1], told(model, -2)[0], rtol=0, atol=1e-6)


@torch.no_grad()
def test_key_weights_are_added_to_the_embedding() -> None:
    model = make_model(transpose=0.5).eval()
    assert model.key is not None
    frames = draw_frames(5, K, 0.1).float()[None]
    expected, _ = model.lstm(model.embedding(frames) + model.key.weight[:, 7])
    hidden, _ = model(frames, shift=torch.tensor([-5]))
    assert torch.allclose(hidden, expected, atol=1e-6)


@torch.no_grad()
def test_a_fresh_model_hears_every_key_alike_and_a_plain_one_always() -> None:
    fresh = make_model(transpose=0.5).eval()
    assert fresh.key is not None
    assert type(fresh)(fresh.settings).key.weight.eq(0).all()  # type: ignore[union-attr]
    plain = make_model().eval()
    assert plain.key is None
    assert torch.equal(told(plain, 5), told(plain))


# ---- training ------------------------------------------------------------------------------------


def test_training_tells_the_model_how_each_tune_of_a_chunk_was_moved(tmp_path: Path) -> None:
    sizes = {"transpose": 1.0, **MEMORY}
    trainer = make_trainer(tmp_path, sizes=sizes, lr=1e-30, bptt=3)
    batch, shift = batch_of(*rolls_of(9, 7, 2)), torch.tensor([4, -3, 6])
    expected = 0.0
    for row in range(3):
        alone = Batch(batch.frames[row : row + 1], batch.lengths[row : row + 1])
        (whole,) = chunks(alone, int(batch.lengths[0]))
        hidden, _ = trainer.model(whole.inputs, shift=shift[row : row + 1])
        found = trainer.model.head.nll(hidden[whole.scored], whole.targets[whole.scored])
        expected += float(found.detach().double().sum())
    assert trainer.learn(batch, shift) == pytest.approx(expected, rel=1e-6)
    assert trainer.learn(batch, unmoved(batch)) != pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_an_epoch_moves_the_share_of_its_tunes(
    tmp_path: Path, share: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    rolls = [np.roll(np.eye(1, K, 0, dtype=bool), 30 + i, axis=1) for i in range(40)]
    trainer = make_trainer(tmp_path, rolls=[np.repeat(roll, 4, 0) for roll in rolls],
                           sizes={"transpose": share}, batch_size=8)  # fmt: skip
    epochs: list[list[tuple[int, int]]] = []
    for number in (1, 2, 1):
        seen: list[tuple[int, int]] = []

        def learn(batch: Batch, shift: Tensor, seen: list[tuple[int, int]] = seen) -> float:
            keys = batch.frames[:, 1].argmax(dim=1) - shift  # where the tune was
            seen.extend(zip(keys.tolist(), shift.tolist(), strict=True))
            return 1.0

        monkeypatch.setattr(trainer, "learn", learn)
        trainer.epoch(number)
        assert sorted(key for key, _ in seen) == list(range(30, 70))
        epochs.append(seen)
    assert epochs[0] == epochs[2], "drawn from seed and epoch"
    shifts = [[by for _, by in seen] for seen in epochs]
    assert (shifts[0] != shifts[1]) == bool(share)
    assert (shifts[0][:8] != shifts[0][8:16]) == bool(share), "each batch draws its own"
    moved = sum(by != 0 for by in shifts[0])
    assert moved > 30 if share else moved == 0
