"""The benchmarks: calibration on tiny pieces, tables of finished runs, measured runs, speed."""

import argparse
import dataclasses
import json
import math
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import calibrate, composing, finetune, measured_run, results, ship, speed
from benchmarks.calibrate import PUBLISHED, RECIPES, Recipe, Result, on_plateau, piece_loss
from data import RollDataset, collate
from helpers import SMALL, Splits, roll_from
from helpers_sampling import sampling_model, train_small_run
from helpers_train import CPU, random_rolls
from main import parse_flags
from model import PianoLSTM
from pianolstm.checkpoint import read_weights
from pianolstm.files import InputError
from pianolstm.inputs.datasets import NAMED_SETS, Corpus
from pianolstm.rolls import PITCHES
from settings import GROUPS
from train import evaluate

TINY = Recipe(2, 6, dropout=0.2, clip=1.0, forget_bias=10.0, lr=0.01)


@pytest.fixture
def corpus(tiny_splits: Splits) -> Corpus:
    return Corpus("jsb", tiny_splits, 1.0, "", published=((PUBLISHED, 8.45),))


def divisions(valid: list[float]) -> list[int]:
    """Return the epochs, from 1, after which the learning rate is divided."""
    return [epoch for epoch in range(1, len(valid) + 1) if on_plateau(valid[:epoch])]


def test_the_learning_rate_is_divided_only_after_the_tenth_epoch() -> None:
    assert divisions([float(epoch) for epoch in range(1, 13)]) == [11, 12]


def test_the_learning_rate_is_divided_when_an_epoch_is_worse_than_all_three_before() -> None:
    valid = [9.0] * 10 + [8.0, 8.5, 8.2, 8.5, 8.6, 8.1, 8.6, 8.61, 7.0, 7.5, 7.1, 9.0, 9.0]
    # Epochs 11 to 13 are below the 9.0 of three before; 14 ties with 12, 17 with 15; 20 < 17.
    assert divisions(valid) == [15, 18, 22]


def test_the_loss_is_the_sum_over_a_piece_but_its_first_frame() -> None:
    torch.manual_seed(0)
    model = calibrate.make_model(dataclasses.replace(TINY, dropout=0.0))
    pieces = RollDataset(random_rolls(9, 2, 5))
    each = [evaluate(model, RollDataset([roll]), CPU).nll for roll in random_rolls(9, 2, 5)]
    sums = [nll * (n - 1) for nll, n in zip(each, (9, 2, 5), strict=True)]
    alone = [float(piece_loss(model, collate([pieces[i]])).detach()) for i in range(3)]
    assert alone == pytest.approx(sums, rel=1e-5)
    together = float(piece_loss(model, collate([pieces[i] for i in range(3)])).detach())
    assert together == pytest.approx(np.mean(sums), rel=1e-5)


def test_the_lstm_reads_the_pitches_themselves() -> None:
    model = calibrate.make_model(TINY)
    frames = torch.eye(PITCHES)
    torch.testing.assert_close(model.embedding(frames), frames)
    assert not any(parameter.requires_grad for parameter in model.embedding.parameters())


def test_forget_gates_start_with_the_published_bias() -> None:
    lstm = calibrate.make_model(TINY).lstm
    for layer in range(2):
        both = getattr(lstm, f"bias_ih_l{layer}") + getattr(lstm, f"bias_hh_l{layer}")
        assert (both[6:12] == 10).all()  # input, forget, cell, output: six of each
        assert (both[[*range(6), *range(12, 24)]].abs() < 1).all()
    plain = calibrate.make_model(dataclasses.replace(TINY, forget_bias=None)).lstm
    assert all(weights.abs().max() < 1 for weights in plain.parameters())


def test_sizes_are_those_of_the_paper() -> None:
    def weights(name: str) -> int:
        model = calibrate.make_model(RECIPES[name])
        ends = sum(p.numel() for p in model.end_head.parameters())  # which the paper has not
        return sum(p.numel() for p in model.parameters() if p.requires_grad) - ends

    # A layer: 4 gates of H, each of its inputs, H states, 2 biases; the head: H inputs, 1 bias.
    assert weights("nottingham") == 4 * 500 * (88 + 500 + 2) + 88 * 501
    assert weights("jsb") == 4 * 200 * (88 + 200 + 2) + 4 * 200 * (200 + 200 + 2) + 88 * 201


