"""Reports: a corpus in a line, a model's scores, and the evaluation of samples."""

from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from helpers import roll_from
from pianolstm.metrics.comparison import compare
from pianolstm.metrics.pieces import METRICS
from pianolstm.outputs import report
from pianolstm.outputs.report import (
    corpus_summary,
    evaluate_samples,
    results_table,
)


def random_pieces(count: int, seed: int, lowest: int = 60) -> list[np.ndarray]:
    """Return pieces of 40 to 79 frames, two notes at a time, each held for two frames."""
    generator = np.random.default_rng(seed)
    pieces = []
    for length in generator.integers(40, 80, count):
        notes = generator.integers(lowest, lowest + 13, (length, 2)).repeat(2, axis=0)[:length]
        pieces.append(roll_from(*[set(pair) for pair in notes.tolist()]))
    return pieces


SPLITS = {"train": random_pieces(14, 1), "valid": random_pieces(6, 2), "test": random_pieces(8, 3)}


# ---- a corpus and scores -------------------------------------------------------------------------


def test_a_corpus_is_summarised_by_the_pieces_and_frames_of_its_splits() -> None:
    splits = {"train": [np.zeros((700, 88), bool)] * 2, "valid": [], "test": [roll_from({60})]}
    assert corpus_summary("tiny", splits) == (
        "tiny: train 2 pieces / 1,400 frames, valid 0 pieces / 0 frames, test 1 pieces / 1 frames"
    )


def test_scores_are_listed_beside_baselines_and_published_models() -> None:
    scores = {
        "nll": 2.5, "nll_first_frame_scored": 2.6, "unigram": 10.26, "first_order_markov": 6.83,
        "nll_per_piece_mean": 2.7, "frame_accuracy": 0.714, "expected_frame_accuracy": 0.6,
    }  # fmt: skip
    results = {"best_epoch": 7, "valid": {**scores, "nll": 2.25}, "test": scores}
    text, rows = results_table(results, "tiny", [("a paper", 3.29)])
    assert rows == [
        ("PianoLSTM, epoch 7", "2.250", "2.500"),
        ("  first frame scored too", "2.600", "2.600"),
        ("  mean over pieces", "2.700", "2.700"),
        ("first-order Markov", "6.830", "6.830"),
        ("unigram", "10.260", "10.260"),
        ("a paper", "", "3.29"),
        ("frame accuracy", "71.4%", "71.4%"),
        ("expected frame accuracy", "60.0%", "60.0%"),
    ]
    lines = text.splitlines()
    assert lines[1] == "tiny: NLL in nats per frame, lower is better"
    assert lines[3].split() == ["valid", "test"]
    assert [line.split() for line in lines[4:]] == [" ".join(row).split() for row in rows]
    assert len({len(line) for line in lines[3:]}) == 1  # columns are aligned


# ---- the evaluation of samples -------------------------------------------------------------------


OVERLAP, CEILING, FLOOR, SHARE = 3, 4, 5, 6  # columns of the table
SIMILAR = random_pieces(14, 9)


def evaluate(sampled: list[np.ndarray], folder: Path) -> str:
    return evaluate_samples(sampled, "tiny", SPLITS, 0.5, 1, folder)


def rows_of(text: str) -> dict[str, list[str]]:
    """Return the cells of the table by the name of the metric."""
    rows = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("|")]
    return {cells[0].split(" (")[0]: cells for cells in rows[2:]}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("evaluation") / "new"


@pytest.fixture(scope="module")
def similar(folder: Path) -> str:
    """Return the evaluation of samples that resemble the test split."""
    return evaluate(SIMILAR, folder)


def test_the_evaluation_is_written_as_markdown_and_a_plot(similar: str, folder: Path) -> None:
    assert similar.startswith("# 14 samples compared with the test split of tiny")
    assert (folder / "metrics.md").read_text(encoding="utf-8") == similar
    assert (folder / "metrics.png").read_bytes().startswith(b"\x89PNG")
    assert len(list(folder.iterdir())) == 2


@pytest.mark.usefixtures("_no_plot")
def test_similar_samples_come_near_the_ceiling_and_others_do_not(
    similar: str, tmp_path: Path
) -> None:
    rows = rows_of(similar)
    lower = rows_of(evaluate(random_pieces(14, 9, lowest=30), tmp_path))
    assert float(rows["pitch classes"][SHARE]) > 0.7
    assert float(lower["pitch classes"][OVERLAP]) < float(rows["pitch classes"][OVERLAP])
    # Shuffled frames break notes of two frames into notes of one, and change no pitch.
    assert float(rows["note length"][FLOOR]) < 0.5 * float(rows["note length"][CEILING])
    assert float(rows["pitch count"][FLOOR]) == pytest.approx(1, abs=0.15)


def test_the_table_has_every_metric_with_its_share_of_the_ceiling(similar: str) -> None:
    rows = rows_of(similar)
    assert list(rows) == list(METRICS)
    samples = compare(SIMILAR, SPLITS["test"], 0.5)
    ceilings = compare(SPLITS["train"], SPLITS["test"], 0.5)  # 14 of 14 pieces are chosen
    for row, ceiling in zip(samples, ceilings, strict=True):
        defined = not np.isnan(row.overlap)  # no piece is long enough for the longest lag
        assert rows[row.name][OVERLAP] == (f"{row.overlap:.2f}" if defined else "-")
        share = f"{row.overlap / ceiling.overlap:.2f}" if defined and ceiling.overlap else "-"
        assert rows[row.name][SHARE] == share


@pytest.fixture
def _no_plot(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the plot empty, which takes a second or two, and which one test looks at."""
    monkeypatch.setattr(report, "plot_metrics", lambda *_: Figure())


@pytest.mark.usefixtures("_no_plot")
def test_undefined_figures_are_dashes(tmp_path: Path) -> None:
    for cells in rows_of(evaluate([], tmp_path)).values():
        assert (cells[1], cells[OVERLAP], cells[SHARE], cells[7]) == ("- (-)", "-", "-", "-")


@pytest.mark.usefixtures("_no_plot")
def test_silent_stuck_and_copied_samples_are_counted(tmp_path: Path) -> None:
    copied = SPLITS["train"][0]
    stuck, silent = roll_from(*[{60}] * 80), roll_from(*[set()] * 9, {60})
    text = evaluate([stuck, silent, stuck, copied], tmp_path)
    assert "\nsilent 1, stuck 2 of 4 samples\n" in text
    assert "100.00% of the samples', 0.00% of the validation pieces'" in text
