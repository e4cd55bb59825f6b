"""Several processes: each tune goes to one, together they do what one would, and one writes."""

import csv
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from data import chunks, collate, share_of
from distributed import ALONE, joined
from helpers_main import SMALL, call, write_tunes
from helpers_train import CPU, make_model, rolls_of
from train import Objective

HOME = Path(__file__).parent.parent


@given(
    lengths=st.lists(st.integers(2, 20), min_size=1, max_size=9),
    size=st.integers(1, 4),
    bptt=st.integers(0, 8),
)
def test_the_shares_of_a_batch_are_the_batch(lengths: list[int], size: int, bptt: int) -> None:
    tunes = [torch.full((n, 88), i + 1, dtype=torch.uint8) for i, n in enumerate(lengths)]
    batch, shift = collate(tunes), torch.arange(len(lengths))
    parts = [share_of(batch, shift, rank, size) for rank in range(size)]
    taken = [int(by) for share, moved in parts for by, n in zip(moved, share.lengths) if n]  # noqa: B905
    assert sorted(taken) == list(range(len(lengths)))
    steps = [list(chunks(share, bptt, CPU, batch.lengths)) for share, _ in parts]
    for together, whole in zip(zip(*steps, strict=True), chunks(batch, bptt), strict=True):
        assert {chunk.total for chunk in together} == {whole.total}
        assert sum(int(chunk.scored.sum()) for chunk in together) == int(whole.scored.sum())
        assert int(whole.scored.sum()) == whole.total
        assert all(len(chunk.inputs) for chunk in together)
        assert {chunk.inputs.shape[1] for chunk in together} == {whole.inputs.shape[1]}


@pytest.mark.parametrize("latent", [0, 3])
def test_the_mean_of_the_shares_gradients_is_the_gradient_of_the_whole(latent: int) -> None:
    batch = collate([torch.from_numpy(roll) for roll in rolls_of(9, 7, 3, 3, 2, density=0.2)])
    shift = torch.tensor([0, 1, 0, 2, 0])

    def gradient(rank: int, size: int) -> torch.Tensor:
        model = make_model(latent_size=latent, transpose=0.5).double()
        share, moved = share_of(batch, shift, rank, size)
        state = None
        for chunk in chunks(share, 4, CPU, batch.lengths):
            chunk = chunk._replace(inputs=chunk.inputs.double(), targets=chunk.targets.double())
            nll, state = Objective(model)(chunk, state, moved)
            (nll.sum() * (size / chunk.total)).backward()
        return torch.cat([weights.grad.flatten() for weights in model.parameters()])

    whole = gradient(0, 1)
    for size in (2, 3, 6):  # of six, one has no tune
        mean = torch.stack([gradient(rank, size) for rank in range(size)]).mean(dim=0)
        torch.testing.assert_close(mean, whole, rtol=1e-9, atol=1e-12)


def test_alone_nothing_is_asked_of_anybody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with joined(CPU) as (world, device):
        assert (world, device) == (ALONE, CPU)
        assert world.first
        assert world.agree("mine") == "mine"
        assert world.sum(torch.tensor(3.0)) == 3.0
        with world.first_goes_first():
            pass


def torchrun(count: int, *flags: Any) -> subprocess.CompletedProcess[str]:
    """Run main.py in so many processes, as the README says."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += [f"--nproc_per_node={count}", str(HOME / "main.py"), *map(str, flags)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True)


def losses(run: str) -> list[tuple[float, float]]:
    with Path(run, "metrics.csv").open(encoding="utf-8") as file:
        return [(float(row["train"]), float(row["valid"])) for row in csv.DictReader(file)]


def test_two_processes_train_as_one_and_either_goes_on_with_the_others_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import main

    monkeypatch.chdir(tmp_path)
    # Batches of five and of one: for the second, one process has no tune.
    recipe = ["--data", write_tunes(tmp_path), *SMALL, "--batch_size=5", "--bptt=7", "--lr=0.01"]
    recipe += ["--transpose=0.5", "--memory=8", "--intervals"]
    assert call(main, *recipe, "--epochs=4", "--run_dir=one") == 0
    said = torchrun(2, *recipe, "--epochs=3", "--run_dir=two")
    assert said.stdout.count("epoch   1") == 1
    assert "in 2 processes" in said.stdout
    assert {path.name for path in Path("two").iterdir()} == {
        path.name for path in Path("one").iterdir()
    }
    np.testing.assert_allclose(losses("two"), losses("one")[:3], rtol=1e-5)
    assert call(main, "--resume", "two", "--epochs=4") == 0
    np.testing.assert_allclose(losses("two"), losses("one"), rtol=1e-5)
