"""A run keeps its best weights and all metrics; stopped and resumed, it is as never stopped."""

import contextlib
import csv
import itertools
import math
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from checkpoint import load_model, read_tensors
from helpers_train import MEMORY, make_model, make_trainer, same, weights_of
from model import PianoLSTM
from train import DivergedError, Trainer, best_of


def read_metrics(folder: Path, name: str = "metrics.csv") -> list[dict[str, str]]:
    with (folder / name).open(newline="") as file:
        return list(csv.DictReader(file))


# ---- what a run keeps ----------------------------------------------------------------------------


def watched(values: list[float], seen: list[Any]) -> Callable[[PianoLSTM], float]:
    """Return a `validate` that gives these values in turn and notes the weights it met."""
    turns = iter(values)

    def validate(model: PianoLSTM) -> float:
        seen.append(weights_of(model))
        return next(turns)

    return validate


@pytest.mark.parametrize(
    ("values", "best"), [([3.0, 1.0, 2.0], 2), ([1.0, 2.0, 3.0], 1), ([3.0, 2.0, 1.0], 3)]
)
def test_best_weights_by_valid_nll_are_on_disk(
    tmp_path: Path, values: list[float], best: int
) -> None:
    seen: list[Any] = []
    trainer = make_trainer(tmp_path, validate=watched(values, seen), epochs=3, lr=0.01)
    trainer.fit()
    kept, record = load_model(tmp_path / "model.safetensors")
    assert same(weights_of(kept), seen[best - 1])
    assert record["best_epoch"] == best
    assert record["valid_nll"] == 1.0
    assert record["dataset"] == "tiny"
    assert best_of(trainer.history) is trainer.history[best - 1]
    others = [weights for epoch, weights in enumerate(seen, start=1) if epoch != best]
    assert not any(same(weights_of(kept), weights) for weights in others)


def test_metrics_have_a_line_for_each_epoch(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, epochs=3)
    trainer.fit()
    text = (tmp_path / "metrics.csv").read_text()
    assert text.splitlines()[0] == "epoch,train,valid"
    lines, times = read_metrics(tmp_path), read_metrics(tmp_path, "times.csv")
    assert [line["epoch"] for line in lines] == ["1", "2", "3"]
    for losses, took, epoch in zip(lines, times, trainer.history, strict=True):
        line = losses | took
        assert {name: float(value) for name, value in line.items()} == vars(epoch)
        # 33 frames are in the five tunes.
        assert float(line["frames_per_second"]) * float(line["seconds"]) == pytest.approx(33)


def test_metrics_are_written_as_training_goes(tmp_path: Path) -> None:
    counts = []

    def validate(_: PianoLSTM) -> float:
        path = tmp_path / "metrics.csv"
        counts.append(len(read_metrics(tmp_path)) if path.exists() else 0)
        return 1.0

    make_trainer(tmp_path, epochs=3, validate=validate).fit()
    assert counts == [0, 1, 2]


def test_run_leaves_these_files_and_no_other(tmp_path: Path) -> None:
    make_trainer(tmp_path).fit()
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "metrics.csv",
        "model.safetensors",
        "state.safetensors",
        "times.csv",
    ]


def test_each_epoch_is_told_to_the_person_who_watches(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_trainer(tmp_path, validate=lambda _: 1.25).fit()
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in lines] == [["epoch", "1"], ["epoch", "2"]]
    assert all("valid  1.250 nats/frame" in line for line in lines)


# ---- stopped and gone on with --------------------------------------------------------------------

DEEP = {"dropout": 0.3, "layers": 2}
PLAIN = {"sizes": DEEP, "epochs": 4, "lr": 0.01}
# All that has a course of its own over the epochs, or draws numbers of its own.
FULL = {
    **PLAIN,
    "sizes": {**DEEP, **MEMORY, "input_dropout": 0.2, "transpose": 0.5},
    "warmup": 0.3,
}


def whole_run(folder: Path, recipe: dict[str, Any]) -> Trainer:
    trainer = make_trainer(folder, **recipe)
    assert trainer.fit()
    return trainer


def assert_same_run(folder: Path, whole: Path) -> None:
    """Hold two folders to the same training, byte for byte but for the times."""
    model = "model.safetensors"
    assert (folder / model).read_bytes() == (whole / model).read_bytes()
    tensors, expected = (read_tensors(f / "state.safetensors")[0] for f in (folder, whole))
    assert same(tensors, expected)
    assert (folder / "metrics.csv").read_bytes() == (whole / "metrics.csv").read_bytes()


