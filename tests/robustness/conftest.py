"""Fixtures of the tests of robustness. They fork and limit resources: Linux or macOS.

The long form, `pytest tests/robustness -m slow`, has these counts, which are those in brackets in
the names of the tests: 40 kills, 20 signals, 26 full disks and wrong paths, 506 weights, 514
pickles, 6,020 MIDI files, a folder of 250, 507 flags, 3 long runs, and fuzzing with 44,740 pickles,
40,058 MIDI files and 5,280 weights. Of the 9 downloads, only the one that waits for a time limit is
slow. The faults that docs/robustness.md lists as not promised have no trial.
"""

import time
from pathlib import Path

import numpy as np
import pytest
from trials import FinishedRun, run, start_server

from pianolstm.rolls import SPLITS, write_npz

FLAGS = [
    "--embed_size=8", "--hidden_size=16", "--latent_size=4", "--attention_window=16",
    "--attention_heads=1", "--head_dim=4", "--query_frames=2", "--relative_pitch",
    "--dropout=0.2", "--transpose_prob=0.5", "--lr_schedule=onecycle", "--batch_size=4",
    "--bptt=20", "--seconds=6", "--num_samples=1", "--threads=1", "--device=cpu",
]  # fmt: skip


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> FinishedRun:
    start_server()
    folder, generator = tmp_path_factory.mktemp("finished"), np.random.default_rng(0)
    rolls = {
        split: [generator.random((length, 88)) < 0.04 for length in range(20, 20 + 3 * count, 3)]
        for split, count in zip(SPLITS, (14, 3, 3), strict=True)
    }
    write_npz(folder / "pieces.npz", rolls)
    flags = [f"--data={folder}/pieces.npz", *FLAGS]
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.chdir(folder)
        run("main", "--help")  # the first process starts the server
        start = time.monotonic()
        ended = run("main", *flags, "--epochs=8", f"--run_dir={folder}/run")
    assert ended.status == 0, ended
    return FinishedRun(folder / "pieces.npz", flags, folder / "run", time.monotonic() - start)


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep what the programs write into the current folder, such as `.cache/`, out of it."""
    monkeypatch.chdir(tmp_path)
