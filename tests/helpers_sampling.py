"""Small models to sample from, and a small run, for the tests of sampling and of the scripts."""

from pathlib import Path
from typing import Any

import torch

import main
from helpers import SMALL, call, write_pieces
from model import PianoLSTM, build_model
from pianolstm.layers.copy_mixture import CopyHead
from pianolstm.rolls import PITCHES
from settings import ModelSettings

# Sizes of the models with each output head.
HEADS: dict[str, dict[str, Any]] = {
    "Bernoulli": {"latent_size": 0},
    "chord": {"latent_size": 4},
    "copies": {"latent_size": 4, "copy_candidates": 2},
}


def sampling_model(
    latent_size: int = 4, density: float = 0.04, frame_beats: float = 0.5, **sizes: Any
) -> PianoLSTM:
    """Return a small model that samples about `density` of the pitches and depends on its past."""
    torch.manual_seed(0)
    small = {"embed_size": 6, "hidden_size": 8, "layers": 2, "dropout": 0.5}
    model = build_model(ModelSettings(**{**small, "latent_size": latent_size, **sizes}))
    for weights in model.parameters():
        weights.data *= 3
    if isinstance(model.head, CopyHead):  # so that candidates are often sampled
        model.get_parameter("candidates.from_vector.bias").data.zero_()
    model.head.set_unigram(torch.full((PITCHES,), density))
    set_end_rate(model, 1e-9)
    model.metadata = {"dataset": "nottingham", "fingerprint": "abc", "frame_beats": frame_beats}
    return model.eval()


def set_end_rate(model: PianoLSTM, rate: float) -> None:
    """Make every frame the last of its piece with this probability."""
    for weights in model.end_head.parameters():
        weights.data.zero_()
    model.end_head.set_rate(rate)


def train_small_run(folder: Path) -> Path:
    """Train two epochs on a small set, both in this folder; return the path of the run."""
    run = folder / "run"
    flags = [*SMALL, "--run_dir", run]
    assert call(main, "--data", write_pieces(folder), *flags) == 0
    return run
