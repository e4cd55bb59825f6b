"""A run that was stopped and resumed equals one that was not; a diverged one keeps good weights."""

import math
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

import train
from helpers import names_in
from helpers_train import (
    ATTENTION,
    DROPOUT,
    before_each_step,
    copy_weights,
    make_model,
    make_trainer,
    read_rows,
    same,
)
from model import PianoLSTM
from pianolstm.files import InputError
from train import DivergedError, Trainer

PLAIN: dict[str, Any] = {"sizes": {**DROPOUT, "layers": 2}, "epochs": 3, "lr": 0.01}
# Whatever changes over the epochs, or uses random numbers.
FULL = PLAIN | {
    "sizes": {**DROPOUT, **ATTENTION, "attention_dropout": 0.3, "transpose_prob": 0.5},
    "lr_schedule": "onecycle",
}
RECIPES = {"plain": PLAIN, "full": FULL}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Return the folder of an uninterrupted run of each recipe."""
    folders = {name: tmp_path_factory.mktemp("whole") for name in RECIPES}
    for name, folder in folders.items():
        make_trainer(folder, **RECIPES[name]).fit()
    return folders


def assert_same_run(folder: Path, expected: Path) -> None:
    """Assert that two runs wrote the same bytes, but for the times."""
    for name in ("model.safetensors", "metrics.csv"):
        assert (folder / name).read_bytes() == (expected / name).read_bytes()
    state, expected_state = (
        torch.load(path / "state.pt", weights_only=True) for path in (folder, expected)
    )
    assert same(state["model"], expected_state["model"])
    moments, expected_moments = (s["optimizer"]["state"] for s in (state, expected_state))
    assert moments.keys() == expected_moments.keys()
    assert all(same(moments[key], expected_moments[key]) for key in moments)


def resume(folder: Path, recipe: dict[str, Any]) -> Trainer:
    """Resume with a trainer whose model was another, after random numbers were used; return it."""
    trainer = make_trainer(folder, model=make_model(77, **recipe["sizes"]), **recipe)
    torch.rand(5)
    trainer.resume()
    return trainer


def ctrl_c_before_step(trainer: Trainer, step: int) -> None:
    """Let Ctrl-C be pressed before this optimizer step, counted from 1."""

    def interrupt(number: int, *_: Any) -> None:
        if number == step:
            raise KeyboardInterrupt

    before_each_step(trainer, interrupt)


# ---- resumed -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", RECIPES)
def test_a_run_resumed_after_ctrl_c_equals_one_never_stopped(
    tmp_path: Path, whole: dict[str, Path], name: str
) -> None:
    stopped = make_trainer(tmp_path, **RECIPES[name])
    ctrl_c_before_step(stopped, 9)  # of six steps an epoch
    assert not stopped.fit()
    resumed = resume(tmp_path, RECIPES[name])
    assert len(resumed.history) == 1
    assert resumed.fit()
    assert_same_run(tmp_path, whole[name])


def test_a_run_resumed_with_more_epochs_equals_one_that_had_them_from_the_start(
    tmp_path: Path, whole: dict[str, Path]
) -> None:
    assert make_trainer(tmp_path, **PLAIN | {"epochs": 2}).fit()
    resumed = resume(tmp_path, PLAIN)
    assert len(resumed.history) == 2
    assert resumed.fit()
    assert_same_run(tmp_path, whole["plain"])


def test_a_run_resumed_after_ctrl_c_in_validation_equals_one_never_stopped(
    tmp_path: Path, whole: dict[str, Path]
) -> None:
    stopped = make_trainer(tmp_path, **PLAIN)
    validate, calls = stopped.validate, iter([False, True])

    def interrupted(model: PianoLSTM) -> float:
        if next(calls):
            raise KeyboardInterrupt
        return validate(model)

    stopped.validate = interrupted
    assert not stopped.fit()
    assert resume(tmp_path, PLAIN).fit()
    assert_same_run(tmp_path, whole["plain"])


def test_resuming_a_finished_run_changes_no_file(tmp_path: Path) -> None:
    make_trainer(tmp_path).fit()
    files = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    again = make_trainer(tmp_path)
    again.resume()
    assert again.fit()
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == files


def test_resuming_an_empty_folder_starts_from_the_beginning(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path)
    before = copy_weights(trainer.model)
    trainer.resume()
    assert trainer.history == []
    assert same(copy_weights(trainer.model), before)


def test_a_resumed_run_keeps_the_best_weights_from_before(tmp_path: Path) -> None:
    make_trainer(tmp_path, epochs=1, validate=lambda _: 1.0).fit()
    best = (tmp_path / "model.safetensors").read_bytes()
    worse = make_trainer(tmp_path, epochs=3, validate=lambda _: 2.0)
    worse.resume()
    worse.fit()
    assert (tmp_path / "model.safetensors").read_bytes() == best


def test_a_state_whose_history_is_not_of_epochs_is_refused(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path)
    path = tmp_path / "state.pt"
    train.save_training_state(path, trainer.model, trainer.optimizer, [{"epoch": 1}])
    with pytest.raises(InputError, match=r"state\.pt: not the state of a run"):
        trainer.resume()


# ---- stopped -------------------------------------------------------------------------------------


def test_ctrl_c_gives_up_the_epoch_and_keeps_the_best_weights(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = []

    def validate(model: PianoLSTM) -> float:
        weights.append(copy_weights(model))
        return float(len(weights))

    trainer = make_trainer(tmp_path, validate=validate, epochs=9, lr=0.01)
    ctrl_c_before_step(trainer, 15)  # in the third epoch
    assert not trainer.fit()
    kept = PianoLSTM.load(tmp_path)
    assert kept.metadata["best_epoch"] == 1
    assert same(copy_weights(kept), weights[0])
    assert len(read_rows(tmp_path / "metrics.csv")) == 2
    assert capsys.readouterr().out.splitlines()[-1].startswith("stopped")


def test_ctrl_c_in_the_first_epoch_keeps_the_weights_so_far_and_resuming_repeats_it(
    tmp_path: Path, whole: dict[str, Path]
) -> None:
    trainer = make_trainer(tmp_path, **PLAIN)
    before = copy_weights(trainer.model)
    ctrl_c_before_step(trainer, 3)
    assert not trainer.fit()
    kept = PianoLSTM.load(tmp_path)
    assert kept.metadata["best_epoch"] == 0
    assert same(copy_weights(kept), copy_weights(trainer.model))
    assert not same(copy_weights(kept), before)
    assert not (tmp_path / "state.pt").exists()
    again = make_trainer(tmp_path, **PLAIN)
    again.resume()
    again.fit()
    assert_same_run(tmp_path, whole["plain"])


def test_ctrl_c_while_the_first_epoch_is_written_keeps_the_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(train, "write_csv", interrupt)
    assert not make_trainer(tmp_path).fit()
    assert PianoLSTM.load(tmp_path).metadata["best_epoch"] == 0


@contextmanager
def usual_handlers() -> Iterator[None]:
    """Handle signals as a program does, even where the tests run in the background."""
    usual = {signal.SIGTERM: lambda *_: sys.exit(143), signal.SIGINT: signal.default_int_handler}
    before = {number: signal.signal(number, handler) for number, handler in usual.items()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@pytest.mark.parametrize("epochs", [1, 3])
@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_during_a_destructor_ends_training_after_the_epoch(
    tmp_path: Path, stop: signal.Signals, epochs: int
) -> None:
    class Garbage:
        def __del__(self) -> None:  # Python ignores what is raised here
            signal.raise_signal(stop)

    def validate(model: PianoLSTM) -> float:
        Garbage()
        return 1.0

    trainer = make_trainer(tmp_path, validate=validate, epochs=epochs)
    with usual_handlers():
        if stop == signal.SIGINT:
            assert not trainer.fit()
        else:
            with pytest.raises(SystemExit):
                trainer.fit()
    assert len(read_rows(tmp_path / "metrics.csv")) == len(trainer.history) == 1


# ---- diverged ------------------------------------------------------------------------------------


def make_nan_before_step(trainer: Trainer, step: int) -> None:
    """Put NaN into the weights before this optimizer step, counted from 1."""

    @torch.no_grad()
    def poison(number: int, *_: Any) -> None:
        if number == step:
            trainer.model.embedding.bias[0] = math.nan

    before_each_step(trainer, poison)


def test_a_diverged_run_names_the_batch_and_keeps_the_weights_of_the_epoch_before(
    tmp_path: Path,
) -> None:
    make_trainer(tmp_path / "good", epochs=1, bptt=0).fit()
    trainer = make_trainer(tmp_path / "bad", epochs=3, bptt=0)
    make_nan_before_step(trainer, 5)  # of three steps an epoch
    message = r"^epoch 2, batch 2 of 3 \(training pieces \d, \d\): the loss is nan; .*--lr$"
    with pytest.raises(DivergedError, match=message):
        trainer.fit()
    kept = (tmp_path / "bad" / "model.safetensors").read_bytes()
    assert kept == (tmp_path / "good" / "model.safetensors").read_bytes()
    assert len(read_rows(tmp_path / "bad" / "metrics.csv")) == 1


def test_a_run_that_diverges_at_once_keeps_no_weights(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path)
    make_nan_before_step(trainer, 1)
    with pytest.raises(DivergedError, match="epoch 1"):
        trainer.fit()
    assert names_in(tmp_path) == []


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("epoch", [1, 2])
def test_weights_without_a_finite_valid_nll_are_never_kept(
    tmp_path: Path, epoch: int, value: float
) -> None:
    # The last step of an epoch can spoil the weights after its loss was computed.
    values = iter([1.5] * (epoch - 1) + [value])
    trainer = make_trainer(tmp_path, epochs=3, validate=lambda _: next(values))
    with pytest.raises(DivergedError, match=rf"epoch {epoch}: the valid NLL is {value}.*--lr"):
        trainer.fit()
    assert (tmp_path / "model.safetensors").exists() == (epoch == 2)
    if epoch == 2:
        assert PianoLSTM.load(tmp_path).metadata["valid_nll"] == 1.5
