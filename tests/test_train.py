"""Training and evaluation: the loss, the scores, the steps taken, and what a stopped run keeps.

Losses are held against numpy in float64, one tune after another, one frame after another. All
models have the 88 keys and next to nothing else.
"""

import contextlib
import csv
import itertools
import math
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import train
from checkpoint import load_model, read_tensors
from data import RollDataset, batches, collate, read
from model import PianoLSTM
from settings import ModelSettings, TrainSettings
from train import Baselines, DivergedError, Epoch, Trainer, best_of, evaluate, plot_losses

K = 88
CPU = torch.device("cpu")
LATENTS = [0, 3]  # the Bernoulli head, the chord head


def make_model(seed: int = 0, **sizes: Any) -> PianoLSTM:
    torch.manual_seed(seed)
    small = {"embed_size": 5, "hidden_size": 6, "latent_size": 3}
    return PianoLSTM(ModelSettings(**{**small, **sizes}))


def rolls_of(*lengths: int, density: float = 0.05, seed: int = 0) -> list[np.ndarray]:
    """Return random rolls, (T, 88) bool, the second frame of the first one silent."""
    generator = np.random.default_rng(seed)
    rolls = [generator.random((n, K)) < density for n in lengths]
    rolls[0][1] = False
    return rolls


def roll_from(*frames: set[int]) -> np.ndarray:
    """Return the roll of frames given as sets of columns, (T, 88) bool."""
    roll = np.zeros((len(frames), K), dtype=bool)
    for t, keys in enumerate(frames):
        roll[t, sorted(keys)] = True
    return roll


# ---- the slow way --------------------------------------------------------------------------------


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def numpy_nlls(model: PianoLSTM, roll: np.ndarray) -> np.ndarray:
    """Return the NLL of every frame of a tune, (T,), in float64: the model of one layer again."""
    w = {name: tensor.double().numpy() for name, tensor in model.state_dict().items()}
    h = c = np.zeros(w["lstm.weight_hh_l0"].shape[1])
    heard, nlls = np.zeros(K), []
    for frame in roll:
        x = w["embedding.weight"] @ heard + w["embedding.bias"]
        gates = w["lstm.weight_ih_l0"] @ x + w["lstm.bias_ih_l0"]
        gates = gates + w["lstm.weight_hh_l0"] @ h + w["lstm.bias_hh_l0"]
        i, f, g, o = np.split(gates, 4)  # PyTorch's order: input, forget, cell, output
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
        nlls.append(numpy_head(w, h, frame))
        heard = frame.astype(float)
    return np.array(nlls)


def numpy_head(w: dict[str, np.ndarray], h: np.ndarray, frame: np.ndarray) -> float:
    base = w["head.logits.weight"] @ h + w["head.logits.bias"]
    if len(base) == K:
        p = sigmoid(base)
        return float(-np.log(np.where(frame, p, 1 - p)).sum())
    scale = 1 + w["head.context.weight"] @ h + w["head.context.bias"]
    chosen, below, total = np.zeros(K), K + 1, 0.0
    for choice in [*(np.flatnonzero(frame)[::-1] + 1).tolist(), 0]:
        votes = w["head.completion.weight"] @ (w["head.chosen.weight"] @ chosen * scale)
        odds = np.exp((base + votes)[:below])
        total -= math.log(odds[choice] / odds.sum())
        if choice:
            chosen[choice - 1] = 1
        below = choice
    return total


# ---- training: helpers ---------------------------------------------------------------------------


def make_trainer(
    folder: Path,
    *,
    seed: int = 3,
    model: PianoLSTM | None = None,
    rolls: list[np.ndarray] | None = None,
    validate: Callable[[], float] | None = None,
    sizes: dict[str, Any] | None = None,
    **settings: Any,
) -> Trainer:
    """Return a trainer as main.py makes it; by default on five tunes of 3 to 10 frames."""
    model = model or make_model(seed, **(sizes or {}))
    valid = RollDataset(rolls_of(6, 4, seed=99))
    return Trainer(
        model,
        RollDataset(rolls or rolls_of(10, 10, 7, 3, 3)),
        validate or (lambda: evaluate(model, valid, CPU, accuracy=False).nll),
        TrainSettings(**{"batch_size": 2, "epochs": 2, "bptt": 4, **settings}),
        seed,
        CPU,
        folder,
        record={"dataset": "tiny"},
    )


