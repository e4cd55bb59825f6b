"""Diagnostics of samples: their figures, the limits of their warnings, the summary."""

import math
from pathlib import Path

import numpy as np
import pytest

from helpers import roll_from
from pianolstm.inputs.datasets import NAMED_SETS, find_named_set
from pianolstm.inputs.formats import read
from pianolstm.metrics.copying import KnownPieces
from pianolstm.metrics.diagnostics import diagnose
from pianolstm.metrics.form import LoopBounds, loop_bounds

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
        (
            roll_from(*ARPEGGIO, *[{70}] * 65),
            ["stuck: one chord is held for 65 frames, 76% of the piece"],
        ),
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
        "3 notes, C4 to G5, silence 50%, longest hold 1 frames, longest loop 0 frames"
    )
    assert diagnose(roll_from(set())).summary() == (
        "0 notes, silence 100%, longest hold 0 frames, longest loop 0 frames"
    )
    assert diagnose(TRAIN_PIECE, KNOWN).summary().split(", ")[5] == "copied 100%"


# ---- loops and held pitches ----------------------------------------------------------------------


def test_a_loop_of_three_beats_for_nearly_all_of_ten_minutes_is_named() -> None:
    turn = roll_from({60, 72}, {60, 76}, {60, 79}, {55, 77}, {55, 74}, {55, 71})
    roll = np.concatenate([NEW_PIECE[:48], np.tile(turn, (392, 1))])  # 2,400 frames
    (line,) = diagnose(roll, frame_beats=0.5).warnings()
    assert line == (
        "stuck: the same 6 frames (3 beats) are repeated for 2352 frames, 98% of the piece; try"
        " another --seed or a higher --temperature"
    )
    assert "loop 2352 frames" in diagnose(roll).summary()
    assert "the same 6 frames are repeated" in diagnose(roll).warnings()[0]  # beats unknown


@pytest.mark.parametrize(
    ("period", "frame_beats", "found"),
    [(16, None, True), (17, None, False), (16, 0.5, True), (17, 0.5, False), (32, 0.25, True)],
)
def test_loops_of_up_to_two_bars_are_found(
    period: int, frame_beats: float | None, found: bool
) -> None:
    roll = np.tile(NEW_PIECE[:period], (8, 1))
    assert [line[:5] for line in diagnose(roll, frame_beats=frame_beats).warnings()] == (
        ["stuck"] if found else []
    )


def test_a_section_of_more_than_two_bars_at_eighths_may_come_six_times() -> None:
    turns = [np.tile(NEW_PIECE[:24], (count, 1)) for count in (6, 7)]
    assert [len(diagnose(roll, frame_beats=0.25).warnings()) for roll in turns] == [0, 1]


def test_a_pitch_held_below_a_melody_is_named() -> None:
    roll = np.random.default_rng(5).random((600, 88)) < 0.05
    roll[40:560, 62 - 21] = True
    roll[[39, 560], 62 - 21] = False
    (line,) = diagnose(roll, frame_beats=0.5).warnings()
    assert line == (
        "stuck: D4 is held for 520 frames (260 beats); training pieces hold a pitch for 512 at"
        " most; try another --seed or a higher --temperature"
    )
    assert not diagnose(roll, bounds=LoopBounds(20, 520)).warnings()
    (line,) = diagnose(roll, bounds=LoopBounds(20, 519)).warnings()
    assert "520 frames; training pieces hold a pitch for 519" in line


def test_the_bounds_of_the_training_split_are_those_of_its_samples() -> None:
    roll = roll_from(*[{60}, {62}, {64}] * 6)  # 15 frames that repeat others
    assert not diagnose(roll, bounds=LoopBounds(15, 9)).warnings()
    assert "the same 3 frames" in diagnose(roll, bounds=LoopBounds(14, 9)).warnings()[0]


@pytest.mark.parametrize("name", ["nottingham", "jsb", "jsb16"])
def test_no_training_piece_is_called_stuck(name: str, data_dir: Path) -> None:
    named_set = NAMED_SETS[name]
    if (path := find_named_set(named_set, data_dir)) is None:
        pytest.skip(f"PIANO_DATA_DIR has no {named_set.file}")
    train = [*read(path, named_set.frame_beats)[0]["train"]]
    for bounds in (loop_bounds(train), None):
        for roll in train:
            found = diagnose(roll, frame_beats=named_set.frame_beats, bounds=bounds)
            assert not [line for line in found.warnings() if line.startswith("stuck")]
