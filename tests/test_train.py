"""Evaluation and training equal reference.py; settings have their effect; a seed repeats a run."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from torch import Tensor, nn

import reference
import train
from data import Chunk, RollDataset, chunks
from helpers import names_in, roll_from
from helpers_train import (
    ATTENTION,
    CPU,
    DROPOUT,
    LATENT_SIZES,
    VARIANTS,
    batch_of,
    before_each_step,
    chunked_nlls,
    copy_weights,
    frame_parameters,
    gradient_of,
    make_model,
    make_trainer,
    random_rolls,
    read_rows,
    same,
)
from model import PianoLSTM
from pianolstm.ending import EndCalibration
from pianolstm.layers.heads import GREEDY
from pianolstm.metrics.baselines import Baselines
from settings import TrainSettings
from train import (
    ENDS_PRIOR,
    Objective,
    Trainer,
    count_epochs,
    evaluate,
    fit_ends,
    learning_rate,
)

variants = pytest.mark.parametrize("sizes", VARIANTS.values(), ids=VARIANTS)
latents = pytest.mark.parametrize("latent_size", LATENT_SIZES.values(), ids=LATENT_SIZES)
few_variants = pytest.mark.parametrize("name", ["Bernoulli", "plain", "all"])

FROZEN = 1e-30  # a learning rate with which the weights stay as they are


def reference_nlls(model: PianoLSTM, rolls: list[np.ndarray]) -> list[np.ndarray]:
    weights = reference.weights_of(model)
    return [reference.nlls(weights, roll) for roll in rolls]


# ---- evaluation ----------------------------------------------------------------------------------


@variants
def test_scores_are_the_means_of_the_reference_nlls(sizes: dict[str, Any]) -> None:
    model = make_model(**{"dropout": 0.5, "embed_dropout": 0.5, **sizes}).train()
    rolls = random_rolls(9, 2, 5, 14)
    scores = evaluate(model, RollDataset(rolls), CPU)
    nlls = reference_nlls(model, rolls)
    assert scores.nll == pytest.approx(np.concatenate([n[1:] for n in nlls]).mean(), rel=1e-6)
    assert scores.nll_first_frame_scored == pytest.approx(np.concatenate(nlls).mean(), rel=1e-6)
    mean = np.mean([n[1:].mean() for n in nlls])
    assert scores.nll_per_piece_mean == pytest.approx(mean, rel=1e-6)
    mean = np.mean([n.mean() for n in nlls])
    assert scores.nll_per_piece_mean_first_frame_scored == pytest.approx(mean, rel=1e-6)
    assert scores.frames == 30


@pytest.mark.parametrize("sizes", [{}, {"latent_size": 0}, ATTENTION], ids=str)
def test_the_chunks_and_batches_of_evaluation_change_no_score(
    sizes: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make_model(**sizes)
    model.head.set_unigram(torch.linspace(0.9, 0.1, 88))  # so that greedy frames have notes
    dataset = RollDataset(random_rolls(9, 2, 5, 14, density=0.4))
    whole = evaluate(model, dataset, CPU)
    assert whole.frame_accuracy is not None
    assert 0.05 < whole.frame_accuracy < 0.95
    for batch, chunk in [(1, 256), (1, 4), (3, 1), (64, 3), (64, 14)]:
        monkeypatch.setattr(train, "EVAL_BATCH", batch)
        monkeypatch.setattr(train, "EVAL_CHUNK", chunk)
        assert vars(evaluate(model, dataset, CPU)) == pytest.approx(vars(whole), rel=1e-6)


class Repeat:
    """A model that predicts the current frame again; the NLL of a frame is the sum of 2^column."""

    head: "Repeat"

    def __init__(self) -> None:
        self.head, self.metadata = self, {}

    def eval(self) -> None:
        pass

    def __call__(self, frames: Tensor, state: None) -> tuple[Tensor, None]:
        return frames, None

    def nll(self, vectors: Tensor, frames: Tensor) -> Tensor:
        assert vectors.shape == frames.shape
        return frames[:, :10] @ 2.0 ** torch.arange(10)

    def end_head(self, vectors: Tensor, frames: Tensor) -> Tensor:
        return torch.zeros(frames.shape[:2])  # the end is as likely as not

    def sample(self, vectors: Tensor, uniforms: Tensor, params: Any = None) -> Tensor:
        assert params in (None, GREEDY)  # None: a sample from the model's distribution
        return vectors


REPEAT: Any = Repeat()


def columns(*frames: set[int]) -> np.ndarray:
    """Return the roll of frames given as sets of columns."""
    return roll_from(*({21 + column for column in frame} for frame in frames))


def test_pooling_is_that_worked_out_by_hand() -> None:
    first = columns({0, 2}, {0}, {0, 1})  # NLLs 5, 1, 3
    second = columns({0, 1, 2}, {1, 3})  # 7, 10
    scores = evaluate(REPEAT, RollDataset([first, second]), CPU)
    assert scores.nll == pytest.approx((1 + 3 + 10) / 3)
    assert scores.nll_first_frame_scored == pytest.approx((5 + 1 + 3 + 7 + 10) / 5)
    assert scores.nll_per_piece_mean == pytest.approx(((1 + 3) / 2 + 10) / 2)
    with_first = ((5 + 1 + 3) / 3 + (7 + 10) / 2) / 2
    assert scores.nll_per_piece_mean_first_frame_scored == pytest.approx(with_first)


def test_frame_accuracy_is_that_worked_out_by_hand() -> None:
    first = columns({0, 1}, {1, 2}, {1, 2})
    # Frame 2: predicted {0, 1}, true {1, 2}: 1 right, 1 too many, 1 missed. Frame 3: 2 right.
    second = columns({5}, set(), set())
    # Frame 2: predicted {5}, true silence: 1 too many. Frame 3: silence counts nowhere.
    dataset = RollDataset([first, second])
    assert evaluate(REPEAT, dataset, CPU).frame_accuracy == pytest.approx(3 / (3 + 2 + 1))
    assert evaluate(REPEAT, dataset, CPU, accuracy=False).frame_accuracy is None
    silence = RollDataset([columns(set(), set(), set())])
    assert evaluate(REPEAT, silence, CPU).frame_accuracy == 0


def test_expected_frame_accuracy_is_the_mean_over_all_frames_first_ones_too() -> None:
    first = columns({0, 1}, {1, 2}, {1, 2})  # after silence: 0; then 1 / 3; 2 / 2
    second = columns({5}, set(), set())  # 0, 0, and silence twice counts 0
    scores = evaluate(REPEAT, RollDataset([first, second]), CPU)
    assert scores.expected_frame_accuracy == pytest.approx((0 + 1 / 3 + 1) / 6)
    without = evaluate(REPEAT, RollDataset([first, second]), CPU, accuracy=False)
    assert without.expected_frame_accuracy is None


def test_evaluation_changes_neither_weights_nor_random_numbers() -> None:
    model = make_model(dropout=0.5)
    before, state = copy_weights(model), torch.get_rng_state()
    evaluate(model, RollDataset(random_rolls(5, 3)), CPU)
    assert same(copy_weights(model), before)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(weights.grad is None for weights in model.parameters())


# ---- where pieces end ----------------------------------------------------------------------------


def test_fitting_the_ends_predicts_them_better_and_frames_as_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("train.ENDS_BATCH", 64)
    model = make_model(dropout=0.5)
    # A piece ends with the one frame that has this pitch.
    rolls = [roll_from(*[{60 + t % 3} for t in range(n)], {80}) for n in range(4, 12)]
    train, valid = RollDataset(rolls[::2] * 100), RollDataset(rolls[1::2])
    before, kept, state = (
        evaluate(model, valid, CPU, accuracy=False),
        copy_weights(model),
        torch.get_rng_state(),
    )
    fit_ends(model, train, valid, CPU)
    after = evaluate(model, valid, CPU, accuracy=False)
    assert after.end_nll_per_piece < 0.7 * before.end_nll_per_piece
    assert replace(after, end_nll_per_piece=0.0) == replace(before, end_nll_per_piece=0.0)
    changed = {
        name for name, now in copy_weights(model).items() if not torch.equal(now, kept[name])
    }
    assert changed == {name for name in kept if name.startswith("end_head.")}
    assert torch.equal(torch.get_rng_state(), state)


def test_ends_that_validation_does_not_confirm_stay_as_they_were() -> None:
    model = make_model()
    pieces = random_rolls(30)
    model.end_head.set_rate(0.99)  # of frames that end a piece, as all do of the validation split
    before = copy_weights(model)
    fit_ends(model, RollDataset(pieces), RollDataset([pieces[0][:1]]), CPU)
    assert same(copy_weights(model), before)


def test_ends_are_calibrated_by_the_number_of_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("train.ENDS_PASSES", 0)
    model, lengths = make_model(), [11, 12, 12, 12, 13, 14] * 5
    for weights in model.end_head.parameters():
        nn.init.zeros_(weights)
    model.end_head.set_rate(0.08)  # in every frame, which is 0.08 ends a frame and one a piece
    valid = RollDataset(random_rolls(*lengths))
    before = evaluate(model, valid, CPU, accuracy=False).end_nll_per_piece
    fit_ends(model, RollDataset(random_rolls(10, 14)), valid, CPU)
    after = evaluate(model, valid, CPU, accuracy=False).end_nll_per_piece
    fitted = EndCalibration.of_metadata(model.metadata)
    assert fitted.typical == 12  # mean of the training pieces
    logit = math.log(0.08 / 0.92)

    def nll_and_penalty(numbers: np.ndarray, prior: float = ENDS_PRIOR) -> float:
        """Return the NLL of the ends by hand, and the prior's."""
        scale, bias, linear, square = numbers
        total = prior / 2 * ((numbers - [1, 0, 0, 0]) ** 2).sum()
        for length in lengths:
            for t in range(1, length + 1):
                q = math.log(t / 12)
                p = 1 / (1 + math.exp(-(scale * logit + bias + linear * q + square * q * q)))
                total -= math.log(p if t == length else 1 - p)
        return float(total)

    best = minimize(nll_and_penalty, [1, 0, 0, 0])
    np.testing.assert_allclose(fitted[1:], best.x, atol=1e-3)
    assert before == pytest.approx(nll_and_penalty(np.array([1, 0, 0, 0])) / 30)
    assert after == pytest.approx(nll_and_penalty(np.array(fitted[1:]), 0) / 30)
    assert after < before - 0.5