def weights_of(model: PianoLSTM) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same(left: dict[str, Tensor], right: dict[str, Tensor]) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[n], right[n]) for n in left)


def gradient(model: PianoLSTM) -> Tensor:
    return torch.cat([weights.grad.flatten() for weights in model.parameters()])


def read_metrics(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


# ---- the loss ------------------------------------------------------------------------------------


@pytest.mark.parametrize("bptt", [0, 1, 3])
@pytest.mark.parametrize("latent", LATENTS)
def test_loss_is_that_of_a_float64_loop_in_numpy(tmp_path: Path, latent: int, bptt: int) -> None:
    rolls = rolls_of(7, 3, 4)
    # With steps this small, the weights stay where they are.
    trainer = make_trainer(tmp_path, sizes={"latent_size": latent}, lr=1e-30, bptt=bptt)
    expected = sum(numpy_nlls(trainer.model, roll).sum() for roll in rolls)
    batch = collate([torch.from_numpy(roll) for roll in rolls])
    assert trainer.learn(batch) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("latent", LATENTS)
def test_steps_follow_the_gradient_of_the_mean_nll_of_frames(tmp_path: Path, latent: int) -> None:
    rolls = rolls_of(5, 2, 3)
    trainer = make_trainer(tmp_path, sizes={"latent_size": latent}, lr=1e-30, bptt=0, clip=0)
    trainer.learn(collate([torch.from_numpy(roll) for roll in rolls]))
    taken = gradient(trainer.model)
    # The slope along one random direction, by moving the weights of the loop in numpy.
    torch.manual_seed(1)
    weights = weights_of(trainer.model)
    along = {name: torch.randn_like(tensor) for name, tensor in weights.items()}
    sides = []
    for sign in (1, -1):
        moved = make_model(latent_size=latent).double()
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
        trainer.learn(batch)
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
        trainer.learn(batch)
        found[clip] = gradient(trainer.model)
    free = found[0]
    assert free.norm() > 0.5, "the test needs a gradient to clip"
    assert torch.equal(found[1e6], free)
    for clip in (0.25, 0.01):
        assert found[clip].norm().item() == pytest.approx(clip, rel=1e-4)
        assert torch.cosine_similarity(found[clip], free, dim=0).item() == pytest.approx(1)


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
        monkeypatch.setattr(trainer, "learn", lambda b, s=seen: s.extend(b.lengths.tolist()) or 1.0)
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
    trainer.validate = lambda: modes.append(trainer.model.training) or 1.0
    trainer.model.eval()
    trainer.epoch(2)
    assert modes == [True]


# ---- evaluation ----------------------------------------------------------------------------------


@pytest.mark.parametrize("latent", LATENTS)
def test_scores_are_those_of_each_tune_by_itself(latent: int) -> None:
    model = make_model(latent_size=latent, dropout=0.5).train()
    rolls = rolls_of(9, 2, 5, 14)
    scores = evaluate(model, RollDataset(rolls), CPU)
    nlls = [numpy_nlls(model, roll) for roll in rolls]
    assert scores.nll == pytest.approx(np.concatenate([n[1:] for n in nlls]).mean(), rel=1e-6)
    assert scores.nll_first_frame_scored == pytest.approx(np.concatenate(nlls).mean(), rel=1e-6)
    means = [n[1:].mean() for n in nlls]
    assert scores.nll_per_tune_mean == pytest.approx(np.mean(means), rel=1e-6)
    assert scores.frames == 30
    assert not math.isclose(scores.nll, scores.nll_per_tune_mean, rel_tol=1e-4)
    assert not math.isclose(scores.nll, scores.nll_first_frame_scored, rel_tol=1e-4)


@pytest.mark.parametrize("latent", LATENTS)
def test_how_evaluation_is_cut_changes_no_score(
    latent: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make_model(latent_size=latent)
    model.head.set_marginals(torch.linspace(0.9, 0.1, K))  # so that greedy frames are not empty
    dataset = RollDataset(rolls_of(9, 2, 5, 14, density=0.4))
    whole = evaluate(model, dataset, CPU)
    assert whole.frame_accuracy is not None
    assert 0.05 < whole.frame_accuracy < 0.95
    for batch, chunk in [(1, 256), (1, 4), (3, 1), (3, 5), (64, 3), (64, 14)]:
        monkeypatch.setattr(train, "EVAL_BATCH", batch)
        monkeypatch.setattr(train, "EVAL_CHUNK", chunk)
        cut = evaluate(model, dataset, CPU)
        assert vars(cut) == pytest.approx(vars(whole), rel=1e-6)


class Echo:
    """Predicts the frame before again; a frame's NLL is the sum of 2^column over its keys."""

    head: "Echo"

    def __init__(self) -> None:
        self.head = self

    def eval(self) -> None:
        """Have nothing to switch off."""

    def __call__(self, frames: Tensor, state: Any) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        return frames, (torch.zeros(1, len(frames), 1), torch.zeros(1, len(frames), 1))

    def nll(self, hidden: Tensor, frames: Tensor) -> Tensor:
        assert hidden.shape == frames.shape
        return frames[:, :10] @ 2.0 ** torch.arange(10)

    def sample(self, hidden: Tensor, generator: Any = None, temperature: float = 1.0) -> Tensor:
        assert temperature == 0
        return hidden


def test_pooling_worked_out_by_hand() -> None:
    one = roll_from({0, 2}, {0}, {0, 1})  # NLLs 5, 1, 3
    two = roll_from({0, 1, 2}, {1, 3})  # 7, 10
    scores = evaluate(Echo(), RollDataset([one, two]), CPU)  # type: ignore[arg-type]
    assert scores.nll == pytest.approx((1 + 3 + 10) / 3)
    assert scores.nll_first_frame_scored == pytest.approx((5 + 1 + 3 + 7 + 10) / 5)
    assert scores.nll_per_tune_mean == pytest.approx(((1 + 3) / 2 + 10) / 2)
    assert scores.frames == 5


def test_frame_accuracy_worked_out_by_hand() -> None:
    one = roll_from({0, 1}, {1, 2}, {1, 2})
    # Frame 2: predicted {0, 1}, is {1, 2}: 1 right, 1 too many, 1 missed. Frame 3: 2 right.
    two = roll_from({5}, set(), set())
    # Frame 2: predicted {5}, is silent: 1 too many. Frame 3: silence as silence, nowhere.
    dataset = RollDataset([one, two])
    scores = evaluate(Echo(), dataset, CPU)  # type: ignore[arg-type]
    assert scores.frame_accuracy == pytest.approx(3 / (3 + 2 + 1))
    unasked = evaluate(Echo(), dataset, CPU, accuracy=False)  # type: ignore[arg-type]
    assert unasked.frame_accuracy is None
    assert unasked.nll == scores.nll


def test_frame_accuracy_of_a_silent_split_is_zero() -> None:
    silent = RollDataset([roll_from(set(), set(), set())])
    assert evaluate(Echo(), silent, CPU).frame_accuracy == 0  # type: ignore[arg-type]


def test_evaluation_leaves_no_trace() -> None:
    model = make_model(dropout=0.5)
    before, chance = weights_of(model), torch.get_rng_state()
    evaluate(model, RollDataset(rolls_of(5, 3)), CPU)
    assert same(weights_of(model), before)
    assert torch.equal(torch.get_rng_state(), chance)
    assert all(weights.grad is None for weights in model.parameters())


# ---- baselines -----------------------------------------------------------------------------------

# Key 0 sounds in four of five frames, key 1 in one, the others never.
TRAIN = [roll_from({0}, {0, 1}, set()), roll_from({0}, {0})]


def test_baselines_count_by_laplaces_rule() -> None:
    baselines = Baselines(RollDataset(TRAIN))
    assert baselines.marginals.tolist() == pytest.approx([5 / 7, 2 / 7, *[1 / 7] * 86])
    # Sounded before: key 0 in frames 1, 2 and 4, key 1 in frame 2; held after frames 1 and 4.
    assert baselines.p_held == pytest.approx((2 + 1) / (4 + 2))
    # Silent before: 3 pairs * 88 keys - 4; struck: key 1 once. Frame 4 does not follow frame 3.
    assert baselines.p_struck == pytest.approx((1 + 1) / (260 + 2))


def test_baseline_scores_worked_out_by_hand() -> None:
    baselines = Baselines(RollDataset(TRAIN))
    test = RollDataset([roll_from({0}, {0, 1}), roll_from({7}, set(), {0})])
    log = math.log
    both = log(5 / 7) + log(2 / 7) + 86 * log(6 / 7)  # {0, 1}
    none = log(2 / 7) + log(5 / 7) + 86 * log(6 / 7)  # silence
    lone = log(5 / 7) + log(5 / 7) + 86 * log(6 / 7)  # {0}
    assert baselines.marginal(test) == pytest.approx(-(both + none + lone) / 3)
    rest, held, struck = log(260 / 262), log(3 / 6), log(2 / 262)
    copied = (held + struck + 86 * rest) + (log(1 - 3 / 6) + 87 * rest) + (struck + 87 * rest)
    assert baselines.copy_previous(test) == pytest.approx(-copied / 3)


def test_baselines_are_finite_on_silence() -> None:
    silent = RollDataset([roll_from(set(), set())])
    loud = RollDataset([roll_from(set(range(88)), set(range(88)))])
    for fitted, scored in itertools.product((silent, loud), repeat=2):
        baselines = Baselines(fitted)
        assert math.isfinite(baselines.marginal(scored))
        assert math.isfinite(baselines.copy_previous(scored))


def test_baselines_of_nottingham_are_those_published(data_dir: Path) -> None:
    path = data_dir / "Nottingham.pickle"
    if not path.is_file():
        pytest.skip("no Nottingham.pickle in PIANO_DATA_DIR")
    splits, _ = read(path, 0.5)
    baselines = Baselines(RollDataset(splits["train"]))
    test = RollDataset(splits["test"])
    assert round(baselines.marginal(test), 2) == 10.26
    assert round(baselines.copy_previous(test), 2) == 6.83


# ---- one seed, one result ------------------------------------------------------------------------


@pytest.mark.parametrize("latent", LATENTS)
def test_one_seed_gives_the_same_bytes_and_another_seed_others(tmp_path: Path, latent: int) -> None:
    def run(name: str, seed: int) -> bytes:
        torch.rand(len(name))  # whatever was drawn before
        sizes = {"latent_size": latent, "dropout": 0.3}
        make_trainer(tmp_path / name, seed=seed, sizes=sizes, lr=0.01).fit()
        return (tmp_path / name / "model.safetensors").read_bytes()

    first = run("first", 5)
    assert run("again", 5) == first
    assert run("other", 6) != first


def test_same_seed_gives_the_same_bits_however_threads_are_scheduled(tmp_path: Path) -> None:
    # Sums made in the order in which threads come differed here in nine runs of ten.
    rolls = rolls_of(*[100] * 20)
    batch = collate([torch.from_numpy(roll) for roll in rolls])
    made = []
    torch.set_num_threads(8)
    try:
        for _ in range(6):
            trainer = make_trainer(
                tmp_path, rolls=rolls, bptt=0, sizes={"hidden_size": 32, "latent_size": 8}
            )
            trainer.learn(batch)
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


# ---- what a run keeps ----------------------------------------------------------------------------


def watched(model: PianoLSTM, values: list[float], seen: list[Any]) -> Callable[[], float]:
    """Return a `validate` that gives these values in turn and notes the weights it met."""
    turns = iter(values)

    def validate() -> float:
        seen.append(weights_of(model))
        return next(turns)

    return validate


@pytest.mark.parametrize(
    ("values", "best"), [([3.0, 1.0, 2.0], 2), ([1.0, 2.0, 3.0], 1), ([3.0, 2.0, 1.0], 3)]
)
def test_best_weights_by_valid_nll_are_on_disk(
    tmp_path: Path, values: list[float], best: int
) -> None:
    model, seen = make_model(), []
    trainer = make_trainer(
        tmp_path, model=model, validate=watched(model, values, seen), epochs=3, lr=0.01
    )
    trainer.fit()
    kept, record = load_model(tmp_path / "model.safetensors")
    assert same(weights_of(kept), seen[best - 1])
    assert record["best_epoch"] == best
    assert record["valid_nll"] == 1.0
    assert record["dataset"] == "tiny"
    assert best_of(trainer.history) is trainer.history[best - 1]
    others = [weights for epoch, weights in enumerate(seen, start=1) if epoch != best]
    assert not any(same(weights_of(kept), weights) for weights in others)


def test_metrics_have_a_line_for_each_epoch(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, epochs=3)
    trainer.fit()
    text = (tmp_path / "metrics.csv").read_text()
    assert text.splitlines()[0] == "epoch,train,valid,seconds,frames_per_second"
    lines = read_metrics(tmp_path)
    assert [line["epoch"] for line in lines] == ["1", "2", "3"]
    for line, epoch in zip(lines, trainer.history, strict=True):
        assert {name: float(value) for name, value in line.items()} == vars(epoch)
        # 33 frames are in the five tunes.
        assert float(line["frames_per_second"]) * float(line["seconds"]) == pytest.approx(33)


def test_metrics_are_written_as_training_goes(tmp_path: Path) -> None:
    counts = []

    def validate() -> float:
        path = tmp_path / "metrics.csv"
        counts.append(len(read_metrics(tmp_path)) if path.exists() else 0)
        return 1.0

    make_trainer(tmp_path, epochs=3, validate=validate).fit()
    assert counts == [0, 1, 2]


def test_run_leaves_these_files_and_no_other(tmp_path: Path) -> None:
    make_trainer(tmp_path).fit()
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "metrics.csv",
        "model.safetensors",
        "state.safetensors",
    ]


def test_each_epoch_is_told_to_the_person_who_watches(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_trainer(tmp_path, validate=lambda: 1.25).fit()
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in lines] == [["epoch", "1"], ["epoch", "2"]]
    assert all("valid  1.250 nats/frame" in line for line in lines)


# ---- stopped and gone on with --------------------------------------------------------------------

DEEP = {"dropout": 0.3, "layers": 2}


def whole_run(folder: Path) -> Trainer:
    trainer = make_trainer(folder, sizes=DEEP, epochs=4, lr=0.01)
    assert trainer.fit()
    return trainer


def assert_same_run(folder: Path, whole: Path) -> None:
    """Hold two folders to the same training, byte for byte but for the times."""
    model = "model.safetensors"
    assert (folder / model).read_bytes() == (whole / model).read_bytes()
    tensors, expected = (read_tensors(f / "state.safetensors")[0] for f in (folder, whole))
    assert same(tensors, expected)
    for line, other in zip(read_metrics(folder), read_metrics(whole), strict=True):
        assert all(line[name] == other[name] for name in ("epoch", "train", "valid"))


@pytest.mark.parametrize("stop", [1, 3])
def test_run_resumed_after_an_epoch_is_the_run_never_stopped(tmp_path: Path, stop: int) -> None:
    whole_run(tmp_path / "whole")
    make_trainer(tmp_path / "cut", sizes=DEEP, epochs=stop, lr=0.01).fit()
    # Another model, whose own weights must not matter, and other random numbers drawn meanwhile.
    fresh = make_trainer(tmp_path / "cut", model=make_model(77, **DEEP), epochs=4, lr=0.01)
    torch.rand(5)
    fresh.resume()
    assert len(fresh.history) == stop
    assert fresh.fit()
    assert_same_run(tmp_path / "cut", tmp_path / "whole")


@contextlib.contextmanager
def ctrl_c(trainer: Trainer, method: str, call: int) -> Iterator[None]:
    """Let Ctrl-C fall at the start of a call of this method, counted from 1."""
    calls, real = itertools.count(1), getattr(trainer, method)

    def interrupted(*args: Any) -> Any:
        if next(calls) == call:
            raise KeyboardInterrupt
        return real(*args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer, method, interrupted)
        yield


@pytest.mark.parametrize(("method", "call"), [("learn", 8), ("validate", 3)])
def test_run_resumed_after_ctrl_c_is_the_run_never_stopped(
    tmp_path: Path, method: str, call: int
) -> None:
    whole_run(tmp_path / "whole")
    cut = make_trainer(tmp_path / "cut", sizes=DEEP, epochs=4, lr=0.01)
    with ctrl_c(cut, method, call):  # three batches an epoch: the eighth is in the third
        assert not cut.fit()
    fresh = make_trainer(tmp_path / "cut", sizes=DEEP, epochs=4, lr=0.01)
    fresh.resume()
    assert len(fresh.history) == 2
    assert fresh.fit()
    assert_same_run(tmp_path / "cut", tmp_path / "whole")


def test_ctrl_c_gives_up_the_epoch_and_keeps_the_best(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, seen = make_model(), []
    trainer = make_trainer(
        tmp_path, model=model, validate=watched(model, [1.0, 2.0], seen), epochs=9, lr=0.01
    )
    with ctrl_c(trainer, "learn", 8):
        assert not trainer.fit()
    kept, record = load_model(tmp_path / "model.safetensors")
    assert record["best_epoch"] == 1
    assert same(weights_of(kept), seen[0])
    assert len(read_metrics(tmp_path)) == 2
    assert capsys.readouterr().out.splitlines()[-1].startswith("stopped")


def test_ctrl_c_in_the_first_epoch_keeps_what_was_learnt(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, lr=0.01)
    before = weights_of(trainer.model)
    with ctrl_c(trainer, "learn", 2):
        assert not trainer.fit()
    kept, record = load_model(tmp_path / "model.safetensors")
    assert record["best_epoch"] == 0
    assert same(weights_of(kept), weights_of(trainer.model))
    assert not same(weights_of(kept), before)
    assert not (tmp_path / "state.safetensors").exists()
    # Gone on with, the first epoch is repeated, and is what it would have been.
    again = make_trainer(tmp_path, lr=0.01)
    again.resume()
    again.fit()
    never_stopped = make_trainer(tmp_path / "whole", lr=0.01)
    never_stopped.fit()
    assert_same_run(tmp_path, tmp_path / "whole")


def test_ctrl_c_while_the_first_epoch_is_written_keeps_what_was_learnt(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path)
    with ctrl_c(trainer, "keep", 1):
        assert not trainer.fit()
    assert (tmp_path / "model.safetensors").is_file()


def test_resuming_a_finished_run_trains_no_more(tmp_path: Path) -> None:
    make_trainer(tmp_path, epochs=2).fit()
    files = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    again = make_trainer(tmp_path, epochs=2)
    again.resume()
    assert again.fit()
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == files


def test_resuming_where_nothing_is_starts_at_the_start(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path)
    before = weights_of(trainer.model)
    trainer.resume()
    assert trainer.history == []
    assert same(weights_of(trainer.model), before)


def test_resumed_run_knows_the_best_of_before(tmp_path: Path) -> None:
    make_trainer(tmp_path, epochs=1, validate=lambda: 1.0).fit()
    kept = (tmp_path / "model.safetensors").read_bytes()
    worse = make_trainer(tmp_path, epochs=3, validate=lambda: 2.0)
    worse.resume()
    worse.fit()
    assert (tmp_path / "model.safetensors").read_bytes() == kept


# ---- diverged ------------------------------------------------------------------------------------


def poison(trainer: Trainer, call: int, value: float) -> None:
    """Put a number that is none into the weights at the start of a call of `learn`."""
    calls, real = itertools.count(1), trainer.learn

    def learn(batch: Any) -> float:
        if next(calls) == call:
            with torch.no_grad():
                trainer.model.embedding.bias[0] = value
        return real(batch)

    trainer.learn = learn  # type: ignore[method-assign]


def test_diverged_run_says_so_and_keeps_the_last_good_weights(tmp_path: Path) -> None:
    make_trainer(tmp_path / "good", epochs=1).fit()
    trainer = make_trainer(tmp_path / "bad", epochs=3)
    poison(trainer, 5, math.nan)  # the second batch of the second epoch
    with pytest.raises(DivergedError, match=r"epoch 2: the loss is nan.*--lr"):
        trainer.fit()
    kept = (tmp_path / "bad" / "model.safetensors").read_bytes()
    assert kept == (tmp_path / "good" / "model.safetensors").read_bytes()
    assert len(read_metrics(tmp_path / "bad")) == 1


def test_run_that_diverges_at_once_keeps_no_weights(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path)
    poison(trainer, 1, math.nan)
    with pytest.raises(DivergedError, match="epoch 1"):
        trainer.fit()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("epoch", [1, 2])
def test_weights_without_a_finite_valid_nll_are_never_the_best(
    tmp_path: Path, epoch: int, value: float
) -> None:
    # The last step of an epoch may spoil the weights after its loss was counted.
    values = iter([1.5] * (epoch - 1) + [value])
    trainer = make_trainer(tmp_path, epochs=3, validate=lambda: next(values))
    with pytest.raises(DivergedError, match=rf"epoch {epoch}: the valid NLL is {value}.*--lr"):
        trainer.fit()
    assert (tmp_path / "model.safetensors").exists() == (epoch == 2)
    if epoch == 2:
        assert load_model(tmp_path / "model.safetensors")[1]["valid_nll"] == 1.5
        assert len(read_metrics(tmp_path)) == 1


# ---- the picture ---------------------------------------------------------------------------------


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
