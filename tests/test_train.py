"""Training: loss and slope are those of numpy, each flag does what it names, a seed is a result."""

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from data import RollDataset, batches, collate
from evaluation import Baselines, evaluate
from helpers_train import (
    CPU,
    LATENTS,
    MEMORY,
    make_model,
    make_trainer,
    numpy_nlls,
    rolls_of,
    same,
    unmoved,
    weights_of,
)
from model import PianoLSTM
from train import Epoch, plot_losses

# Either head, alone and with a memory shorter than the tunes.
SIZES = [
    {"latent_size": latent, **memory}
    for latent in LATENTS
    for memory in ({}, MEMORY | {"memory": 4, "intervals": True})
]


def gradient(model: PianoLSTM) -> Tensor:
    return torch.cat([weights.grad.flatten() for weights in model.parameters()])


# ---- the loss ------------------------------------------------------------------------------------


@pytest.mark.parametrize("bptt", [0, 1, 3])
@pytest.mark.parametrize("sizes", SIZES)
def test_loss_is_that_of_a_float64_loop_in_numpy(
    tmp_path: Path, sizes: dict[str, Any], bptt: int
) -> None:
    rolls = rolls_of(7, 3, 4, density=0.2)
    # With steps this small, the weights stay where they are.
    trainer = make_trainer(tmp_path, sizes=sizes, lr=1e-30, bptt=bptt)
    expected = sum(numpy_nlls(trainer.model, roll).sum() for roll in rolls)
    batch = collate([torch.from_numpy(roll) for roll in rolls])
    assert trainer.learn(batch, unmoved(batch)) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("sizes", SIZES)
def test_steps_follow_the_gradient_of_the_mean_nll_of_frames(
    tmp_path: Path, sizes: dict[str, Any]
) -> None:
    rolls = rolls_of(5, 2, 3, density=0.2)
    trainer = make_trainer(tmp_path, sizes=sizes, lr=1e-30, bptt=0, clip=0)
    batch = collate([torch.from_numpy(roll) for roll in rolls])
    trainer.learn(batch, unmoved(batch))
    taken = gradient(trainer.model)
    # The slope along one random direction, by moving the weights of the loop in numpy.
    torch.manual_seed(1)
    weights = weights_of(trainer.model)
    along = {name: torch.randn_like(tensor) for name, tensor in weights.items()}
    sides = []
    for sign in (1, -1):
        moved = make_model(**sizes).double()
        moved.load_state_dict(
            {name: weights[name].double() + sign * 1e-5 * along[name].double() for name in weights}
        )
        sides.append(np.concatenate([numpy_nlls(moved, roll) for roll in rolls]).mean())
    slope = (sides[0] - sides[1]) / 2e-5
    direction = torch.cat([along[name].flatten() for name, _ in trainer.model.named_parameters()])
    assert float(taken @ direction) == pytest.approx(slope, rel=1e-3)


@pytest.mark.parametrize("latent", LATENTS)
def test_four_tiny_tunes_can_be_learnt_by_heart(tmp_path: Path, latent: int) -> None:
    rolls = rolls_of(12, 12, 12, 12)
    dataset = RollDataset(rolls)
    model = make_model(embed_size=32, hidden_size=48, latent_size=latent and 8)
    model.head.set_marginals(Baselines(dataset).marginals.float())
    trainer = make_trainer(tmp_path, model=model, rolls=rolls, batch_size=4, lr=0.02, bptt=0)
    start = evaluate(model, dataset, CPU).nll_first_frame_scored
    batch = next(iter(batches(dataset, 4)))
    model.train()
    for _ in range(80):
        trainer.learn(batch, unmoved(batch))
    scores = evaluate(model, dataset, CPU)
    assert start > 10
    assert scores.nll_first_frame_scored < start / 10


# ---- each flag of the recipe changes what it names -----------------------------------------------


@pytest.mark.parametrize(
    ("batch_size", "bptt", "steps"),
    [
        # Tunes of 10, 10, 7, 3 and 3 frames, the longest with the longest.
        (2, 4, 6),  # [10 10] in 3 chunks, [7 3] in 2, [3] in 1
        (2, 0, 3),
        (5, 0, 1),
        (5, 1, 10),
        (5, 10, 1),
        (5, 9, 2),
        (1, 4, 10),  # 3 + 3 + 2 + 1 + 1
        (32, 60, 1),
    ],
)
def test_batch_size_and_bptt_decide_the_number_of_steps(
    tmp_path: Path, batch_size: int, bptt: int, steps: int
) -> None:
    trainer = make_trainer(tmp_path, batch_size=batch_size, bptt=bptt)
    trainer.epoch(1)
    (counted,) = {int(moments["step"]) for moments in trainer.optimizer.state.values()}
    assert counted == steps