@pytest.mark.parametrize("stop", [1, 3])
def test_run_resumed_after_an_epoch_is_the_run_never_stopped(tmp_path: Path, stop: int) -> None:
    whole_run(tmp_path / "whole", PLAIN)
    make_trainer(tmp_path / "cut", sizes=DEEP, epochs=stop, lr=0.01).fit()
    # Another model, whose own weights must not matter, and other random numbers drawn meanwhile.
    fresh = make_trainer(tmp_path / "cut", model=make_model(77, **DEEP), epochs=4, lr=0.01)
    torch.rand(5)
    fresh.resume()
    assert len(fresh.history) == stop
    assert fresh.fit()
    assert_same_run(tmp_path / "cut", tmp_path / "whole")


@contextlib.contextmanager
def ctrl_c(trainer: Trainer, method: str, call: int) -> Iterator[None]:
    """Let Ctrl-C fall at the start of a call of this method, counted from 1."""
    calls, real = itertools.count(1), getattr(trainer, method)

    def interrupted(*args: Any) -> Any:
        if next(calls) == call:
            raise KeyboardInterrupt
        return real(*args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer, method, interrupted)
        yield


# Three batches an epoch: the seventh begins the third, the eighth is in its midst.
@pytest.mark.parametrize(("method", "call"), [("learn", 7), ("learn", 8), ("validate", 3)])
@pytest.mark.parametrize("recipe", [PLAIN, FULL], ids=["plain", "full"])
def test_run_resumed_after_ctrl_c_is_the_run_never_stopped(
    tmp_path: Path, recipe: dict[str, Any], method: str, call: int
) -> None:
    whole_run(tmp_path / "whole", recipe)
    cut = make_trainer(tmp_path / "cut", **recipe)
    with ctrl_c(cut, method, call):
        assert not cut.fit()
    # Another model, whose own weights must not matter, and other random numbers drawn meanwhile.
    fresh = make_trainer(tmp_path / "cut", model=make_model(77, **recipe["sizes"]), **recipe)
    torch.rand(5)
    fresh.resume()
    assert len(fresh.history) == 2
    assert fresh.fit()
    assert_same_run(tmp_path / "cut", tmp_path / "whole")