def test_ends_are_fitted_to_a_part_of_a_large_training_split(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("train.ENDS_FRAMES", 20)
    read: list[int] = []
    model = make_model()
    model.register_forward_pre_hook(lambda module, inputs: read.append(len(inputs[0])))
    fit_ends(model, RollDataset(random_rolls(*[6] * 50)), RollDataset(random_rolls(3, 3)), CPU)
    assert read == [4, 2]  # pieces: of 6 frames up to the first 20, and both of validation


# ---- the loss ------------------------------------------------------------------------------------


@torch.no_grad()
@pytest.mark.parametrize("bptt", [0, 1, 3, 5])
@variants
def test_training_nlls_equal_the_reference_whatever_padding_bptt_and_transposition(
    sizes: dict[str, Any], bptt: int
) -> None:
    rolls, shift = random_rolls(11, 7, 6, 2, density=0.2), [4, 0, -3, 6]
    model = make_model(**sizes).double()
    nlls = chunked_nlls(model, batch_of(rolls), bptt, shift)
    weights = reference.weights_of(model)
    for computed, roll, semitones in zip(nlls, rolls, shift, strict=True):
        np.testing.assert_allclose(computed, reference.nlls(weights, roll, semitones), rtol=1e-9)


@few_variants
def test_an_epoch_reports_the_mean_nll_of_all_frames(tmp_path: Path, name: str) -> None:
    rolls = random_rolls(10, 7, 3)
    sizes = VARIANTS[name] | {"transpose_prob": 0.0}
    trainer = make_trainer(tmp_path, rolls=rolls, sizes=sizes, lr=FROZEN, epochs=1)
    expected = np.concatenate(reference_nlls(trainer.model, rolls)).mean()
    trainer.fit()
    assert trainer.history[0].train == pytest.approx(expected, rel=1e-6)


@few_variants
def test_a_step_follows_the_gradient_of_the_mean_nll_of_all_frames(
    tmp_path: Path, name: str
) -> None:
    rolls = random_rolls(5, 2, 3, density=0.2)
    sizes = VARIANTS[name] | {"transpose_prob": 0.0}
    trainer = after_two_steps(tmp_path, rolls=rolls, sizes=sizes)
    # The slope along one random direction, in which every weight changes.
    torch.manual_seed(1)
    named = frame_parameters(trainer.model)
    direction = {name: torch.randn_like(weights).double() for name, weights in named.items()}

    def loss(weights: reference.Weights) -> float:
        return np.concatenate([reference.nlls(weights, roll) for roll in rolls]).mean()

    weights = {n: a for n, a in reference.weights_of(trainer.model).items() if n in direction}
    moved = {name: values.numpy() for name, values in direction.items()}
    slope = torch.cat([values.flatten() for values in direction.values()])
    assert float(gradient_of(trainer.model).double() @ slope) == pytest.approx(
        reference.slope(loss, weights, moved, 1e-5), rel=1e-3
    )


@torch.no_grad()
@few_variants
def test_consistency_adds_the_divergence_of_two_transpositions_to_their_mean_nll(name: str) -> None:
    model = make_model(**VARIANTS[name]).double()
    rolls = random_rolls(9, 5, density=0.1)
    for roll in rolls:
        roll[:, :10] = roll[:, -10:] = False
    rows = [np.roll(roll, semitones, axis=1) for roll in rolls for semitones in (1, -2)]
    shift = torch.tensor([1, -2, 1, -2])
    state, nlls, added = None, 0.0, 0.0
    for chunk in chunks(batch_of(rows), 4):
        chunk = chunk._replace(inputs=chunk.inputs.double(), targets=chunk.targets.double())
        nll, extra, after = Objective(model, 0.5)(chunk, state, shift)
        plain_nll, ends, _ = Objective(model)(chunk, state, shift)
        torch.testing.assert_close(nll.sum(), plain_nll.sum())
        nlls, added, state = nlls + float(nll.sum()), added + float(extra - ends), after
    weights = reference.weights_of(model)
    expected = sum(
        reference.nlls(weights, row, int(s)).sum() for row, s in zip(rows, shift, strict=True)
    )
    assert nlls == pytest.approx(expected, rel=1e-9)
    divergence = 0.0
    for index in (0, 2):
        vectors = []
        for row, semitones in ((rows[index], 1), (rows[index + 1], -2)):
            inputs = np.concatenate([np.zeros((1, 88)), row[:-1]])
            vectors.append(torch.from_numpy(reference.predict(weights, inputs, semitones)))
        frames = torch.from_numpy(np.stack([rows[index], rows[index + 1]])).double()
        by = torch.full((len(frames[0]),), -3)
        _, values = model.head.nll_and_divergence(torch.stack(vectors), frames, by)
        divergence += float(values.sum())
    # The mean over two transpositions is taken of all sums.
    assert added / 2 == pytest.approx(0.5 * divergence, rel=1e-9)


def test_with_consistency_each_piece_is_trained_on_in_two_transpositions(tmp_path: Path) -> None:
    rolls = [np.roll(np.eye(9, 88, 40, dtype=bool), 0, axis=1), np.eye(4, 88, 30, dtype=bool)]
    sizes = {"transpose_prob": 1.0, "latent_size": 3}
    trainer = make_trainer(tmp_path, rolls=rolls, sizes=sizes, lr=FROZEN, consistency=0.5, bptt=0)
    shifts: set[int] = set()

    def check(_: int, chunk: Chunk, shift: Tensor) -> None:
        assert chunk.inputs.shape[:2] == (4, 10) and chunk.mask.sum(dim=1).tolist() == [9, 9, 4, 4]
        for row, semitones in enumerate(shift.tolist()):
            expected = np.roll(rolls[row // 2], semitones, axis=1)
            assert np.array_equal(chunk.targets[row, : len(expected)].numpy() > 0, expected)
        shifts.update((shift[0::2] - shift[1::2]).tolist())

    before_each_step(trainer, check)
    trainer.fit()
    assert len(shifts) > 1


def after_two_steps(folder: Path, **settings: Any) -> Trainer:
    """Return a trainer after two steps, each on all pieces, which leave the weights alone."""
    trainer = make_trainer(
        folder, **{"epochs": 2, "batch_size": 32, "bptt": 0, "clip": 0, "lr": FROZEN} | settings
    )
    trainer.fit()
    return trainer


@latents
def test_four_tiny_pieces_can_be_overfitted(tmp_path: Path, latent_size: int) -> None:
    rolls = random_rolls(12, 12, 12, 12)
    dataset = RollDataset(rolls)
    model = make_model(embed_size=32, hidden_size=48, latent_size=latent_size and 8)
    model.head.set_unigram(Baselines(dataset.rolls).marginals.float())
    start = evaluate(model, dataset, CPU).nll_first_frame_scored
    recipe = {"epochs": 20, "batch_size": 1, "lr": 0.02, "bptt": 0, "validate": lambda _: 1.0}
    make_trainer(tmp_path, model=model, rolls=rolls, **recipe).fit()
    assert start > 10
    assert evaluate(model, dataset, CPU).nll_first_frame_scored < start / 10


# ---- settings ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("max_steps", "batch_size", "bptt", "epochs"),
    [
        (0, 2, 4, 20),  # --epochs
        # Pieces of [10 10] frames in 3 chunks, [7 3] in 2, [3] in 1: 6 steps an epoch.
        (6, 2, 4, 1),
        (62, 2, 4, 10),
        (64, 2, 4, 11),
        (1, 2, 4, 1),
        (30, 2, 0, 10),  # three batches, whole
        (30, 5, 10, 30),
        (30, 5, 9, 15),
        (100, 1, 4, 10),  # 3 + 3 + 2 + 1 + 1
        (7, 100, 60, 7),
    ],
)
def test_max_steps_become_the_epochs_that_come_nearest(
    max_steps: int, batch_size: int, bptt: int, epochs: int
) -> None:
    settings = TrainSettings(max_steps=max_steps, batch_size=batch_size, bptt=bptt)
    assert count_epochs(settings, np.array([3, 10, 7, 10, 3])) == epochs


@pytest.mark.parametrize(
    ("batch_size", "bptt", "steps"), [(2, 4, 6), (2, 0, 3), (5, 9, 2), (1, 4, 10), (32, 60, 1)]
)
def test_an_epoch_takes_as_many_steps_as_batch_size_and_bptt_give(
    tmp_path: Path, batch_size: int, bptt: int, steps: int
) -> None:
    trainer = make_trainer(tmp_path, epochs=1, batch_size=batch_size, bptt=bptt)
    trainer.fit()
    assert {int(moments["step"]) for moments in trainer.optimizer.state.values()} == {steps}
    settings = TrainSettings(max_steps=9 * steps, batch_size=batch_size, bptt=bptt)
    assert count_epochs(settings, trainer.train.lengths) == 9


def test_a_constant_learning_rate_is_lr_throughout() -> None:
    settings = TrainSettings(lr=0.003)
    assert {learning_rate(settings, progress) for progress in (0, 0.1, 0.5, 1)} == {0.003}


@pytest.mark.parametrize("warmup_ratio", [0.25, 0.5])
def test_onecycle_rises_and_falls_in_half_cosines(warmup_ratio: float) -> None:
    settings = TrainSettings(lr=0.008, lr_schedule="onecycle", warmup_ratio=warmup_ratio)
    for progress, rate in [(0, 0), (warmup_ratio, 0.008), (1, 0)]:
        assert learning_rate(settings, progress) == rate
    # (1 - cos) / 2 at 1/4, 1/3, 1/2 and 2/3 of the way, on either side.
    for way, share in [
        (1 / 4, (1 - math.sqrt(0.5)) / 2),
        (1 / 3, 1 / 4),
        (1 / 2, 1 / 2),
        (2 / 3, 3 / 4),
    ]:
        for progress in (way * warmup_ratio, 1 - way * (1 - warmup_ratio)):
            assert learning_rate(settings, progress) == pytest.approx(0.008 * share)


@pytest.mark.parametrize("schedule", ["constant", "onecycle"])
def test_each_batch_has_the_learning_rate_of_its_place_in_training(
    tmp_path: Path, schedule: str
) -> None:
    trainer = make_trainer(tmp_path, epochs=3, lr=0.01, bptt=0, lr_schedule=schedule)
    seen: list[tuple[int, float]] = []
    before_each_step(
        trainer,
        lambda _, chunk, __: seen.append((chunk.total, trainer.optimizer.param_groups[0]["lr"])),
    )
    trainer.fit()
    done = 0
    for frames, rate in seen:
        assert rate == pytest.approx(learning_rate(trainer.settings, done / 99), abs=1e-12)
        done += frames
    assert done == 99  # the five pieces have 33 frames


def test_lr_is_the_size_of_adams_first_step(tmp_path: Path) -> None:
    for lr in (0.001, 0.03):
        trainer = make_trainer(tmp_path, lr=lr, batch_size=5, bptt=0, clip=0, epochs=1)
        before = copy_weights(trainer.model)
        trainer.fit()
        # It is lr * g / (|g| + 1e-8): lr itself, wherever the gradient is not 0.
        after = copy_weights(trainer.model)
        change = torch.cat([(after[name] - before[name]).abs().flatten() for name in before])
        assert change.max().item() == pytest.approx(lr, rel=1e-3)
        assert (change > 0.99 * lr).float().mean() > 0.5


def test_clip_bounds_the_norm_of_the_gradient_and_keeps_its_direction(tmp_path: Path) -> None:
    free, unclipped, *clipped = (
        gradient_of(after_two_steps(tmp_path, clip=clip).model) for clip in (0, 1e6, 0.25, 0.01)
    )
    assert free.norm() > 0.5, "the test needs a gradient to clip"
    assert torch.equal(unclipped, free)
    for gradient, clip in zip(clipped, (0.25, 0.01), strict=True):
        assert gradient.norm().item() == pytest.approx(clip, rel=1e-4)
        assert torch.cosine_similarity(gradient, free, dim=0).item() == pytest.approx(1)


@few_variants
def test_bfloat16_is_used_in_training_alone_and_changes_losses_little(
    tmp_path: Path, name: str
) -> None:
    rolls = random_rolls(30, 22, 9, density=0.1)
    exact, rounded = (
        make_trainer(
            tmp_path, rolls=rolls, sizes=VARIANTS[name], epochs=3, lr=0.01, precision=precision
        )
        for precision in ("float32", "bfloat16")
    )
    for trainer in (exact, rounded):
        trainer.fit()
    assert all(weights.dtype == torch.float32 for weights in rounded.model.parameters())
    assert not same(copy_weights(rounded.model), copy_weights(exact.model))
    for epoch, expected in zip(rounded.history, exact.history, strict=True):
        assert epoch.train == pytest.approx(expected.train, rel=0.02)
        assert epoch.valid == pytest.approx(expected.valid, rel=0.02)
    valid = evaluate(rounded.model, RollDataset(random_rolls(6, 4, seed=99)), CPU).nll
    assert valid == rounded.history[-1].valid


# ---- epochs --------------------------------------------------------------------------------------


def lengths_in(chunk: Chunk) -> list[int]:
    return chunk.mask.sum(dim=1).tolist()


def test_every_epoch_reads_every_piece_once_in_another_order_of_batches(tmp_path: Path) -> None:
    orders = []
    for run in ("one", "two"):
        rolls = random_rolls(*range(2, 34))
        trainer = make_trainer(tmp_path / run, rolls=rolls, batch_size=4, bptt=0)
        read: list[int] = []
        before_each_step(trainer, lambda _, chunk, __, to=read: to.extend(lengths_in(chunk)))
        trainer.fit()
        assert [epoch.epoch for epoch in trainer.history] == [1, 2]
        epochs = read[:32], read[32:]
        assert all(sorted(epoch) == list(range(2, 34)) for epoch in epochs)
        orders.append(epochs)
    assert orders[0][0] != orders[0][1]
    assert orders[0] == orders[1]


@pytest.mark.parametrize("probability", [0.0, 1.0])
def test_every_epoch_transposes_pieces_anew_and_gives_the_model_the_interval(
    tmp_path: Path, probability: float
) -> None:
    pitches = range(30, 70)
    rolls = [roll_from(*[{21 + pitch}] * 4) for pitch in pitches]
    trainer = make_trainer(
        tmp_path, rolls=rolls, sizes={"transpose_prob": probability}, batch_size=8, bptt=0
    )
    originals: list[int] = []
    shifts: list[int] = []

    def read(_: int, chunk: Chunk, shift: Tensor) -> None:
        originals.extend((chunk.inputs[:, 1].argmax(dim=1) - shift).tolist())
        shifts.extend(shift.tolist())

    before_each_step(trainer, read)
    trainer.fit()
    assert sorted(originals[:40]) == sorted(originals[40:]) == list(pitches)
    assert (shifts[:8] != shifts[8:16]) == bool(probability)
    assert (shifts[:40] != shifts[40:]) == bool(probability)
    transposed = sum(semitones != 0 for semitones in shifts[:40])
    assert transposed > 30 if probability else transposed == 0


def test_training_has_dropout_on_again_after_each_validation(tmp_path: Path) -> None:
    modes = []
    trainer = make_trainer(tmp_path)
    before_each_step(trainer, lambda *_: modes.append(trainer.model.training))
    trainer.fit()
    assert not trainer.model.training  # evaluation was last
    assert set(modes) == {True}


# ---- files ---------------------------------------------------------------------------------------


def test_a_run_writes_a_row_per_epoch_as_it_goes_and_no_other_files(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows, plotted = [], []

    def validate(_: PianoLSTM) -> float:
        path = tmp_path / "metrics.csv"
        rows.append(len(read_rows(path)) if path.exists() else 0)
        return 1.25

    trainer = make_trainer(tmp_path, epochs=3, validate=validate)
    trainer.plot = lambda history: plotted.append(len(history))
    trainer.fit()
    assert rows == [0, 1, 2]
    assert plotted == [1]  # the next plot would come ten seconds later
    assert names_in(tmp_path) == ["metrics.csv", "model.safetensors", "state.pt", "times.csv"]
    assert (tmp_path / "metrics.csv").read_text().startswith("epoch,train,valid\n")
    losses, times = read_rows(tmp_path / "metrics.csv"), read_rows(tmp_path / "times.csv")
    for loss, duration, epoch in zip(losses, times, trainer.history, strict=True):
        row = {name: float(value) for name, value in (loss | duration).items()}
        assert row == vars(epoch)
        # The five pieces have 33 frames.
        assert row["frames_per_second"] * row["seconds"] == pytest.approx(33)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in lines] == [["epoch", str(n)] for n in (1, 2, 3)]
    assert all("valid  1.250 nats/frame" in line for line in lines)


@pytest.mark.parametrize(
    ("values", "best"), [([3.0, 1.0, 2.0], 2), ([1.0, 2.0, 3.0], 1), ([3.0, 2.0, 1.0], 3)]
)
def test_the_weights_with_the_lowest_valid_nll_are_kept(
    tmp_path: Path, values: list[float], best: int
) -> None:
    seen: list[dict[str, Tensor]] = []
    turns = iter(values)

    def validate(model: PianoLSTM) -> float:
        seen.append(copy_weights(model))
        return next(turns)

    make_trainer(tmp_path, validate=validate, epochs=3, lr=0.01).fit()
    kept = PianoLSTM.load(tmp_path)
    matches = [same(copy_weights(kept), weights) for weights in seen]
    assert [epoch for epoch, match in enumerate(matches, start=1) if match] == [best]
    assert kept.metadata["best_epoch"] == best
    assert kept.metadata["valid_nll"] == 1.0
    assert kept.metadata["dataset"] == "tiny"


# ---- one seed, one result ------------------------------------------------------------------------


@few_variants
def test_a_seed_repeats_the_weights_byte_for_byte_and_another_does_not(
    tmp_path: Path, name: str
) -> None:
    def run(folder: str, seed: int) -> bytes:
        torch.rand(len(folder))  # whatever random numbers were used before
        sizes = DROPOUT | VARIANTS[name]
        make_trainer(tmp_path / folder, seed=seed, sizes=sizes, lr=0.01).fit()
        return (tmp_path / folder / "model.safetensors").read_bytes()

    first = run("first", 5)
    assert run("again", 5) == first
    assert run("other", 6) != first


def test_the_seed_decides_dropout_and_order_and_not_only_the_first_weights(tmp_path: Path) -> None:
    weights = []
    for seed in (5, 6):
        trainer = make_trainer(tmp_path, seed=seed, model=make_model(**DROPOUT), lr=0.01, epochs=1)
        trainer.fit()
        weights.append(copy_weights(trainer.model))
    assert not same(*weights)


@pytest.mark.parametrize(
    "part", [{}, ATTENTION | {"attention_window": 64}], ids=["plain", "attention"]
)
def test_a_seed_repeats_the_gradient_bit_for_bit_on_several_threads(
    tmp_path: Path, part: dict[str, Any]
) -> None:
    # Sums in the order in which threads finish differed here in nine runs of ten.
    rolls = random_rolls(*[100] * 20)
    sizes = {"hidden_size": 32, "latent_size": 8, **part, **DROPOUT}
    settings: dict[str, Any] = {"rolls": rolls, "sizes": sizes, "validate": lambda _: 1.0}
    torch.set_num_threads(8)
    try:
        gradients = [gradient_of(after_two_steps(tmp_path, **settings).model) for _ in range(4)]
    finally:
        torch.set_num_threads(1)
    assert all(torch.equal(gradient, gradients[0]) for gradient in gradients)