def test_lr_is_the_size_of_the_first_step_of_adam(tmp_path: Path) -> None:
    for lr in (0.001, 0.03):
        trainer = make_trainer(tmp_path, lr=lr, batch_size=5, bptt=0, clip=0)
        before = weights_of(trainer.model)
        trainer.epoch(1)
        # Adam's first step is lr * g / (|g| + 1e-8): lr itself, wherever there is a slope at all.
        moved = torch.cat(
            [
                (tensor - before[n]).abs().flatten()
                for n, tensor in weights_of(trainer.model).items()
            ]
        )
        assert moved.max().item() == pytest.approx(lr, rel=1e-3)
        assert (moved > 0.99 * lr).float().mean() > 0.5


def test_clip_bounds_the_norm_and_keeps_the_direction(tmp_path: Path) -> None:
    batch = collate([torch.from_numpy(roll) for roll in rolls_of(5, 4)])
    found = {}
    for clip in (0, 0.25, 0.01, 1e6):
        trainer = make_trainer(tmp_path, bptt=0, lr=1e-30, clip=clip)
        trainer.learn(batch, unmoved(batch))
        found[clip] = gradient(trainer.model)
    free = found[0]
    assert free.norm() > 0.5, "the test needs a gradient to clip"
    assert torch.equal(found[1e6], free)
    for clip in (0.25, 0.01):
        assert found[clip].norm().item() == pytest.approx(clip, rel=1e-4)
        assert torch.cosine_similarity(found[clip], free, dim=0).item() == pytest.approx(1)


@pytest.mark.parametrize("sizes", SIZES)
def test_bfloat16_is_for_the_arithmetic_of_training_alone(
    tmp_path: Path, sizes: dict[str, Any]
) -> None:
    rolls = rolls_of(30, 22, 9, density=0.1)
    exact, rough, again = (
        make_trainer(tmp_path, rolls=rolls, sizes=sizes, epochs=3, lr=0.01, precision=precision)
        for precision in ("float32", "bfloat16", "bfloat16")
    )
    for trainer in (exact, rough, again):
        trainer.fit()
    assert all(weights.dtype == torch.float32 for weights in rough.model.parameters())
    assert not same(weights_of(rough.model), weights_of(exact.model))
    assert same(weights_of(rough.model), weights_of(again.model))
    for epoch, expected in zip(rough.history, exact.history, strict=True):
        assert epoch.train == pytest.approx(expected.train, rel=0.02)
        assert epoch.valid == pytest.approx(expected.valid, rel=0.02)
    valid = rough.validate(rough.model)
    rough.settings = exact.settings
    assert rough.validate(rough.model) == valid  # scoring does not mind what training does


def test_epochs_is_the_number_of_passes(tmp_path: Path) -> None:
    for epochs in (1, 3):
        trainer = make_trainer(tmp_path / str(epochs), epochs=epochs)
        assert trainer.fit()
        assert [epoch.epoch for epoch in trainer.history] == list(range(1, epochs + 1))


def test_every_epoch_reads_every_tune_once_in_another_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = make_trainer(tmp_path, rolls=rolls_of(*range(2, 34)), batch_size=4)
    orders = []
    for number in (1, 2, 1):
        seen: list[int] = []
        learn = lambda batch, _, to=seen: to.extend(batch.lengths.tolist()) or 1.0  # noqa: E731
        monkeypatch.setattr(trainer, "learn", learn)
        trainer.epoch(number)
        assert sorted(seen) == list(range(2, 34))
        orders.append(seen)
    assert orders[0] != orders[1]
    assert orders[0] == orders[2]


def test_epoch_reports_the_nll_per_frame_and_trains_with_dropout(tmp_path: Path) -> None:
    rolls = rolls_of(10, 7, 3)
    trainer = make_trainer(tmp_path, rolls=rolls, lr=1e-30)
    expected = np.concatenate([numpy_nlls(trainer.model, roll) for roll in rolls]).mean()
    assert trainer.epoch(1).train == pytest.approx(expected, rel=1e-6)
    modes = []
    trainer.validate = lambda model: modes.append(model.training) or 1.0
    trainer.model.eval()
    trainer.epoch(2)
    assert modes == [True]


