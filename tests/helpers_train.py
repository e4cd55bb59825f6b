"""Tiny models, pieces and trainers for the tests of model.py, data.py and train.py."""

import csv
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from data import Batch, Chunk, RollDataset, chunks, collate
from model import PianoLSTM, build_model
from pianolstm.rolls import PITCHES
from settings import ModelSettings, TrainSettings
from train import Objective, Trainer, evaluate

CPU = torch.device("cpu")
LATENT_SIZES = {"Bernoulli": 0, "chord": 3}  # by output head
ATTENTION = {"attention_window": 9, "query_frames": 3, "attention_heads": 2, "head_dim": 4}
# Every part of the model by itself, and several together.
VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {"layers": 2},
    "Bernoulli": {"latent_size": 0},
    "transposition": {"transpose_prob": 0.5},
    "upper LSTM": {"upper_layers": 2},
    "relative pitch": {"relative_pitch": True},
    "attention, 1 viewpoint": ATTENTION | {"viewpoints": 1},
    "attention, 2 viewpoints": ATTENTION | {"viewpoints": 2, "attention_window": 4},
    "attention, 3 viewpoints": ATTENTION | {"viewpoints": 3, "latent_size": 0, "upper_layers": 1},
    "metrical position": {"metrical_position": True},
    "voice leading": {"voice_leading": True},
    "candidates": {"copy_candidates": 2},
    "all": ATTENTION
    | {
        "layers": 2,
        "upper_layers": 1,
        "relative_pitch": True,
        "metrical_position": True,
        "voice_leading": True,
        "copy_candidates": 3,
        "transpose_prob": 0.5,
    },
}
ZERO_AT_FIRST = (
    "attention.lag_bias",
    "transposition.weight",
    "metrical_position.proj.weight",
    "voice_leading.proj.weight",
    "voice_leading.proj.bias",
    "voice_leading.voice_bias",
    "candidates.from_vector.weight",
    "candidates.from_lengths.weight",
)  # ends of names
DROPOUT = {"dropout": 0.3, "embed_dropout": 0.2}


def make_model(seed: int = 0, pitches: int = PITCHES, **sizes: Any) -> PianoLSTM:
    """Return a tiny model in which all weights matter, those that start from 0 too."""
    small = {"embed_size": 5, "hidden_size": 6, "latent_size": 3}
    settings = ModelSettings(**{**small, **sizes})
    kind = type(build_model(settings))
    torch.manual_seed(seed)
    model = kind(settings, pitches)
    for name, weights in model.named_parameters():
        if name.endswith(ZERO_AT_FIRST):
            nn.init.normal_(weights, std=0.3)
    return model


def random_rolls(*lengths: int, density: float = 0.05, seed: int = 0) -> list[np.ndarray]:
    """Return random rolls, (T, 88) bool; the second frame of the first one is silent."""
    generator = np.random.default_rng(seed)
    rolls = [generator.random((length, PITCHES)) < density for length in lengths]
    rolls[0][1] = False
    return rolls


def batch_of(rolls: Sequence[np.ndarray]) -> Batch:
    """Return rolls, (T, 88) bool each, as one batch."""
    return collate([torch.from_numpy(roll.view(np.uint8)) for roll in rolls])


def chunked_nlls(
    model: PianoLSTM, batch: Batch, bptt: int, shift: Sequence[int] | None = None
) -> list[Tensor]:
    """Return the NLL of every frame of each piece, (T,) float64 each, computed as in training.

    Args:
        model: in float64.
        batch: the pieces.
        bptt: frames of a chunk; 0 = whole pieces.
        shift: semitones that each piece was transposed by; None = 0.
    """
    semitones = torch.tensor(shift or [0] * len(batch.lengths))
    nlls: list[list[Tensor]] = [[] for _ in batch.lengths]
    state = None
    for chunk in chunks(batch, bptt):
        chunk = chunk._replace(inputs=chunk.inputs.double(), targets=chunk.targets.double())
        nll, _, state = Objective(model)(chunk, state, semitones)
        counts = chunk.mask.sum(dim=1).tolist()
        for row, values in enumerate(nll.split(counts)):
            nlls[row].append(values)
    return [torch.cat(values) for values in nlls]


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
    """Return a trainer as main.py makes it; by default on five pieces of 3 to 10 frames."""
    valid = RollDataset(random_rolls(6, 4, seed=99))
    return Trainer(
        model or make_model(seed, **(sizes or {})),
        RollDataset(rolls or random_rolls(10, 10, 7, 3, 3)),
        validate or (lambda model: evaluate(model, valid, CPU, accuracy=False).nll),
        TrainSettings(**{"batch_size": 2, "epochs": 2, "bptt": 4, **settings}),
        seed,
        CPU,
        folder,
        metadata={"dataset": "tiny", "fingerprint": "abc", "frame_beats": 0.5},
    )


def before_each_step(trainer: Trainer, call: Callable[[int, Chunk, Tensor], None]) -> None:
    """Call a function before each optimizer step.

    Args:
        trainer: the trainer.
        call: is given the number of the step, from 1, its chunk, and the semitones (B,) by which
            the batch was transposed.
    """
    count = 0

    def hook(_: nn.Module, inputs: tuple[Chunk, Any, Tensor]) -> None:
        nonlocal count
        count += 1
        call(count, inputs[0], inputs[2])

    trainer.objective.register_forward_pre_hook(hook)


def frame_parameters(model: PianoLSTM) -> dict[str, Tensor]:
    """Return the weights that predict frames by name: all but the end head's."""
    return {n: w for n, w in model.named_parameters() if not n.startswith("end_head")}


def gradient_of(model: PianoLSTM) -> Tensor:
    """Return the gradient of the weights that predict frames as one vector."""
    return torch.cat([weights.grad.flatten() for weights in frame_parameters(model).values()])


def copy_weights(model: PianoLSTM) -> dict[str, Tensor]:
    """Return a copy of the weights by name."""
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same(left: dict[str, Tensor], right: dict[str, Tensor]) -> bool:
    """Return whether two sets of tensors have the same names and equal values."""
    return left.keys() == right.keys() and all(torch.equal(left[n], right[n]) for n in left)


def read_rows(path: Path) -> list[dict[str, str]]:
    """Return the rows of a CSV file."""
    with path.open(newline="") as file:
        return list(csv.DictReader(file))
