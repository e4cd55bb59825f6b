"""Diagnostics of samples: their figures, the limits of their warnings, the summary."""

import math

import numpy as np
import pytest

from helpers import roll_from
from pianolstm.metrics.copying import KnownPieces
from pianolstm.metrics.diagnostics import diagnose

TRAIN_PIECE = np.random.default_rng(3).random((132, 88)) < 0.05
NEW_PIECE = np.random.default_rng(4).random((132, 88)) < 0.05
KNOWN = KnownPieces([TRAIN_PIECE])
ARPEGGIO = [{60 + t % 3} for t in range(20)]


def test_diagnostics_worked_out_by_hand() -> None:
    roll = roll_from({60, 64}, {60, 64}, {62}, set(), set(), set(), {62, 108}, {21})
    diagnostics = diagnose(roll)
    assert (diagnostics.notes, diagnostics.lowest, diagnostics.highest) == (6, 21, 108)
    assert diagnostics.silent_share == 3 / 8
    assert diagnostics.longest_hold == 2  # three frames of silence are no hold
    assert math.isnan(diagnostics.copied_share)
    assert not diagnostics.warnings()


@pytest.mark.parametrize("frames", [0, 5])
def test_silence_has_neither_notes_nor_a_range_nor_a_hold(frames: int) -> None:
    diagnostics = diagnose(np.zeros((frames, 88), dtype=bool), KNOWN)
    assert (diagnostics.notes, diagnostics.longest_hold) == (0, 0)
    assert (diagnostics.lowest, diagnostics.highest) == (None, None)
    assert len(diagnostics.warnings()) == (frames > 0)


@pytest.mark.parametrize(
    ("roll", "expected"),
    [
        (roll_from(*ARPEGGIO, *[set()] * 20), []),
        (roll_from(*ARPEGGIO, *[set()] * 21), ["silent: 51%"]),
        (roll_from(*ARPEGGIO, *[{60}] * 64), []),
        (roll_from(*ARPEGGIO, *[{70}] * 65), ["stuck: one chord is held for 65 frames"]),
        (np.concatenate([TRAIN_PIECE[:56], NEW_PIECE[:75]]), []),  # 25 windows of 100
        (np.concatenate([TRAIN_PIECE[:57], NEW_PIECE[:74]]), ["copied: 26%"]),
        (np.concatenate([TRAIN_PIECE[:99], np.zeros((120, 88), bool)]), ["silent", "copied"]),
    ],
)
def test_a_sample_beyond_a_limit_gets_one_warning_line_with_settings_to_try(
    roll: np.ndarray, expected: list[str]
) -> None:
    lines = diagnose(roll, KNOWN).warnings()
    for line, start in zip(lines, expected, strict=True):
        assert line.startswith(start)
        assert "; try" in line and "--seed" in line and "\n" not in line


def test_the_summary_is_one_line_and_omits_what_is_unknown() -> None:
    assert diagnose(roll_from({60}, {62, 79}, set(), set())).summary() == (
        "3 notes, C4 to G5, silence 50%, longest hold 1 frames"
    )
    assert diagnose(roll_from(set())).summary() == "0 notes, silence 100%, longest hold 0 frames"
    assert diagnose(TRAIN_PIECE, KNOWN).summary().split(", ")[4] == "copied 100%"