def test_ctrl_c_gives_up_the_epoch_and_keeps_the_best(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    seen: list[Any] = []
    trainer = make_trainer(tmp_path, validate=watched([1.0, 2.0], seen), epochs=9, lr=0.01)
    with ctrl_c(trainer, "learn", 8):
        assert not trainer.fit()
    kept, record = load_model(tmp_path / "model.safetensors")
    assert record["best_epoch"] == 1
    assert same(weights_of(kept), seen[0])
    assert len(read_metrics(tmp_path)) == 2
    assert capsys.readouterr().out.splitlines()[-1].startswith("stopped")


def test_ctrl_c_in_the_first_epoch_keeps_what_was_learnt(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, lr=0.01)
    before = weights_of(trainer.model)
    with ctrl_c(trainer, "learn", 2):
        assert not trainer.fit()
    kept, record = load_model(tmp_path / "model.safetensors")
    assert record["best_epoch"] == 0
    assert same(weights_of(kept), weights_of(trainer.model))
    assert not same(weights_of(kept), before)
    assert not (tmp_path / "state.safetensors").exists()
    # Gone on with, the first epoch is repeated, and is what it would have been.
    again = make_trainer(tmp_path, lr=0.01)
    again.resume()
    again.fit()
    never_stopped = make_trainer(tmp_path / "whole", lr=0.01)
    never_stopped.fit()
    assert_same_run(tmp_path, tmp_path / "whole")


@contextlib.contextmanager
def handlers(when_ctrl_c: Any = signal.default_int_handler) -> Iterator[None]:
    """Handle signals as run_program and Python do, even where the tests run in the background."""
    usual = {signal.SIGTERM: lambda *_: sys.exit(143), signal.SIGINT: when_ctrl_c}
    before = {number: signal.signal(number, handler) for number, handler in usual.items()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@pytest.mark.parametrize("epochs", [1, 3])
@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_that_comes_while_python_clears_up_ends_training_after_the_epoch(
    tmp_path: Path, stop: signal.Signals, epochs: int
) -> None:
    class Cleared:
        def __del__(self) -> None:  # of what is raised here, Python says that it is ignored
            signal.raise_signal(stop)

    def validate(model: PianoLSTM) -> float:
        Cleared()
        return 1.0

    trainer = make_trainer(tmp_path, validate=validate, epochs=epochs)
    with handlers():
        if stop == signal.SIGINT:
            assert not trainer.fit()
        else:
            with pytest.raises(SystemExit):
                trainer.fit()
    assert len(read_metrics(tmp_path)) == len(trainer.history) == 1


@pytest.mark.parametrize("when_ctrl_c", [signal.default_int_handler, signal.SIG_IGN])
@pytest.mark.parametrize("first", [signal.SIGINT, signal.SIGTERM])
def test_sigterm_ends_training_whatever_ctrl_c_does_beside_it(
    tmp_path: Path, first: signal.Signals, when_ctrl_c: Any
) -> None:
    coming = sorted([signal.SIGINT, signal.SIGTERM], key=lambda stop: stop != first)

    def validate(model: PianoLSTM) -> float:
        while coming:
            signal.raise_signal(coming.pop(0))
        return 1.0

    trainer = make_trainer(tmp_path, validate=validate, epochs=3)
    with handlers(when_ctrl_c), pytest.raises(SystemExit):
        trainer.fit()
    assert len(read_metrics(tmp_path)) == len(trainer.history) == 1


def test_ctrl_c_while_the_first_epoch_is_written_keeps_what_was_learnt(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path)
    with ctrl_c(trainer, "keep", 1):
        assert not trainer.fit()
    assert (tmp_path / "model.safetensors").is_file()


def test_resuming_a_finished_run_trains_no_more(tmp_path: Path) -> None:
    make_trainer(tmp_path, epochs=2).fit()
    files = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    again = make_trainer(tmp_path, epochs=2)
    again.resume()
    assert again.fit()
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == files


def test_resuming_where_nothing_is_starts_at_the_start(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path)
    before = weights_of(trainer.model)
    trainer.resume()
    assert trainer.history == []
    assert same(weights_of(trainer.model), before)


def test_resumed_run_knows_the_best_of_before(tmp_path: Path) -> None:
    make_trainer(tmp_path, epochs=1, validate=lambda _: 1.0).fit()
    kept = (tmp_path / "model.safetensors").read_bytes()
    worse = make_trainer(tmp_path, epochs=3, validate=lambda _: 2.0)
    worse.resume()
    worse.fit()
    assert (tmp_path / "model.safetensors").read_bytes() == kept


# ---- diverged ------------------------------------------------------------------------------------


def poison(trainer: Trainer, call: int, value: float) -> None:
    """Put a number that is none into the weights at the start of a call of `learn`."""
    calls, real = itertools.count(1), trainer.learn

    def learn(batch: Any, shift: Any) -> float:
        if next(calls) == call:
            with torch.no_grad():
                trainer.model.embedding.bias[0] = value
        return real(batch, shift)

    trainer.learn = learn  # type: ignore[method-assign]


def test_diverged_run_says_so_and_keeps_the_last_good_weights(tmp_path: Path) -> None:
    make_trainer(tmp_path / "good", epochs=1).fit()
    trainer = make_trainer(tmp_path / "bad", epochs=3)
    poison(trainer, 5, math.nan)  # the second batch of the second epoch
    said = r"^epoch 2, batch 2 of 3 \(training tunes \d, \d\): the loss is nan; .*--lr$"
    with pytest.raises(DivergedError, match=said):
        trainer.fit()
    kept = (tmp_path / "bad" / "model.safetensors").read_bytes()
    assert kept == (tmp_path / "good" / "model.safetensors").read_bytes()
    assert len(read_metrics(tmp_path / "bad")) == 1


def test_run_that_diverges_at_once_keeps_no_weights(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path)
    poison(trainer, 1, math.nan)
    with pytest.raises(DivergedError, match="epoch 1"):
        trainer.fit()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("epoch", [1, 2])
def test_weights_without_a_finite_valid_nll_are_never_the_best(
    tmp_path: Path, epoch: int, value: float
) -> None:
    # The last step of an epoch may spoil the weights after its loss was counted.
    values = iter([1.5] * (epoch - 1) + [value])
    trainer = make_trainer(tmp_path, epochs=3, validate=lambda _: next(values))
    with pytest.raises(DivergedError, match=rf"epoch {epoch}: the valid NLL is {value}.*--lr"):
        trainer.fit()
    assert (tmp_path / "model.safetensors").exists() == (epoch == 2)
    if epoch == 2:
        assert load_model(tmp_path / "model.safetensors")[1]["valid_nll"] == 1.5
        assert len(read_metrics(tmp_path)) == 1
