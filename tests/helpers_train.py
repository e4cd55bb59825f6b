"""What the tests of training share: tiny models of 88 keys, and the loss the slow way.

Losses are held against numpy in float64, one tune after another, one frame after another.
"""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from data import Batch, RollDataset
from evaluation import evaluate
from helpers import K
from model import PianoLSTM
from settings import ModelSettings, TrainSettings
from train import Trainer

CPU = torch.device("cpu")
LATENTS = [0, 3]  # the Bernoulli head, the chord head
MEMORY = {"memory": 9, "match": 3, "heads": 2, "head_size": 4}  # a small one


def make_model(seed: int = 0, **sizes: Any) -> PianoLSTM:
    torch.manual_seed(seed)
    small = {"embed_size": 5, "hidden_size": 6, "latent_size": 3}
    model = PianoLSTM(ModelSettings(**{**small, **sizes}))
    stir(model)
    return model


def stir(model: PianoLSTM) -> None:
    """Draw the weights that start from zero, so that they matter."""
    if model.memory is not None:
        nn.init.normal_(model.memory.lag)
    if model.key is not None:
        nn.init.normal_(model.key.weight)


def play_model(latent: int = 4, density: float = 0.04) -> PianoLSTM:
    """Return a small model that plays about `density` of the keys and minds what it heard."""
    torch.manual_seed(0)
    model = PianoLSTM(
        ModelSettings(embed_size=6, hidden_size=8, latent_size=latent, layers=2, dropout=0.5)
    )
    for weights in model.parameters():
        weights.data *= 3
    model.head.set_marginals(torch.full((K,), density))
    return model.eval()


def rolls_of(*lengths: int, density: float = 0.05, seed: int = 0) -> list[np.ndarray]:
    """Return random rolls, (T, 88) bool, the second frame of the first one silent."""
    generator = np.random.default_rng(seed)
    rolls = [generator.random((n, K)) < density for n in lengths]
    rolls[0][1] = False
    return rolls


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def numpy_nlls(model: PianoLSTM, roll: np.ndarray) -> np.ndarray:
    """Return the NLL of every frame of a tune, (T,), in float64: models of one layer, again.

    (Or of one layer below the memory and one above it; with intervals or without.)
    """
    w = {name: tensor.double().numpy() for name, tensor in model.state_dict().items()}
    nothing = np.zeros(w["lstm.weight_hh_l0"].shape[1])
    below = above = (nothing, nothing)
    heard, outputs, nlls = [np.zeros(K)], [], []
    for frame in roll:
        x = w["embedding.weight"] @ heard[-1] + w["embedding.bias"]
        if "intervals.heard.weight" in w:
            seen = [np.roll(heard[-1], -key) for key in numpy_outer(heard[:-1])]
            x = x + w["intervals.heard.weight"] @ np.concatenate(seen)
        below = numpy_lstm(w, "lstm", x, *below)
        outputs.append(below[0])
        found = numpy_memory(w, outputs, heard) if "memory.lag" in w else 0.0
        vector = below[0] + found
        if "upper.weight_ih_l0" in w:
            above = numpy_lstm(w, "upper", np.concatenate([vector, x]), *above)
            vector = vector + above[0]
        if "intervals.steps.weight" in w:
            vector = np.concatenate([vector, numpy_intervals(w, vector, heard)])
        nlls.append(numpy_head(w, vector, frame))
        heard.append(frame.astype(float))
    return np.array(nlls)


