"""Baselines: probabilities and scores worked out by hand, and the figures of Nottingham."""

import itertools
import math
from pathlib import Path

import numpy as np
import pytest

from pianolstm.metrics.baselines import Baselines
from pianolstm.rolls import PackedRolls


def pack(*pieces: list[set[int]]) -> PackedRolls:
    """Return pieces whose frames are given as sets of columns."""
    rolls = [np.zeros((len(frames), 88), dtype=bool) for frames in pieces]
    for roll, frames in zip(rolls, pieces, strict=True):
        for t, columns in enumerate(frames):
            roll[t, sorted(columns)] = True
    return PackedRolls.pack(rolls)


# Column 0 sounds in four of five frames, column 1 in one, the others in none.
TRAIN = pack([{0}, {0, 1}, set()], [{0}, {0}])


def test_marginals_follow_laplaces_rule() -> None:
    assert Baselines(TRAIN).marginals.tolist() == pytest.approx([5 / 7, 2 / 7, *[1 / 7] * 86])


def test_the_unigram_nll_worked_out_by_hand() -> None:
    test, log = pack([{0}, {0, 1}], [{7}, set(), {0}]), math.log
    both = log(5 / 7) + log(2 / 7) + 86 * log(6 / 7)  # {0, 1}
    none = log(2 / 7) + log(5 / 7) + 86 * log(6 / 7)  # silence
    lone = log(5 / 7) + log(5 / 7) + 86 * log(6 / 7)  # {0}
    assert Baselines(TRAIN).unigram(test) == pytest.approx(-(both + none + lone) / 3)


def test_the_first_order_markov_nll_worked_out_by_hand() -> None:
    # In training, of four pitches that sounded two held on: (2 + 1) / (4 + 2). Of 3 * 88 - 4 silent
    # ones, one started: (1 + 1) / (260 + 2). The last frame of a piece precedes no other.
    test, log = pack([{0}, {0, 1}], [{7}, set(), {0}]), math.log
    hold, end, start, rest = log(3 / 6), log(1 - 3 / 6), log(2 / 262), log(260 / 262)
    total = (hold + start + 86 * rest) + (end + 87 * rest) + (start + 87 * rest)
    assert Baselines(TRAIN).first_order_markov(test) == pytest.approx(-total / 3)


def test_scores_are_finite_for_silence_and_for_all_pitches() -> None:
    silent, full = pack([set(), set()]), pack([set(range(88)), set(range(88))])
    for train, test in itertools.product((silent, full), repeat=2):
        baselines = Baselines(train)
        assert math.isfinite(baselines.unigram(test))
        assert math.isfinite(baselines.first_order_markov(test))


def test_scores_on_nottingham_are_the_documented_ones(data_dir: Path) -> None:
    path = data_dir / "Nottingham.pickle"
    if not path.is_file():
        pytest.skip("no Nottingham.pickle in PIANO_DATA_DIR")
    from pianolstm.inputs.formats import read

    splits, _ = read(path, 0.5)
    baselines = Baselines(splits["train"])
    assert round(baselines.unigram(splits["test"]), 2) == 10.26
    assert round(baselines.first_order_markov(splits["test"]), 2) == 6.83
