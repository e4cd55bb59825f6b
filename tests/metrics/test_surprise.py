"""Surprise: exact, and the same by note, by frame, by piece and in the benchmark's evaluation."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import generate
import main
from data import RollDataset
from helpers import call, roll_from
from helpers_sampling import HEADS, sampling_model, train_small_run
from model import PianoLSTM
from pianolstm.checkpoint import read_weights, write_weights
from pianolstm.metrics.surprise import (
    PieceNLLs,
    Surprise,
    frame_rows,
    less_predictable_than,
    nlls_per_frame,
    note_rows,
    surprise,
)
from pianolstm.midi import roll_to_midi
from pianolstm.rolls import PITCHES
from train import evaluate


def random_roll(frames: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random((frames, PITCHES)) < 0.04


# ---- the numbers ---------------------------------------------------------------------------------


@torch.no_grad()
@pytest.mark.parametrize("sizes", HEADS.values(), ids=HEADS)
def test_notes_add_up_to_frames_and_frames_to_the_nll_of_the_piece(sizes: dict[str, int]) -> None:
    model, roll = sampling_model(**sizes), np.tile(random_roll(150), (2, 1))  # more than a chunk
    found = surprise(model, roll)
    frames = torch.from_numpy(roll).float()
    vectors, _ = model(torch.cat([torch.zeros(1, PITCHES), frames])[None, :-1])
    expected = model.head.nll(vectors[0], frames).numpy()
    np.testing.assert_allclose(found.frames, expected, rtol=1e-4)
    assert (found.notes >= 0).all() and (found.silence >= 0).all()
    assert not found.notes[~roll].any()
    assert found.total == pytest.approx(expected.sum(), rel=1e-4)


@torch.no_grad()
def test_the_surprise_of_a_note_is_that_of_its_choice_given_the_notes_above() -> None:
    model = sampling_model()
    found = surprise(model, roll_from({60, 64, 67}))
    vectors, _ = model(torch.zeros(1, 1, PITCHES))
    first = torch.log_softmax(model.head.base(vectors[0, 0]), dim=0)  # type: ignore[operator]
    assert found.notes[0, 67 - 21] == pytest.approx(-float(first[67 - 20]), rel=1e-4)


@pytest.mark.parametrize("lengths", [[5], [40, 3, 150, 1, 17]])
def test_pieces_side_by_side_have_the_nll_of_each_and_of_the_evaluation(lengths: list[int]) -> None:
    model = sampling_model()
    rolls = [random_roll(length, seed) for seed, length in enumerate(lengths)]
    means = nlls_per_frame(model, rolls)
    expected = [surprise(model, roll).per_frame for roll in rolls]
    np.testing.assert_allclose(means, expected, rtol=1e-4)
    counted = [i for i, length in enumerate(lengths) if length > 1]
    pooled = sum(means[i] * (lengths[i] - 1) for i in counted) / sum(
        lengths[i] - 1 for i in counted
    )
    scores = evaluate(model, RollDataset([rolls[i] for i in counted]), torch.device("cpu"))
    assert scores.nll == pytest.approx(pooled, rel=1e-4)


def by_hand() -> Surprise:
    """Return the surprise of three frames: C4; C4 and E4; E4."""
    roll = roll_from({60}, {60, 64}, {64})
    notes = np.zeros((3, PITCHES))
    notes[0, 39], notes[1, 39], notes[1, 43], notes[2, 43] = 2.0, 0.5, 1.0, 0.25
    return Surprise(roll, notes, np.array([0.1, 0.2, 0.3]))


def test_rows_worked_out_by_hand() -> None:
    assert [row["nats"] for row in frame_rows(by_hand(), 0.5)] == [2.1, 1.7, 0.55]
    assert frame_rows(by_hand(), 0.5)[1] == {
        "frame": 1, "beat": 0.5, "nats": 1.7, "silence": 0.2, "pitches": "60 64",
    }  # fmt: skip
    assert note_rows(by_hand(), 0.5) == [
        {"beat": 0.0, "beats": 1.0, "pitch": 60, "onset": 2.0, "nats": 2.5},
        {"beat": 0.5, "beats": 1.0, "pitch": 64, "onset": 1.0, "nats": 1.25},
    ]
    assert by_hand().per_frame == (1.7 + 0.55) / 2


def test_transposing_moves_the_notes_and_keeps_every_sum() -> None:
    for semitones in (3, -60, 80):
        moved = by_hand().transpose(semitones)
        np.testing.assert_allclose(moved.frames, by_hand().frames)
        assert (moved.notes > 0).sum() == 4 == moved.roll.sum()
        assert moved.roll[moved.notes > 0].all()


@pytest.mark.parametrize(
    ("value", "others", "share"),
    [(2.0, [1, 3, 1.5, 4], 0.5), (9, [1, 2], 1.0), (2, [2, 2], 0.5), (1, [np.nan, 2], 0.0)],
)
def test_the_rank_among_other_pieces(value: float, others: list[float], share: float) -> None:
    assert less_predictable_than(value, others) == share
    assert np.isnan(less_predictable_than(value, []))


@pytest.mark.parametrize("count", [3, 101, 250])
def test_the_values_kept_of_many_pieces_are_their_percentiles(count: int) -> None:
    nlls = np.random.default_rng(count).permutation(np.linspace(0.5, 3, count)).tolist()
    kept = PieceNLLs.of_pieces([*nlls, np.nan])  # a piece of one frame
    assert kept.pieces == count and len(kept.values) == min(count, 101)
    assert PieceNLLs.of_metadata({"test_nlls": kept._asdict()}) == kept
    for value in (0.4, 1.0, 2.9, 3.5):
        exact = less_predictable_than(value, nlls)
        assert less_predictable_than(value, kept.values) == pytest.approx(exact, abs=0.01)
    assert PieceNLLs.of_metadata({}) is None


# ---- generate.py and main.py ---------------------------------------------------------------------


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the path of a small run; my.mid is in the current folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PIANO_DATA_DIR", raising=False)
    roll_to_midi(roll_from(*[{55 + t % 3, 67 + t % 5} for t in range(24)]), 0.5).write("my.mid")
    return train_small_run(tmp_path)


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_a_file_is_measured_into_tables_a_picture_and_the_page(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert call(generate, run, "--surprise=my.mid") == 0
    printed = capsys.readouterr().out
    assert "my.mid: " in printed and "of the 2 test pieces of small-set" in printed
    frames = read_csv(Path("samples/surprise-my-frames.csv"))
    notes = read_csv(Path("samples/surprise-my-notes.csv"))
    total = sum(float(row["nats"]) for row in frames)
    assert f"my.mid: {total:.1f} nats in 24 frames" in printed
    of_notes = sum(float(row["nats"]) for row in notes)
    assert of_notes + sum(float(row["silence"]) for row in frames) == pytest.approx(total, abs=0.01)
    assert frames[0]["pitches"] == "55 67"
    page = Path("samples/index.html").read_text(encoding="utf-8")
    assert "Surprise in my.mid" in page and 'class="surprise-' in page
    assert Path("samples/surprise-my.png").read_bytes().startswith(b"\x89PNG")
    assert call(generate, run, "--surprise=my.mid") == 2
    assert "--overwrite" in capsys.readouterr().err
    assert call(generate, run, "--surprise=my.mid", "--overwrite") == 0


def test_the_evaluation_measures_a_file_too(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert call(main, "--evaluate", run, "--surprise=my.mid", "--json") == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)["surprise"]
    assert (found["file"], found["frames"]) == ("my.mid", 24)
    assert 0 <= found["less_predictable_than"] <= 1
    assert call(main, "--surprise=my.mid") == 2
    assert "--surprise: only with --evaluate" in capsys.readouterr().err


def test_the_comparison_needs_no_training_data(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (run / "settings.json").unlink()
    capsys.readouterr()
    assert call(generate, run, "--surprise=my.mid") == 0
    assert "of the 2 test pieces of small-set" in capsys.readouterr().out


def test_weights_without_the_nlls_of_test_pieces_take_them_from_the_data_or_say_so(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = run / "model.safetensors"
    tensors, metadata = read_weights(path)
    kept = metadata.pop("test_nlls")
    write_weights(path, tensors, metadata)
    capsys.readouterr()
    assert call(generate, run, "--surprise=my.mid") == 0
    assert "of the 2 test pieces of small-set" in capsys.readouterr().out
    corpus = generate.training_corpus(path, PianoLSTM.load(path))
    assert corpus is not None
    nlls = nlls_per_frame(PianoLSTM.load(path), corpus.splits["test"])
    assert PieceNLLs.of_pieces(nlls)._asdict() | kept == kept
    (run / "settings.json").unlink()
    assert call(generate, run, "--surprise=my.mid", "--overwrite") == 0
    printed = capsys.readouterr().out
    assert "keep no NLLs of test pieces" in printed and "PIANO_DATA_DIR" in printed


def test_a_file_that_can_not_be_read_is_named(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert call(generate, run, "--surprise=none.mid") == 2
    error = capsys.readouterr().err
    assert "--surprise none.mid" in error and error.count("\n") == 1
