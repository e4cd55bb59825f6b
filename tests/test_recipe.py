"""The course of a training: its length, its learning rate, the average of its weights."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from checkpoint import load_model, read_tensors
from data import Batch, collate
from helpers_train import MEMORY, make_model, make_trainer, rolls_of, same, unmoved, weights_of
from model import PianoLSTM
from settings import TrainSettings
from train import Trainer, count_epochs, learning_rate, running_average


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


# ---- Adam ----------------------------------------------------------------------------------------


def after_one_step(folder: Path, **recipe: Any) -> dict[str, Tensor]:
    trainer = make_trainer(folder, lr=0.01, clip=0, bptt=0, **recipe)
    trainer.learn(tiny_batch(5, 4), torch.zeros(2, dtype=torch.int64))
    return weights_of(trainer.model)


def test_weight_decay_is_decoupled_and_reaches_every_weight(tmp_path: Path) -> None:
    before = weights_of(make_trainer(tmp_path).model)
    plain, decayed = after_one_step(tmp_path), after_one_step(tmp_path, weight_decay=0.4)
    for name, weights in before.items():
        # lr * decay = 0.004 of a weight goes, whatever its slope.
        lost = plain[name] - decayed[name]
        assert torch.allclose(lost, 0.004 * weights, rtol=1e-3, atol=1e-6), name
    assert not same(plain, decayed)


def test_without_weight_decay_it_is_adam(tmp_path: Path) -> None:
    trainer, twin = make_trainer(tmp_path, lr=0.01), make_trainer(tmp_path, lr=0.01)
    twin.optimizer = torch.optim.Adam(twin.model.parameters(), lr=0.01)  # type: ignore[assignment]
    for lengths in ((6, 3), (9, 9), (2,)):
        batch = tiny_batch(*lengths)
        assert trainer.learn(batch, unmoved(batch)) == twin.learn(batch, unmoved(batch))
    assert same(weights_of(trainer.model), weights_of(twin.model))


# ---- the running average -------------------------------------------------------------------------


def test_running_average_worked_out_by_hand() -> None:
    average = running_average(0.2)
    # It forgets by (1 + n) / (10 + n), 2/11 and then 3/12, held to 0.2 from there.
    first = average(torch.tensor([0.0]), torch.tensor([11.0]), 1)
    assert first.item() == pytest.approx(9)  # 2/11 of 0 and 9/11 of 11
    second = average(first, torch.tensor([4.0]), torch.tensor(2))
    assert second.item() == pytest.approx(5)  # 0.2 of 9 and 0.8 of 4
    third = average(second, torch.tensor([0.0]), 3)
    assert third.item() == pytest.approx(1)
    slow = running_average(0.999)(torch.tensor([0.0]), torch.tensor([1.0]), 90)
    assert slow.item() == pytest.approx(9 / 100)


def steps_of(trainer: Trainer) -> list[dict[str, Tensor]]:
    """Return a list that the weights after each step of Adam will be put in."""
    seen: list[dict[str, Tensor]] = []
    trainer.optimizer.register_step_post_hook(lambda *_: seen.append(weights_of(trainer.model)))
    return seen


@pytest.mark.parametrize(("decay", "kept"), [(0.9, 2 / 11), (0.1, 0.1)])
def test_best_guess_is_the_average_of_the_weights_after_each_step(
    tmp_path: Path, decay: float, kept: float
) -> None:
    trainer = make_trainer(tmp_path, sizes=MEMORY, lr=0.05, bptt=4, average=decay)
    seen, before = steps_of(trainer), weights_of(trainer.model)
    assert same(weights_of(trainer.best_guess), before)
    batch = tiny_batch(8, 5)
    trainer.learn(batch, unmoved(batch))
    assert len(seen) == 2
    # The average starts from the weights after the first step.
    for name, mean in weights_of(trainer.best_guess).items():
        expected = kept * seen[0][name] + (1 - kept) * seen[1][name]
        assert torch.allclose(mean, expected, rtol=1e-5, atol=1e-7), name
    assert same(weights_of(trainer.model), seen[1]), "training goes on from the weights themselves"
    assert not same(weights_of(trainer.best_guess), seen[1])


def test_without_averaging_the_best_guess_is_the_model_itself(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path)
    assert trainer.averaged is None
    assert trainer.best_guess is trainer.model


def test_average_is_what_is_scored_and_kept(tmp_path: Path) -> None:
    values, met = iter([2.0, 1.0]), []

    def validate(model: PianoLSTM) -> float:
        met.append(weights_of(model))
        return next(values)

    trainer = make_trainer(tmp_path, lr=0.05, average=0.9, validate=validate)
    trainer.fit()
    kept, record = load_model(tmp_path / "model.safetensors")
    assert record["best_epoch"] == 2
    assert kept.settings == trainer.model.settings
    assert same(weights_of(kept), weights_of(trainer.best_guess))
    assert same(weights_of(kept), met[1])
    assert not same(weights_of(kept), weights_of(trainer.model))


def test_ctrl_c_in_the_first_epoch_keeps_the_average(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = make_trainer(tmp_path, lr=0.05, average=0.9)

    def interrupted(model: PianoLSTM) -> float:
        raise KeyboardInterrupt

    monkeypatch.setattr(trainer, "validate", interrupted)
    assert not trainer.fit()
    kept, _ = load_model(tmp_path / "model.safetensors")
    assert same(weights_of(kept), weights_of(trainer.best_guess))
    assert not same(weights_of(kept), weights_of(trainer.model))


def test_state_holds_the_average_and_how_many_steps_are_in_it(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, average=0.9, epochs=1)
    trainer.fit()
    tensors, _ = read_tensors(tmp_path / "state.safetensors")
    assert int(tensors["averaged.n_averaged"]) == 6
    for name, tensor in weights_of(trainer.best_guess).items():
        assert torch.equal(tensors[f"averaged.module.{name}"], tensor)
    fresh = make_trainer(tmp_path, model=make_model(77), average=0.9, epochs=1)
    fresh.resume()
    assert same(weights_of(fresh.best_guess), weights_of(trainer.best_guess))
    assert same(weights_of(fresh.model), weights_of(trainer.model))