# ---- one seed, one result ------------------------------------------------------------------------


@pytest.mark.parametrize("sizes", SIZES)
def test_one_seed_gives_the_same_bytes_and_another_seed_others(
    tmp_path: Path, sizes: dict[str, Any]
) -> None:
    def run(name: str, seed: int) -> bytes:
        torch.rand(len(name))  # whatever was drawn before
        dropped = {"dropout": 0.3, "input_dropout": 0.2, **sizes}
        make_trainer(tmp_path / name, seed=seed, sizes=dropped, lr=0.01).fit()
        return (tmp_path / name / "model.safetensors").read_bytes()

    first = run("first", 5)
    assert run("again", 5) == first
    assert run("other", 6) != first


@pytest.mark.parametrize("memory", [{}, MEMORY | {"memory": 64}], ids=["none", "memory"])
def test_same_seed_gives_the_same_bits_however_threads_are_scheduled(
    tmp_path: Path, memory: dict[str, Any]
) -> None:
    # Sums made in the order in which threads come differed here in nine runs of ten.
    rolls = rolls_of(*[100] * 20)
    batch = collate([torch.from_numpy(roll) for roll in rolls])
    made = []
    torch.set_num_threads(8)
    try:
        for _ in range(6):
            sizes = {"hidden_size": 32, "latent_size": 8, **memory}
            trainer = make_trainer(tmp_path, rolls=rolls, bptt=0, sizes=sizes)
            trainer.learn(batch, unmoved(batch))
            made.append(gradient(trainer.model).clone())
    finally:
        torch.set_num_threads(1)
    assert all(torch.equal(bits, made[0]) for bits in made)


def test_seed_decides_dropout_and_order_not_only_the_first_weights(tmp_path: Path) -> None:
    made = []
    for seed in (5, 6):
        trainer = make_trainer(tmp_path, seed=seed, model=make_model(dropout=0.3), lr=0.01)
        trainer.epoch(1)
        made.append(weights_of(trainer.model))
    assert not same(*made)


def test_training_in_two_threads_gives_the_same_bytes_twice(tmp_path: Path) -> None:
    rolls, made = rolls_of(*[60] * 8, 20), []
    sizes = {"hidden_size": 32, "dropout": 0.3, "transpose": 0.5, **MEMORY, "memory": 64}
    torch.set_num_threads(2)
    try:
        for name in ("one", "two"):
            make_trainer(
                tmp_path / name, rolls=rolls, sizes=sizes, batch_size=8, bptt=30, epochs=1
            ).fit()
            made.append((tmp_path / name / "model.safetensors").read_bytes())
    finally:
        torch.set_num_threads(1)
    assert made[0] == made[1]


# ---- the picture ---------------------------------------------------------------------------------


def test_losses_of_nothing_at_all_are_drawn_too(tmp_path: Path) -> None:
    history = [Epoch(1, 0.0, 0.0, 1.0, 100.0)]  # silence, foreseen
    plot_losses(tmp_path / "loss.png", history, "silence", [("constant marginal", 0.0)])
    assert (tmp_path / "loss.png").stat().st_size > 5_000


@pytest.mark.parametrize("epochs", [1, 12])
@pytest.mark.parametrize("levels", [[], [("copy the frame", 6.83), ("LSTM, test", 3.29)]])
def test_losses_are_drawn_as_a_png_of_sensible_size(
    tmp_path: Path, epochs: int, levels: list[tuple[str, float]]
) -> None:
    history = [Epoch(n, 9 / n, 10 / n + 1, 1.0, 100.0) for n in range(1, epochs + 1)]
    path = tmp_path / "new" / "loss.png"
    plot_losses(path, history, "PianoLSTM on tiny", levels)
    data = path.read_bytes()
    assert data.startswith(b"\x89PNG\r\n\x1a\n")
    width, height = struct.unpack(">II", data[16:24])
    assert 800 <= width <= 2000
    assert 0.5 <= height / width <= 0.75
    assert 5_000 < len(data) < 500_000
    assert [file.name for file in path.parent.iterdir()] == ["loss.png"]
