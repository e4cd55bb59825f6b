"""Evaluation: scores are those of each tune by itself, and baselines those worked out by hand."""

import itertools
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import evaluation
from data import RollDataset, read
from evaluation import Baselines, evaluate
from heads import LIKELIEST
from helpers import K
from helpers_train import CPU, LATENTS, MEMORY, make_model, numpy_nlls, rolls_of, same, weights_of
from model import State


def roll_from(*frames: set[int]) -> np.ndarray:
    """Return the roll of frames given as sets of columns, (T, 88) bool."""
    roll = np.zeros((len(frames), K), dtype=bool)
    for t, keys in enumerate(frames):
        roll[t, sorted(keys)] = True
    return roll


# ---- evaluation ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "memory",
    [
        {},
        MEMORY,
        {"upper_layers": 1},
        {"intervals": True},
        MEMORY | {"upper_layers": 1, "intervals": True},
    ],
    ids=["none", "memory", "upper", "intervals", "all"],
)
@pytest.mark.parametrize("latent", LATENTS)
def test_scores_are_those_of_each_tune_by_itself(latent: int, memory: dict[str, Any]) -> None:
    dropped: dict[str, Any] = {"dropout": 0.5, "input_dropout": 0.5}
    model = make_model(latent_size=latent, **dropped, **memory).train()
    rolls = rolls_of(9, 2, 5, 14)
    scores = evaluate(model, RollDataset(rolls), CPU)
    nlls = [numpy_nlls(model, roll) for roll in rolls]
    assert scores.nll == pytest.approx(np.concatenate([n[1:] for n in nlls]).mean(), rel=1e-6)
    assert scores.nll_first_frame_scored == pytest.approx(np.concatenate(nlls).mean(), rel=1e-6)
    means = [n[1:].mean() for n in nlls]
    assert scores.nll_per_tune_mean == pytest.approx(np.mean(means), rel=1e-6)
    assert scores.frames == 30
    assert not math.isclose(scores.nll, scores.nll_per_tune_mean, rel_tol=1e-5)
    assert not math.isclose(scores.nll, scores.nll_first_frame_scored, rel_tol=1e-5)


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
        monkeypatch.setattr(evaluation, "EVAL_BATCH", batch)
        monkeypatch.setattr(evaluation, "EVAL_CHUNK", chunk)
        cut = evaluate(model, dataset, CPU)
        assert vars(cut) == pytest.approx(vars(whole), rel=1e-6)


class Echo:
    """Predicts the frame before again; a frame's NLL is the sum of 2^column over its keys."""

    head: "Echo"

    def __init__(self) -> None:
        self.head = self

    def eval(self) -> None:
        """Have nothing to switch off."""

    def __call__(self, frames: Tensor, state: Any) -> tuple[Tensor, State]:
        nothing = torch.zeros(1, len(frames), 1)
        return frames, State(nothing, nothing, nothing, None)

    def nll(self, hidden: Tensor, frames: Tensor) -> Tensor:
        assert hidden.shape == frames.shape
        return frames[:, :10] @ 2.0 ** torch.arange(10)

    def sample(self, hidden: Tensor, noise: Tensor, choices: Any) -> Tensor:
        assert choices == LIKELIEST
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
