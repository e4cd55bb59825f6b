"""Metrics of one piece: values worked out by hand, undefined cases, invariances."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers import roll_from
from pianolstm.metrics.pieces import (
    METRICS,
    exact_repeats,
    note_length_histogram,
    pitch_class_histogram,
    pitch_class_transitions,
    scale_consistency,
    self_similarity,
)

SCALARS = [name for name, metric in METRICS.items() if not metric.bins]


def random_roll(seed: int, frames: int, density: float) -> np.ndarray:
    """Return a roll of middle pitches in which half of the frames repeat the frame before."""
    generator = np.random.default_rng(seed)
    roll = np.zeros((frames, 88), dtype=bool)
    for t in range(frames):
        held = t > 0 and generator.random() < 0.5
        roll[t, 24:64] = roll[t - 1, 24:64] if held else generator.random(40) < density
    return roll


rolls = st.builds(
    random_roll, st.integers(0, 2**16), st.integers(0, 90), st.sampled_from([0.02, 0.2])
)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("pitch count", 4),
        ("pitch range", 12),
        ("pitch class entropy", 1.5),  # C has half of the note-frames, E and G a quarter each
        ("polyphony", 8 / 5),
        ("silence", 1 / 6),
        ("note length", 0.5 * 8 / 5),  # notes of 2, 2, 2, 1 and 1 frames
    ],
)
def test_a_scalar_metric_has_the_value_worked_out_by_hand(name: str, value: float) -> None:
    roll = roll_from({60, 64}, {60, 64}, set(), {67, 72}, {67}, {72})
    assert METRICS[name](roll, 0.5).tolist() == [pytest.approx(value)]


@pytest.mark.parametrize(
    ("notes", "share"),
    [
        ((60, 61, 62, 63), 3 / 4),  # no scale has two semitones in a row
        ((57, 59, 60, 62, 64, 65, 67), 1),  # A natural minor
        ((57, 59, 60, 62, 64, 65, 68), 6 / 7),  # A harmonic minor
        ((61, 63, 65, 66, 68, 70, 72), 1),  # D flat major
        ((60, 60, 60, 61, 62), 4 / 5),  # weighted by note-frames
    ],
)
def test_scale_consistency_is_that_of_the_best_scale(notes: tuple[int, ...], share: float) -> None:
    assert scale_consistency(roll_from(*({note} for note in notes))) == pytest.approx(share)


def test_the_pitch_class_histogram_counts_note_frames_of_every_octave() -> None:
    histogram = pitch_class_histogram(roll_from({60, 72}, {60}, set(), {71}))
    assert histogram.tolist() == [0.75] + [0] * 10 + [0.25]  # C and B


def test_transitions_pair_sounding_notes_with_notes_that_start_in_the_next_frame() -> None:
    # C-E; then C-C, C-G, E-C, E-G; then no start; before the last frame, silence.
    matrix = pitch_class_transitions(roll_from({60}, {60, 64}, {67, 72}, set(), {61}))
    pairs = {(int(a), int(b)): matrix[a, b] for a, b in np.argwhere(matrix)}
    assert pairs == {(0, 4): 0.2, (0, 0): 0.2, (0, 7): 0.2, (4, 0): 0.2, (4, 7): 0.2}


def test_the_last_bin_of_note_lengths_counts_all_longer_notes() -> None:
    frames = [{60, 62, 64, 65}] + [{60, 62, 64}] * 14 + [{60, 62}] + [{60}] * 10
    assert note_length_histogram(roll_from(*frames)).tolist() == [0.25] + [0] * 13 + [0.25, 0.5]


def test_self_similarity_is_the_mean_jaccard_similarity_of_pairs_that_sound() -> None:
    assert self_similarity(roll_from({60, 64}, set(), {60}, {67}, set()), 2) == (1 / 2 + 0 + 0) / 3
    assert self_similarity(roll_from({60, 64}, set(), {60}, set()), 2) == 1 / 2


def test_exact_repeats_are_windows_equal_to_an_earlier_one() -> None:
    scale = [{60 + t} for t in range(16)]
    assert exact_repeats(roll_from(*scale, *scale)) == pytest.approx(1 / 17)
    assert exact_repeats(roll_from(*[{60}] * 18)) == pytest.approx(2 / 3)
    assert exact_repeats(roll_from(*[set()] * 18, {60}, {61})) == 0  # 2 windows are not silent


@pytest.mark.parametrize("name", METRICS)
def test_metrics_of_silence_are_nan_but_for_those_that_are_counts(name: str) -> None:
    for frames, silence in ((80, 1), (1, 1), (0, np.nan)):
        value = METRICS[name](np.zeros((frames, 88), dtype=bool), 0.5)
        known = {"pitch count": 0, "silence": silence, "length": frames, "longest held pitch": 0}
        known["longest loop"] = 0 if frames else np.nan
        if name.startswith("repeats after"):
            known[name] = 0 if frames > int(name.split()[2]) else np.nan
        expected = known.get(name, np.nan)
        np.testing.assert_array_equal(value, np.full(len(value), expected))


@pytest.mark.parametrize("lag", [16, 32, 64])
def test_self_similarity_is_nan_if_the_piece_is_not_longer_than_the_lag(lag: int) -> None:
    metric, roll = METRICS[f"self-similarity at {lag} frames"], roll_from(*[{60}] * (lag + 1))
    assert metric(roll, 0.5).tolist() == [1]
    assert np.isnan(metric(roll[:-1], 0.5)).all()


def test_every_entry_of_a_vector_or_row_of_a_matrix_has_a_label() -> None:
    for metric in METRICS.values():
        value = np.asarray(
            metric.function(random_roll(1, 80, 0.1), *([0.5] if metric.in_beats else []))
        )
        assert value.shape == (len(metric.bins),) * value.ndim


@settings(max_examples=50)
@given(rolls, st.integers(-12, 12))
def test_transposition_and_reversal_change_no_scalar_metric(roll: np.ndarray, shift: int) -> None:
    transposed = np.roll(roll, shift, axis=1)
    of_direction = {"ends on the tonic", "beat"}  # a reversed piece ends elsewhere
    for name in {*SCALARS, "note lengths"} - of_direction:
        for other in (transposed, roll[::-1]):
            value = METRICS[name](roll, 0.5)
            np.testing.assert_allclose(METRICS[name](other, 0.5), value, rtol=1e-12)
    histogram, matrix = pitch_class_histogram(roll), pitch_class_transitions(roll)
    shifted = np.roll(matrix, (shift, shift), (0, 1))
    np.testing.assert_array_equal(pitch_class_histogram(transposed), np.roll(histogram, shift))
    np.testing.assert_array_equal(pitch_class_transitions(transposed), shifted)


@given(rolls)
def test_shares_lie_between_0_and_1_and_histograms_sum_to_1(roll: np.ndarray) -> None:
    for metric in METRICS.values():
        value = metric(roll, 0.5)
        if not np.isnan(value).all():
            limit = 1 + 1e-12 if "share" in metric.unit or metric.unit == "Jaccard" else 88
            assert ((value >= 0) & (value <= limit)).all()
            assert not metric.bins or value.sum() == pytest.approx(1)
