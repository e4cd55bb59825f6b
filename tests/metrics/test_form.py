"""Metrics of form, on rolls small enough to count by hand."""

import json

import numpy as np
import pytest

from helpers import roll_from
from pianolstm.metrics.form import (
    LoopBounds,
    beat_strength,
    ends_on_tonic,
    longest_held_pitch,
    longest_loop,
    loop_bounds,
    loop_share,
    section_repeats,
)

C, F, G = {48, 64, 67}, {41, 65, 69}, {43, 62, 71}


@pytest.mark.parametrize(
    ("frames", "loop", "held"),
    [
        ([C, F, G], 0, 1),
        ([C, C, C, F], 2, 3),
        ([C, F, C, F, C, G], 3, 1),
        ([C, F, G, C, F, G, C, C], 4, 2),
        ([set(), set(), set(), C], 0, 1),
        ([{60, 64}, {60, 65}, {60, 67}, {60}], 0, 4),
    ],
)
def test_loops_and_held_pitches_are_counted_in_frames(
    frames: list[set[int]], loop: int, held: int
) -> None:
    roll = roll_from(*frames)
    assert (longest_loop(roll), longest_held_pitch(roll)) == (loop, held)
    assert loop_share(roll) == loop / len(frames)


def test_a_repeat_after_more_than_the_longest_period_is_no_loop() -> None:
    section = [{40 + i} for i in range(17)]
    assert longest_loop(roll_from(*section, *section)) == 0
    assert longest_loop(roll_from(*section[:16], *section[:16])) == 16


def test_bounds_hold_for_all_but_a_share_of_the_pieces() -> None:
    rolls = [roll_from(*[C] * n) for n in range(1, 101)]
    for share, loop in ((0, 99), (0.5, 50), (0.001, 99)):  # none of 100 pieces exceeds the last
        bounds = loop_bounds(rolls, share=share)
        assert bounds[:2] == (loop, loop + 1)


def test_bounds_of_longer_periods_are_those_of_their_group() -> None:
    section = [{40 + i} for i in range(20)]
    rolls = [roll_from(*section, *section, *section[:9]), roll_from(*section)]
    bounds = loop_bounds(rolls)
    assert bounds == LoopBounds(loop=0, hold=1, sections=(29, 9, 0))  # period 20, and period 40
    by_period = bounds.by_period()
    assert [by_period[period - 1] for period in (16, 17, 32, 33, 64, 65, 128)] == [
        *(0, 29, 29, 9, 9, 0, 0)
    ]
    assert LoopBounds.of_metadata({"loop_bounds": {"loop": 3, "hold": 4}}) == LoopBounds(3, 4)
    kept = json.loads(json.dumps({"loop_bounds": bounds._asdict()}))
    assert LoopBounds.of_metadata(kept) == bounds


@pytest.mark.parametrize(
    ("last", "expected"),
    [([C], 1.0), ([C, set()], 1.0), ([{48, 67}], 1.0), ([G], 0.0), ([{64}], 0)],
)
def test_the_last_sounding_frame_is_compared_with_the_tonic_triad(
    last: list[set[int]], expected: float
) -> None:
    assert ends_on_tonic(roll_from(C, F, G, C, C, F, G, C, C, *last)) == expected


def test_repeats_of_sections_and_the_beat_worked_out_by_hand() -> None:
    roll = roll_from(*[C, C, C, C, G, G, G, G] * 4)
    assert section_repeats(roll, 8) == 1.0
    assert section_repeats(roll, 4) == 0.0
    assert np.isnan(section_repeats(roll, 32))
    assert np.isnan(beat_strength(roll))  # seven changes tell too little
    assert beat_strength(roll_from(*[C, C, C, C, G, G, G, G] * 6)) == 1.0
    assert beat_strength(roll_from(*[C, G] * 12)) == pytest.approx(6 / 23)


def test_silence_has_no_last_chord() -> None:
    assert np.isnan(ends_on_tonic(roll_from(set(), set())))
    assert np.isnan(loop_share(np.zeros((0, 88), bool)))
