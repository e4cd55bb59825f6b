"""Sampled tunes beside the test split: their lengths, the ceiling, the floor, the files."""

from pathlib import Path

import numpy as np
import pytest

from comparison import Comparison
from corpora import Corpus
from helpers import K, roll_from
from measures import MEASURES
from measuring import (
    BATCH,
    compare_all,
    faults,
    lengths_like,
    measure,
    sample_lengths,
    shuffled,
    table,
)


def draw_tunes(count: int, seed: int, lowest: int = 60) -> list[np.ndarray]:
    """Return tunes of two notes a frame, each held for two, 40 to 79 frames."""
    generator = np.random.default_rng(seed)
    tunes = []
    for length in generator.integers(40, 80, count):
        notes = generator.integers(lowest, lowest + 13, (length, 2)).repeat(2, axis=0)[:length]
        tunes.append(roll_from(*[set(pair) for pair in notes.tolist()]))
    return tunes


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    splits = {"train": draw_tunes(14, 1), "valid": draw_tunes(6, 2), "test": draw_tunes(8, 3)}
    return Corpus("tiny", splits, 0.5, "abc")


def test_lengths_go_round_where_there_are_fewer_tunes() -> None:
    tunes = [np.zeros((n, K), dtype=bool) for n in (5, 9, 7)]
    assert lengths_like(tunes, 2) == [5, 9]
    assert lengths_like(tunes, 7) == [5, 9, 7, 5, 9, 7, 5]


def test_every_tune_has_its_own_length_and_keeps_its_number() -> None:
    lengths = [(i * 37) % 101 + 1 for i in range(2 * BATCH + 5)]
    asked: list[tuple[int, list[int]]] = []

    def sample(frames: int, tunes: list[int]) -> np.ndarray:
        asked.append((frames, tunes))
        drawn = np.zeros((len(tunes), frames, K), dtype=bool)
        drawn[np.arange(len(tunes)), :, [i % K for i in tunes]] = True
        return drawn

    rolls = sample_lengths(lengths, sample)
    assert [len(roll) for roll in rolls] == lengths
    assert all(roll[:, i % K].all() and roll.sum() == len(roll) for i, roll in enumerate(rolls))
    assert [len(tunes) for _, tunes in asked] == [BATCH, BATCH, 5]
    # Like lengths side by side: little more is drawn than is kept.
    assert sum(frames * len(tunes) for frames, tunes in asked) < 1.5 * sum(lengths)


def test_shuffled_tunes_have_the_same_frames_in_another_order() -> None:
    (tune,) = draw_tunes(1, 5)
    (mixed,) = shuffled([tune], seed=1)
    assert not np.array_equal(mixed, tune)
    assert sorted(map(bytes, mixed)) == sorted(map(bytes, tune))
    assert np.array_equal(shuffled([tune], seed=1)[0], mixed)


def by_name(comparisons: list[Comparison]) -> dict[str, Comparison]:
    return {row.name: row for row in comparisons}


def test_tunes_like_the_real_ones_are_near_the_ceiling_and_others_are_not(corpus: Corpus) -> None:
    alike, ceiling, floor = map(by_name, compare_all(draw_tunes(14, 9), corpus, seed=1))
    other = by_name(compare_all(draw_tunes(14, 9, lowest=30), corpus, seed=1)[0])
    assert alike["pitch classes"].overlap > 0.7 * ceiling["pitch classes"].overlap
    assert other["pitch classes"].overlap < alike["pitch classes"].overlap
    # Order tells notes of two frames from those of one.
    assert floor["note length"].overlap < 0.5 * ceiling["note length"].overlap
    assert floor["pitch count"].overlap == pytest.approx(1, abs=0.15)


def test_table_has_a_row_for_every_measure_with_its_share_of_the_ceiling(corpus: Corpus) -> None:
    sets = compare_all(draw_tunes(5, 9), corpus, seed=1)
    rows = [line.strip("| ").split(" | ") for line in table(*sets).splitlines()[2:]]
    assert [row[0].split(" (")[0] for row in rows] == list(MEASURES)
    for cells, sampled, ceiling in zip(rows, *sets[:2], strict=True):
        assert cells[3] == f"{sampled.overlap:.2f}"
        assert cells[6] == f"{sampled.overlap / ceiling.overlap:.2f}"


def test_table_has_a_dash_for_what_is_not_defined(corpus: Corpus) -> None:
    nothing, *others = compare_all([], corpus, seed=1)
    for line in table(nothing, *others).splitlines()[2:]:
        cells = line.strip("| ").split(" | ")
        assert (cells[1], cells[3], cells[6], cells[7]) == ("- (-)", "-", "-", "-")


def test_silent_stuck_and_copied_samples_are_counted(corpus: Corpus) -> None:
    copied = corpus.splits["train"][0]
    still, silent = roll_from(*[{60}] * 80), roll_from(*[set()] * 9, {60})
    first, second = faults([still, silent, still, copied], corpus)
    assert first == "silent 1, stuck 2 of 4 samples"
    assert "100.00% of the samples'" in second
    assert "0.00% of the valid tunes'" in second


def test_what_is_said_is_written_with_a_picture(corpus: Corpus, tmp_path: Path) -> None:
    text = measure(draw_tunes(5, 9), corpus, 1, tmp_path)
    assert (tmp_path / "measures.md").read_text(encoding="utf-8") == text
    assert text.startswith("# 5 sampled tunes beside the test split of tiny")
    assert (tmp_path / "measures.png").read_bytes().startswith(b"\x89PNG")
    assert len(list(tmp_path.iterdir())) == 2
