"""Several processes train as one would."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from data import chunks, shard
from helpers import ROOT, SMALL, call, names_in
from helpers_train import CPU, VARIANTS, batch_of, gradient_of, make_model, random_rolls, read_rows
from pianolstm.runtime import SINGLE_PROCESS, join_world
from train import Objective


@pytest.mark.parametrize("name", ["Bernoulli", "all"])
def test_the_mean_gradient_of_the_shards_is_the_gradient_of_the_batch(name: str) -> None:
    batch = batch_of(random_rolls(9, 7, 3, 3, 2, density=0.2))
    shift = torch.tensor([0, 1, 0, 2, 0])

    def gradient(rank: int, size: int) -> Tensor:
        model = make_model(**VARIANTS[name]).double()
        part, semitones = shard(batch, shift, rank, size)
        state = None
        for chunk in chunks(part, 4, CPU, batch.lengths):
            chunk = chunk._replace(inputs=chunk.inputs.double(), targets=chunk.targets.double())
            nll, _, state = Objective(model)(chunk, state, semitones)
            (nll.sum() * (size / chunk.total)).backward()
        return gradient_of(model)

    whole = gradient(0, 1)
    for size in (2, 3, 6):  # of six processes, one has no piece
        mean = torch.stack([gradient(rank, size) for rank in range(size)]).mean(dim=0)
        torch.testing.assert_close(mean, whole, rtol=1e-9, atol=1e-12)


def test_a_single_process_needs_no_process_group(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with join_world(CPU) as (world, device):
        assert (world, device) == (SINGLE_PROCESS, CPU)
        assert world.is_main
        assert world.broadcast("mine") == "mine"
        assert world.sum(torch.tensor(3.0)) == 3.0
        with world.main_process_first():
            pass


def torchrun(count: int, *flags: Any) -> subprocess.CompletedProcess[str]:
    """Run main.py in several processes, as the documentation says."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += [f"--nproc_per_node={count}", str(ROOT / "main.py"), *map(str, flags)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done


def losses(run: str) -> list[tuple[float, float]]:
    return [
        (float(row["train"]), float(row["valid"])) for row in read_rows(Path(run, "metrics.csv"))
    ]


def test_two_processes_train_as_one_and_one_process_can_resume_their_run(small_set: Path) -> None:
    import main

    # Batches of five pieces and of one: of the second, one process has none.
    recipe = ["--data", small_set, *SMALL, "--batch_size=5", "--bptt=7", "--lr=0.01"]
    recipe += ["--transpose_prob=0.5", "--attention_window=8", "--relative_pitch"]
    recipe += ["--voice_leading", "--consistency=0.5", "--precision=float32"]
    assert call(main, *recipe, "--epochs=4", "--run_dir=one") == 0
    done = torchrun(2, *recipe, "--epochs=3", "--run_dir=two")
    assert done.stdout.count("epoch   1") == 1  # one process prints
    assert "in 2 processes" in done.stdout
    assert names_in(Path("two")) == names_in(Path("one"))
    np.testing.assert_allclose(losses("two"), losses("one")[:3], rtol=1e-5)
    assert call(main, "--resume", "two", "--epochs=4") == 0
    np.testing.assert_allclose(losses("two"), losses("one"), rtol=1e-5)
