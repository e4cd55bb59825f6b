"""--patience: training ends where the validation NLL no longer falls."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import main
from helpers import SMALL, call
from helpers_train import make_trainer, read_rows
from model import PianoLSTM
from train import Trainer

SIZES = [*(flag for flag in SMALL if not flag.startswith("--epochs")), "--num_samples=1"]


def nlls(*values: float) -> Callable[[Any], float]:
    """Return a validation that gives these NLLs, epoch by epoch."""
    given = iter(values)
    return lambda model: next(given)


def epochs_of(run: str | Path) -> int:
    return len(read_rows(Path(run, "metrics.csv")))


@pytest.mark.parametrize(
    ("patience", "values", "epochs"),
    [
        (0, (3, 2, 5, 5, 5, 5), 6),
        (1, (3, 2, 5, 5, 5, 5), 3),
        (2, (3, 2, 5, 5, 5, 5), 4),
        (2, (3, 4, 2, 4, 1, 4), 6),  # each new lowest NLL starts the count again
        (2, (3, 3, 3, 3, 3, 3), 3),  # an equal one does not
        (4, (3, 2, 5, 5, 5, 5), 6),
    ],
)
def test_training_stops_after_so_many_epochs_without_a_new_lowest_nll(
    tmp_path: Path, patience: int, values: tuple[float, ...], epochs: int
) -> None:
    trainer = make_trainer(tmp_path, validate=nlls(*values), epochs=6, patience=patience)
    assert trainer.fit()
    assert epochs_of(tmp_path) == epochs
    assert trainer.stopped_early == (epochs < 6)
    assert PianoLSTM.load(tmp_path).metadata["valid_nll"] == min(values[:epochs])


def test_the_log_says_where_training_stopped_and_which_epoch_was_best(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_trainer(tmp_path, validate=nlls(3, 2, 5, 5), epochs=9, patience=2).fit()
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith("stopped early after epoch 4 of 9: ")
    assert "epoch 2 in 2 epochs (--patience)" in last


def test_a_run_that_was_stopped_early_ends_there_again_unless_it_gets_more_patience(
    tmp_path: Path,
) -> None:
    make_trainer(tmp_path, validate=nlls(3, 4, 4), epochs=9, patience=2).fit()
    for patience, epochs in ((2, 3), (3, 4)):
        trainer = make_trainer(tmp_path, validate=nlls(4), epochs=9, patience=patience)
        trainer.resume()
        assert trainer.fit()
        assert epochs_of(tmp_path) == epochs


def test_results_say_whether_a_run_stopped_early_and_after_how_many_epochs(
    small_set: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run_epoch = Trainer._run_epoch

    def worse_and_worse(trainer: Trainer, number: int) -> Any:
        trainer.validate = nlls(float(number))
        return run_epoch(trainer, number)

    monkeypatch.setattr(Trainer, "_run_epoch", worse_and_worse)
    data = ["--data", small_set, *SIZES, "--epochs=5"]
    assert call(main, *data, "--patience=2", "--run_dir=early") == 0
    assert "stopped early after epoch 3 of 5" in capsys.readouterr().out
    assert call(main, *data, "--run_dir=whole") == 0
    early, whole = (json.loads(Path(r, "results.json").read_text()) for r in ("early", "whole"))
    assert (early["stopped_early"], early["epochs"], early["best_epoch"]) == (True, 3, 1)
    assert (whole["stopped_early"], whole["epochs"], whole["best_epoch"]) == (False, 5, 1)
    capsys.readouterr()
    assert call(main, "--evaluate=early", "--json") == 0
    assert json.loads(capsys.readouterr().out) == early
    assert call(main, "--resume=early", "--patience=3") == 0
    assert epochs_of("early") == 4