def test_every_set_has_a_published_nll() -> None:
    published = {name: dict(NAMED_SETS[name].published)[PUBLISHED] for name in RECIPES}
    assert published == {"jsb": 8.45, "nottingham": 3.29}


def test_calibration_evaluates_the_weights_best_on_valid(
    corpus: Corpus, capsys: pytest.CaptureFixture[str]
) -> None:
    result = calibrate.calibrate(corpus, TINY, seed=1, epochs=12)
    assert result == dataclasses.replace(
        calibrate.calibrate(corpus, TINY, seed=1, epochs=12), seconds=result.seconds
    )
    assert min(result.valid) < result.valid[0]
    swapped = {**corpus.splits, "test": corpus.splits["valid"]}
    again = calibrate.calibrate(dataclasses.replace(corpus, splits=swapped), TINY, 1, 12)
    assert again.test == pytest.approx(min(again.valid), rel=1e-6)
    assert capsys.readouterr().out.count("\n") == 36  # a line each epoch


def test_calibration_ends_after_four_divisions_of_the_learning_rate(
    corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calibrate, "on_plateau", lambda valid: len(valid) % 2 == 0)
    assert len(calibrate.calibrate(corpus, TINY, seed=1, epochs=100).valid) == 8


def test_the_table_of_the_calibration() -> None:
    result = Result("jsb", 8.45, [9.0, 8.4, 8.6], 8.5512, 90.0)
    assert calibrate.format_table([result]).splitlines() == [
        "| set | published | ours, valid | ours, test | difference | best epoch | time |",
        "| --- | --- | --- | --- | --- | --- | --- |",
        "| jsb | 8.45 | 8.400 | 8.551 | +0.10 | 2 of 3 | 1.5 min |",
    ]


# ---- the tables of results -----------------------------------------------------------------------


def finished_run(folder: Path, valid: float, test: float, seconds: int) -> Path:
    """Write the files of a run that a table is made from."""
    folder.mkdir(parents=True)
    scores = {
        split: {"nll": nll, "nll_first_frame_scored": nll + 1, "frame_accuracy": nll / 10}
        for split, nll in (("valid", valid), ("test", test))
    }
    (folder / "results.json").write_text(json.dumps(scores))
    (folder / "seconds.txt").write_text(f"{seconds}\n")
    return folder


def test_a_row_has_the_mean_of_its_seeds_and_their_range(
    tmp_path: Path,
) -> None:
    runs = [
        finished_run(tmp_path / "1", 2.0, 3.0, 60),
        finished_run(tmp_path / "2", 2.5, 3.1, 120),
        finished_run(tmp_path / "3", 2.1, 3.5, 180),
    ]
    assert results.format_row(results.Row("name", "--dataset jsb"), runs) == (
        "| `python main.py --dataset jsb` | 1, 2, 3 | 2.200 (2.000 to 2.500)"
        " | 3.200 (3.000 to 3.500) | 4.200 | 32.0% | 2.0 min |"
    )
    assert results.format_row(results.Row("name", ""), runs[:1]) == (
        "| `python main.py` | 1 | 2.000 | 3.000 | 4.000 | 30.0% | 1.0 min |"
    )


def test_a_finished_run_is_not_repeated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = finished_run(tmp_path / "best" / "7", 1.0, 1.0, 1)
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: pytest.fail("trained again"))
    options = argparse.Namespace(output_dir=tmp_path, finished_only=False)
    assert results.train(results.Row("best", "--preset best"), 7, options) == folder


def test_only_finished_runs_are_printed_if_wanted(tmp_path: Path) -> None:
    options = argparse.Namespace(output_dir=tmp_path, finished_only=True)
    assert results.train(results.Row("best", "--preset best"), 7, options) is None


def test_commands_have_the_device_the_threads_and_the_folder_of_the_data() -> None:
    options = argparse.Namespace(threads=2, device="cuda", data_dir="sets")
    words = results.command(["--preset", "best"], options)
    assert words[2:] == ["--preset", "best", "--threads=2", "--device=cuda", "--data_dir=sets"]


