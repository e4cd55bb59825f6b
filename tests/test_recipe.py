"""The course of a training: its length, its learning rate."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from data import Batch, collate
from helpers_train import make_trainer, rolls_of
from settings import TrainSettings
from train import count_epochs, learning_rate


def tiny_batch(*lengths: int) -> Batch:
    return collate([torch.from_numpy(roll) for roll in rolls_of(*lengths)])


# ---- how long ------------------------------------------------------------------------------------

LENGTHS = np.array([3, 10, 7, 10, 3])


@pytest.mark.parametrize(
    ("steps", "batch_size", "bptt", "epochs"),
    [
        (0, 2, 4, 20),  # --epochs
        # [10 10] in 3 chunks, [7 3] in 2, [3] in 1: 6 steps an epoch.
        (6, 2, 4, 1),
        (60, 2, 4, 10),
        (62, 2, 4, 10),
        (64, 2, 4, 11),
        (1, 2, 4, 1),
        (8, 2, 4, 1),
        (10, 2, 4, 2),
        (30, 2, 0, 10),  # three batches, uncut
        (30, 5, 10, 30),
        (30, 5, 9, 15),
        (100, 1, 4, 10),  # 3 + 3 + 2 + 1 + 1
        (7, 100, 60, 7),
    ],
)
def test_epochs_are_those_that_come_nearest_to_the_steps(
    steps: int, batch_size: int, bptt: int, epochs: int
) -> None:
    settings = TrainSettings(steps=steps, batch_size=batch_size, bptt=bptt)
    assert count_epochs(settings, LENGTHS) == epochs


@pytest.mark.parametrize(("batch_size", "bptt"), [(2, 4), (2, 0), (5, 9), (1, 4), (32, 60)])
def test_steps_counted_are_the_steps_taken(tmp_path: Path, batch_size: int, bptt: int) -> None:
    trainer = make_trainer(tmp_path, batch_size=batch_size, bptt=bptt)
    trainer.epoch(1)
    (taken,) = {int(moments["step"]) for moments in trainer.optimizer.state.values()}
    settings = TrainSettings(steps=9 * taken, batch_size=batch_size, bptt=bptt)
    assert count_epochs(settings, trainer.train.lengths) == 9


# ---- the learning rate ---------------------------------------------------------------------------


@pytest.mark.parametrize("progress", [0, 0.1, 0.5, 1])
def test_without_warm_up_the_learning_rate_is_constant(progress: float) -> None:
    assert learning_rate(TrainSettings(lr=0.003), progress) == 0.003


@pytest.mark.parametrize("warmup", [0.25, 0.4, 0.5])
def test_learning_rate_goes_up_and_down_in_half_cosines(warmup: float) -> None:
    settings = TrainSettings(lr=0.008, warmup=warmup)
    assert learning_rate(settings, 0) == 0
    assert learning_rate(settings, warmup) == 0.008
    assert learning_rate(settings, 1) == 0
    # (1 - cos) / 2 at 1/4, 1/3, 1/2, 2/3 and 3/4 of the way, on either side.
    root = math.sqrt(0.5)
    for way, share in [
        (1 / 4, (1 - root) / 2), (1 / 3, 1 / 4), (1 / 2, 1 / 2), (2 / 3, 3 / 4),
        (3 / 4, (1 + root) / 2),
    ]:  # fmt: skip
        assert learning_rate(settings, way * warmup) == pytest.approx(0.008 * share)
        falling = 1 - way * (1 - warmup)
        assert learning_rate(settings, falling) == pytest.approx(0.008 * share)


@pytest.mark.parametrize("warmup", [0.0, 0.3])
def test_each_batch_is_learnt_at_the_rate_of_its_place_in_training(
    tmp_path: Path, warmup: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = make_trainer(tmp_path, epochs=3, lr=0.01, warmup=warmup)
    seen: list[tuple[int, float]] = []

    def learn(batch: Batch, shift: Tensor) -> float:
        seen.append((int(batch.lengths.sum()), trainer.optimizer.param_groups[0]["lr"]))
        return 1.0

    monkeypatch.setattr(trainer, "learn", learn)
    for number in (1, 2, 3):
        trainer.epoch(number)
    done = 0
    for frames, rate in seen:
        assert rate == pytest.approx(learning_rate(trainer.settings, done / 99), abs=1e-12)
        done += frames
    assert done == 99  # 33 frames in the five tunes, three times
    assert len({rate for _, rate in seen}) == (9 if warmup else 1)