def numpy_lstm(
    w: dict[str, np.ndarray], name: str, x: np.ndarray, h: np.ndarray, c: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return output and cell, (H,) each, after a step of the LSTM of this name, from x (E,)."""
    gates = w[f"{name}.weight_ih_l0"] @ x + w[f"{name}.bias_ih_l0"]
    gates = gates + w[f"{name}.weight_hh_l0"] @ h + w[f"{name}.bias_hh_l0"]
    i, f, g, o = np.split(gates, 4)  # PyTorch's order: input, forget, cell, output
    c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
    return sigmoid(o) * np.tanh(c), c


def numpy_memory(
    w: dict[str, np.ndarray], outputs: list[np.ndarray], heard: list[np.ndarray]
) -> np.ndarray:
    """Return what the memory finds at the last moment, (H,): a loop over views, heads and moments.

    Args:
        w: the weights of the model, in float64.
        outputs: of the LSTM, (H,) at each moment so far.
        heard: the frame read at each moment, (K,).
    """
    # (A * D, match * K) each
    views = [matrix for name, matrix in sorted(w.items()) if name.startswith("memory.recent")]
    (heads, span), now = w["memory.lag"].shape, len(outputs) - 1
    match, each = views[0].shape[1] // len(heard[0]), heads // len(views)

    def anchor(view: int, moment: int) -> int:
        """Return the key that a view of the frames up to this moment is from."""
        return numpy_outer(heard[: moment + 1])[view - 1] if view else 0

    def vectors(name: str, view: int, moment: int) -> np.ndarray:
        made = w[f"memory.{name}.weight"] @ outputs[moment] + w[f"memory.{name}.bias"]
        made = np.split(made, len(views))[view]
        recent = views[view].reshape(len(made), match, -1)  # the newest frame last
        for back in range(min(match, moment + 1)):
            moved = np.roll(heard[moment - back], -anchor(view, moment))
            made = made + recent[:, match - 1 - back] @ moved
        return made.reshape(each, -1)  # (A, D)

    found = []
    for head in range(heads):
        view, place = divmod(head, each)
        query = vectors("query", view, now)[place]
        odds, followed = [1.0], [np.zeros_like(heard[0])]  # the empty slot: exp(0), no frame
        for moment in range(max(0, now - span), now):
            key = vectors("key", view, moment)[place]
            bias = w["memory.lag"][head, now - moment - 1]
            odds.append(math.exp(query @ key / math.sqrt(len(key)) + bias))
            # Moved by as much as the music has moved since then.
            moved = anchor(view, now) - anchor(view, moment)
            followed.append(np.roll(heard[moment + 1], moved))
        found.append(np.array(odds) / sum(odds) @ np.array(followed))
    return w["memory.output.weight"] @ np.concatenate(found)


def numpy_outer(heard: list[np.ndarray]) -> tuple[int, int]:
    """Return the highest and the lowest key of the last frame that is not silent; 0 without one."""
    for frame in reversed(heard):
        if frame.any():
            keys = np.flatnonzero(frame)
            return int(keys[-1]), int(keys[0])
    return 0, 0


def numpy_intervals(
    w: dict[str, np.ndarray], vector: np.ndarray, heard: list[np.ndarray]
) -> np.ndarray:
    """Return what is told of each key by its distance from the notes of now, (K,)."""
    steps = w["intervals.steps.weight"] @ vector + w["intervals.steps.bias"]
    moves = w["intervals.moves.weight"] @ vector + w["intervals.moves.bias"]
    high, low = numpy_outer(heard)
    keys, votes = len(heard[-1]), []
    for key in range(keys):
        vote = steps[(key - high) % keys] + steps[keys + (key - low) % keys]
        for note in np.flatnonzero(heard[-1]):
            if abs(note - key) <= 12:  # semitones
                vote += moves[note - key + 12]
        votes.append(vote)
    return np.array(votes)


def numpy_head(w: dict[str, np.ndarray], h: np.ndarray, frame: np.ndarray) -> float:
    base = w["head.logits.weight"] @ h + w["head.logits.bias"]
    keys = len(frame)
    if len(base) == keys:
        p = sigmoid(base)
        return float(-np.log(np.where(frame, p, 1 - p)).sum())
    scale = 1 + w["head.context.weight"] @ h + w["head.context.bias"]
    below_it = w["head.below.weight"] @ h + w["head.below.bias"]
    chosen, below, total = np.zeros(keys), keys + 1, 0.0
    for choice in [*(np.flatnonzero(frame)[::-1] + 1).tolist(), 0]:
        logits = base.copy()
        if chosen.any():
            lowest = below - 1
            seen = np.concatenate([chosen, np.roll(chosen, -lowest)])
            votes = w["head.completion.weight"] @ (w["head.chosen.weight"] @ seen * scale)
            logits += votes[: keys + 1]
            logits[1:] += np.roll(below_it + votes[keys + 1 :], lowest)
        odds = np.exp(logits[:below])
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
    validate: Callable[[PianoLSTM], float] | None = None,
    sizes: dict[str, Any] | None = None,
    **settings: Any,
) -> Trainer:
    """Return a trainer as main.py makes it; by default on five tunes of 3 to 10 frames."""
    model = model or make_model(seed, **(sizes or {}))
    valid = RollDataset(rolls_of(6, 4, seed=99))
    return Trainer(
        model,
        RollDataset(rolls or rolls_of(10, 10, 7, 3, 3)),
        validate or (lambda scored: evaluate(scored, valid, CPU, accuracy=False).nll),
        TrainSettings(**{"batch_size": 2, "epochs": 2, "bptt": 4, **settings}),
        seed,
        CPU,
        folder,
        record={"dataset": "tiny", "fingerprint": "abc", "frame_beats": 0.5},
    )


def unmoved(batch: Batch) -> Tensor:
    """Return the shift of a batch whose tunes are in their own keys, (B,)."""
    return torch.zeros(len(batch.lengths), dtype=torch.int64)


def weights_of(model: PianoLSTM) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same(left: dict[str, Tensor], right: dict[str, Tensor]) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[n], right[n]) for n in left)
