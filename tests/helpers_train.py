"""What the tests of training share: tiny models of 88 keys, and the loss the slow way.

Losses are held against numpy in float64, one tune after another, one frame after another.
"""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from data import RollDataset
from helpers import K
from model import PianoLSTM
from settings import ModelSettings, TrainSettings
from train import Trainer, evaluate

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
        record={"dataset": "tiny", "fingerprint": "abc", "frame_beats": 0.5},
    )


def weights_of(model: PianoLSTM) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same(left: dict[str, Tensor], right: dict[str, Tensor]) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[n], right[n]) for n in left)
