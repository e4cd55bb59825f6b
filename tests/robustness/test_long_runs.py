"""Many epochs, long music and many pieces take no more RAM than a few: 50 MB at most."""

import sys
from pathlib import Path

import pytest
from trials import FinishedRun, forms, memory_mb, reset_peak

from data import RollDataset
from generate import sample
from model import PianoLSTM
from pianolstm.outputs.plots import plot_losses
from pianolstm.rolls import read_npz
from settings import TrainSettings
from train import Trainer, evaluate

GROWTH = 50  # MB
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


@forms(20, 1500)
def test_epochs_do_not_add_up_in_memory(
    count: int, finished_run: FinishedRun, tmp_path: Path
) -> None:
    model, splits = PianoLSTM.load(finished_run.weights), read_npz(finished_run.data)
    valid, device = RollDataset(splits["valid"]), next(model.parameters()).device
    used = []

    def validate(model: PianoLSTM) -> float:
        used.append(memory_mb("VmRSS"))
        return evaluate(model, valid, device, accuracy=False).nll

    trainer = Trainer(
        model,
        RollDataset(splits["train"]),
        validate,
        TrainSettings(epochs=count, batch_size=4, bptt=20, precision="float32"),
        seed=1,
        device=device,
        folder=tmp_path,
        metadata=model.metadata,
        plot=lambda history: plot_losses(tmp_path / "loss.png", history, "title", []),
    )
    assert trainer.fit()
    assert len(used) == count
    assert max(used) - used[count // 10] < GROWTH


@pytest.mark.parametrize(
    ("frames", "pieces"),
    [
        (240, 1),
        (64, 30),
        pytest.param(2400, 1, id="ten minutes of music", marks=pytest.mark.slow),
        pytest.param(64, 1000, id="1,000 pieces", marks=pytest.mark.slow),
    ],
)
def test_samples_do_not_add_up_in_memory(
    frames: int, pieces: int, finished_run: FinishedRun
) -> None:
    model, at_once = PianoLSTM.load(finished_run.weights), min(pieces, 100)
    settings = {"num_samples": at_once, "beats": frames * 0.5, "medley": True}
    sample(model, seed=0, **settings)
    reset_peak()
    before = memory_mb("VmRSS")
    for seed in range(max(pieces // at_once, 3)):
        pieces_of_seed = sample(model, seed=seed, **settings)
        assert [len(piece.roll) for piece in pieces_of_seed] == [frames] * at_once
    assert memory_mb("VmHWM") - before < GROWTH
