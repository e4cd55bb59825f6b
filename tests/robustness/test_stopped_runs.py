"""Runs that are killed, interrupted, or without room for their files lose an epoch at most."""

import io
import json
import resource
import signal
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from trials import FinishedRun, forms, run, signal_after

from pianolstm.checkpoint import read_weights

EPOCHS = "--epochs=8"  # as in the finished run
FILES = 14  # that a run writes


def check_readable(folder: Path) -> None:
    """Read every file that a run has so far."""
    for path in folder.rglob("*.safetensors"):
        read_weights(path)
    for path in folder.rglob("*.pt"):
        torch.load(path, weights_only=True)
    for path in folder.rglob("*.json"):
        json.loads(path.read_text(encoding="utf-8"))


def result(folder: Path) -> dict[str, bytes]:
    """Return what the same seed repeats, byte for byte: all of a run's training but its times."""
    state = torch.load(folder / "state.pt", weights_only=True)
    buffer = io.BytesIO()
    torch.save((state["model"], state["optimizer"]), buffer)
    names = ("model.safetensors", "metrics.csv", "loss.png")
    return {"state": buffer.getvalue()} | {name: (folder / name).read_bytes() for name in names}


@forms(2, 40)
def test_a_killed_run_resumes_to_the_same_bytes(
    count: int, finished_run: FinishedRun, tmp_path: Path
) -> None:
    generator, expected = np.random.default_rng(5), result(finished_run.folder)
    for number in range(count):
        after = float(generator.uniform(0.05, finished_run.seconds))
        folder = tmp_path / f"killed-{number}-after-{after:.3f}"
        words = [*finished_run.flags, EPOCHS]
        kill = signal_after(signal.SIGKILL, after)
        run("main", *words, f"--run_dir={folder}", interrupt=kill)
        check_readable(folder)
        if (folder / "settings.json").is_file():
            ended = run("main", f"--resume={folder}")
        else:  # nothing was saved yet
            folder = tmp_path / f"again-{number}"
            ended = run("main", *words, f"--run_dir={folder}")
        assert ended.status == 0, (folder, ended)
        assert result(folder) == expected, folder
        assert not list(folder.rglob("*.tmp"))


@forms(2, 20)
def test_a_signal_ends_a_run_within_five_seconds_with_all_saved(
    count: int, finished_run: FinishedRun, tmp_path: Path
) -> None:
    generator = np.random.default_rng(6)
    for number in range(count):
        sent, status = ((signal.SIGINT, 130), (signal.SIGTERM, 143))[number % 2]
        after, folder = float(generator.uniform(0, 1)), tmp_path / str(number)
        words = [*finished_run.flags, "--epochs=999", f"--run_dir={folder}"]
        ended = run("main", *words, interrupt=signal_after(sent, after, folder / "state.pt"))
        assert ended.status == status, (sent, after, ended)
        assert ended.seconds < 5, (sent, after, ended)
        assert not ended.crashed, (sent, after, ended)
        assert (folder / "state.pt").is_file()
        check_readable(folder)


@forms(2, FILES)
def test_a_full_disk_leaves_no_partial_file(
    count: int, finished_run: FinishedRun, tmp_path: Path
) -> None:
    # In place of a full disk there is a limit on the size of a file. Each file of a run in turn is
    # the smallest that does not fit; a tenth less, because recorded times differ in length.
    sizes = sorted(path.stat().st_size for path in finished_run.folder.rglob("*.*"))
    assert len(sizes) == FILES
    for number, size in enumerate(sizes[::-1][:count]):
        folder = tmp_path / str(number)
        words = [*finished_run.flags, EPOCHS, f"--run_dir={folder}"]
        ended = run("main", *words, limits={resource.RLIMIT_FSIZE: 9 * size // 10})
        assert (ended.status, ended.errors, ended.crashed) == (1, 1, False), (size, ended)
        assert not list(folder.rglob("*.tmp"))
        check_readable(folder)


@pytest.mark.skipif(sys.platform != "linux", reason="the names of Linux")
@forms(3, 12)
def test_a_place_that_does_not_exist_is_refused(count: int, finished_run: FinishedRun) -> None:
    places = ("/proc/nowhere", f"{finished_run.data}/below", "/dev/null/x", "a" * 300)
    weights = [str(finished_run.weights), "--seconds=1"]
    commands = [
        words
        for place in places
        for words in (
            ["main", *finished_run.flags, EPOCHS, f"--run_dir={place}"],
            ["generate", *weights, f"--output_dir={place}"],
            ["generate", *weights, "--evaluate_samples=2", f"--output_dir={place}"],
        )
    ]
    for words in commands[:count]:
        ended = run(*words)
        assert (ended.status, ended.errors, ended.crashed) == (2, 1, False), (words, ended)