def scores_of(nll: float) -> dict[str, float]:
    return {
        "nll": nll, "nll_first_frame_scored": nll + 0.1,
        "nll_per_piece_mean_first_frame_scored": nll + 0.2, "expected_frame_accuracy": 0.25,
        "nll_per_voice": nll / 4, "nll_per_voice_at_most": nll / 2,
    }  # fmt: skip


def test_the_rows_of_a_set_have_the_counts_of_all_papers(tmp_path: Path) -> None:
    folder = tmp_path / "7"
    folder.mkdir()
    (folder / "results.json").write_text(json.dumps({"seconds": 90}))
    plain, averaged = (
        {
            "valid": scores_of(nll),
            "test": scores_of(nll + 1),
            "independent_test": {"pieces": 49, **scores_of(nll + 2)},
        }
        for nll in (3.0, 2.0)
    )
    rows = results.format_set("jsb", [folder], [(plain, averaged)]).splitlines()
    assert rows == [
        "| jsb | 7 | 3.000 | 4.000 | 3.000 | 4.100 | 4.200 | 25.0% | 1.5 min |",
        "| jsb, 49 independent pieces | 7 |  | 5.000 | 4.000 | 5.100 | 5.200 | 25.0% |  |",
        "| jsb, nats per voice token | 7 |  |  | 0.7500 | 1.0000 |  |  |  |",
        "| jsb, the same, at most | 7 |  |  | 1.5000 | 2.0000 |  |  |  |",
    ]
    assert {row.count("|") for row in rows} == {results.HEADINGS["sets"].split("\n")[0].count("|")}


@pytest.mark.parametrize("row", [row for rows in results.TABLES.values() for row in rows])
def test_flags_of_every_row_are_flags_of_the_program(row: results.Row) -> None:
    flags, parser = parse_flags(row.flags.split())
    for group in GROUPS.values():
        group.from_flags(flags, parser)


@pytest.mark.parametrize("words", finetune.COMMANDS.values(), ids=finetune.COMMANDS)
def test_flags_of_the_compared_starts_are_flags_of_the_program(words: str) -> None:
    flags, parser = parse_flags(words.format(weights="nottingham").split())
    for group in GROUPS.values():
        group.from_flags(flags, parser)


def test_a_row_of_the_fine_tuning_table_has_means_and_the_three_values() -> None:
    runs = [
        {"valid": nll, "test": nll + 1, "best epoch": 2, "epochs": 3, "seconds": 90.0}
        for nll in (1.0, 2.0, 3.0)
    ]
    row = finetune.line("fine-tuned", "--init_from jsb", runs)
    assert row == (
        "| fine-tuned | `--init_from jsb` | 2.000 (1.000, 2.000, 3.000)"
        " | 3.000 (2.000, 3.000, 4.000) | 2 of 3, 2 of 3, 2 of 3 | 1.5 min |"
    )


def test_the_rows_of_a_table_have_different_names() -> None:
    for rows in results.TABLES.values():
        assert len({row.name for row in rows}) == len(rows)


# ---- speed ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("seconds", [0.0, pytest.param(math.inf, marks=pytest.mark.slow)])
def test_a_run_is_measured_until_its_time_is_over_or_it_ends(
    seconds: float, small_set: Path, tmp_path: Path
) -> None:
    flags = [f"--data={small_set}", *SMALL, "--num_samples=1", "--device=cpu", "--run_dir=run"]
    measured = measured_run.measure(flags, seconds, tmp_path)
    assert 0 < measured["torch"] < measured["first_step"]
    assert measured["peak_mib"] > 50
    assert (measured["frames_per_second"] > 0) == bool(seconds)
    assert (tmp_path / "run" / "results.json").is_file() == bool(seconds)


@pytest.mark.parametrize(
    ("row", "met"),
    [
        (speed.Row("a", 50.0, "s"), None),
        (speed.Row("a", 50.0, "s", at_most=50.0), True),
        (speed.Row("a", 51.0, "s", at_most=50.0), False),
        (speed.Row("a", 9e9, "frames/s", 0.9, "b", at_least=0.9), True),
        (speed.Row("a", 9e9, "frames/s", 0.89, "b", at_least=0.9), False),
        (speed.Row("a", 9e9, "frames/s", 0.89, "b"), None),
    ],
)
def test_a_target_is_for_the_ratio_where_there_is_one(row: speed.Row, met: bool | None) -> None:
    assert row.met is met
    assert row.cells()[-2] == {True: "yes", False: "NO", None: ""}[met]


def test_what_is_compared_runs_by_turns_and_its_median_counts() -> None:
    calls: list[str] = []
    speeds = {"a": iter([1e9, 3.0, 1.0, 7.0]), "b": iter([0.0, 5.0, 6.0, 6.0])}

    def run(name: str) -> float:
        calls.append(name)
        return next(speeds[name])

    medians = speed.run_by_turns({name: lambda name=name: run(name) for name in speeds}, 3)  # type: ignore[misc]
    assert medians == {"a": 3.0, "b": 6.0}  # the first round warms up
    assert calls == ["a", "b"] * 4


def test_every_part_of_the_speed_table_is_measured(
    corpus: Corpus,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    monkeypatch.setattr(speed, "load", lambda *_, **__: corpus)
    monkeypatch.setattr(speed, "PIECES", {1: 3, 2: 2})
    flags = [
        "--only",
        "train",
        "sample",
        "original",
        "--rounds=1",
        "--json",
        f"--data_dir={tmp_path}",
    ]
    status = speed.main(flags)
    rows = json.loads(capsys.readouterr().out)
    assert all(row["value"] > 0 for row in rows)
    assert status == any(row["met"] is False for row in rows)
    names = {row["name"] for row in rows if row["ratio"] is not None}
    assert names >= {
        *(f"train: {head}, {precision}" for head in ("Bernoulli outputs", "chord head")
          for precision in ("float32", "bfloat16")),
        *(f"train: --preset best, {precision}" for precision in ("float32", "bfloat16")),
        *(f"sample {n}: {head}" for n in (1, 2) for head in ("Bernoulli outputs", "chord head")),
        "original: ours",
    }  # fmt: skip


# ---- composing -----------------------------------------------------------------------------------


def test_chords_are_recognised_below_the_melody_and_held_where_there_is_none() -> None:
    chords = ({60, 64, 67}, {55, 59, 62, 65}, {57, 60, 64}, {52, 55, 60})  # C, G7, Am, C/E
    roll = roll_from({72}, *(chord | {76} for chord in chords), {76}, {57, 58, 59, 60, 70})
    found = composing.recognise(roll).chords
    assert [(chord.root, chord.bass) for chord in found[1:]] == [
        (0, 0), (7, 7), (9, 9), (0, 4), (0, 4), (0, 4),
    ]  # fmt: skip
    assert not found[0].classes


def test_gaps_are_filled_in_three_ways_and_pieces_too_short_are_refused() -> None:
    rolls = random_rolls(50, 48)
    lines = composing.measure_gaps(sampling_model(), rolls, 2, 8, 4, seed=1)
    assert [line.count("|") for line in lines] == [5] * 5
    with pytest.raises(InputError, match=r"^--gap 40: "):
        composing.measure_gaps(sampling_model(), rolls, 2, 40, 4, seed=1)


def test_melodies_over_the_chords_of_test_pieces_are_measured() -> None:
    tune = roll_from(*[{48, 52, 55, 72 + t % 5} for t in range(12)])
    lines = composing.measure_chords(sampling_model(), [tune], [tune], 1, seed=1)
    assert lines[2].startswith("| test pieces | 0.417 ") and lines[2].endswith("| 1.000 |")


def test_shipped_weights_are_half_as_large_and_evaluate_alike(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path, shipped = train_small_run(tmp_path) / "model.safetensors", tmp_path / "half.safetensors"
    monkeypatch.setattr("sys.argv", ["ship.py", str(path.parent), str(shipped)])
    capsys.readouterr()
    assert ship.main() == 0
    assert "validation NLL" in capsys.readouterr().out
    tensors, metadata = read_weights(shipped)
    assert {tensor.dtype for tensor in tensors.values()} == {torch.float16}
    model = PianoLSTM.load(shipped)
    assert {weights.dtype for weights in model.parameters()} == {torch.float32}
    whole = read_weights(path)[0]
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(tensor, whole[name], rtol=2**-10, atol=1e-7)
    assert metadata == read_weights(path)[1]
    monkeypatch.setattr(ship, "LARGEST_CHANGE", -1.0)
    shipped.unlink()
    assert ship.main() == 1 and not shipped.exists()
