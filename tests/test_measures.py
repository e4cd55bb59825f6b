"""Measures of tunes by hand, what has no answer, two sets compared, and samples examined."""

import math
from statistics import NormalDist
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import comparison
from comparison import compare, compare_distances, compare_values, draw_measures
from helpers import roll_from
from measures import (
    MEASURES,
    copied_share,
    exact_repeats,
    health,
    known_windows,
    mean_note_length,
    note_lengths,
    pitch_class_histogram,
    pitch_class_transitions,
    scale_consistency,
    self_similarity,
)

SCALARS = [name for name, measure in MEASURES.items() if not measure.bins]
WORST = 10 * math.log(10)  # nats: a density against 1e-10 of it
Roll = np.ndarray


def draw_roll(seed: int, frames: int, density: float = 0.05, stay: float = 0.5) -> Roll:
    """Return a roll of the middle keys that stays on a frame with this probability."""
    chance = np.random.default_rng(seed)
    roll = np.zeros((frames, 88), dtype=bool)
    for t in range(frames):
        held = t > 0 and chance.random() < stay
        roll[t, 24:64] = roll[t - 1, 24:64] if held else chance.random(40) < density
    return roll


def few_keys(seed: int, frames: int) -> Roll:
    """Return a roll of two keys."""
    return np.pad(np.random.default_rng(seed).random((frames, 2)) < 0.5, ((0, 0), (40, 46)))


seeds = st.integers(0, 2**16)
few = st.lists(st.builds(few_keys, seeds, st.integers(0, 12)), max_size=3)
rolls = st.builds(draw_roll, seeds, st.integers(0, 90), st.sampled_from([0.02, 0.2]))


# ---- one tune ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("pitch count", 4),
        ("pitch range", 12),
        ("pitch class entropy", 1.5),  # C has a half of the note-frames, E and G a quarter each
        ("polyphony", 8 / 5),
        ("silence", 1 / 6),
        ("note length", 0.5 * 8 / 5),  # 2, 2, 2, 1 and 1 frames
    ],
)
def test_a_measure_has_the_value_worked_out_by_hand(name: str, value: float) -> None:
    roll = roll_from({60, 64}, {60, 64}, set(), {67, 72}, {67}, {72})
    assert MEASURES[name](roll, 0.5).tolist() == [pytest.approx(value)]


@pytest.mark.parametrize(
    ("notes", "share"),
    [
        ((60, 61, 62, 63), 3 / 4),  # no scale has more than two of three semitones on end
        ((57, 59, 60, 62, 64, 65, 67), 1),  # A minor, natural
        ((57, 59, 60, 62, 64, 65, 68), 6 / 7),  # harmonic
        ((61, 63, 65, 66, 68, 70, 72), 1),  # D flat major
        ((60, 60, 60, 61, 62), 4 / 5),  # by how often each sounds
    ],
)
def test_scale_consistency_is_that_of_the_best_scale(notes: tuple[int, ...], share: float) -> None:
    assert scale_consistency(roll_from(*({note} for note in notes))) == pytest.approx(share)


def test_pitch_classes_count_note_frames_and_a_doubled_one_twice() -> None:
    histogram = pitch_class_histogram(roll_from({60, 72}, {60}, set(), {71}))
    assert histogram.tolist() == [0.75] + [0] * 10 + [0.25]  # C and B


def test_transitions_lead_from_what_sounds_to_what_starts_in_the_next_frame() -> None:
    # C-E; then C-C, C-G, E-C, E-G; nothing starts; nothing sounds before the last.
    matrix = pitch_class_transitions(roll_from({60}, {60, 64}, {67, 72}, set(), {61}))
    pairs = {(int(a), int(b)): matrix[a, b] for a, b in np.argwhere(matrix)}
    assert pairs == {(0, 4): 0.2, (0, 0): 0.2, (0, 7): 0.2, (4, 0): 0.2, (4, 7): 0.2}


def test_note_lengths_are_counted_up_to_the_last_bin_which_holds_all_longer() -> None:
    frames = [{60, 62, 64, 65}] + [{60, 62, 64}] * 14 + [{60, 62}] + [{60}] * 10
    assert note_lengths(roll_from(*frames)).tolist() == [0.25] + [0] * 13 + [0.25, 0.5]


def test_self_similarity_is_the_mean_jaccard_where_either_frame_sounds() -> None:
    assert self_similarity(roll_from({60, 64}, set(), {60}, {67}, set()), 2) == (1 / 2 + 0 + 0) / 3
    assert self_similarity(roll_from({60, 64}, set(), {60}, set()), 2) == 1 / 2


def test_exact_repeats_are_windows_that_an_earlier_one_equals() -> None:
    tune = [{60 + t} for t in range(16)]
    assert exact_repeats(roll_from(*tune, *tune)) == pytest.approx(1 / 17)
    assert exact_repeats(roll_from(*[{60}] * 18)) == pytest.approx(2 / 3)
    assert exact_repeats(roll_from(*[set()] * 18, {60}, {61})) == 0  # two windows, silent ones out


@pytest.mark.parametrize("name", MEASURES)
def test_silence_has_no_answer_but_to_how_many_and_how_silent(name: str) -> None:
    for frames, silence in ((80, 1), (1, 1), (0, np.nan)):
        value = MEASURES[name](np.zeros((frames, 88), dtype=bool), 0.5)
        known = {"pitch count": 0, "silence": silence}.get(name, np.nan)
        np.testing.assert_array_equal(value, np.full(len(value), known))


@pytest.mark.parametrize("lag", [16, 32, 64])
def test_a_tune_not_longer_than_the_lag_has_no_self_similarity(lag: int) -> None:
    measure, roll = MEASURES[f"self-similarity at {lag} frames"], roll_from(*[{60}] * (lag + 1))
    assert measure(roll, 0.5).tolist() == [1]
    assert np.isnan(measure(roll[:-1], 0.5)).all()


def test_the_list_of_measures_names_every_place_of_a_vector() -> None:
    values = {name: measure(draw_roll(1, 80), 0.5) for name, measure in MEASURES.items()}
    sizes = [(len(MEASURES[name].bins), len(value)) for name, value in values.items()]
    assert sizes == [(0, 1)] * 11 + [(12, 12), (12, 144), (16, 16)]


@settings(max_examples=50)
@given(rolls, st.integers(-12, 12))
def test_a_tune_in_another_key_or_played_backwards_measures_the_same(roll: Roll, by: int) -> None:
    there = np.roll(roll, by, axis=1)
    for name in [*SCALARS, "note lengths"]:
        for other in (there, roll[::-1]):
            here = MEASURES[name](roll, 0.5)
            np.testing.assert_allclose(MEASURES[name](other, 0.5), here, rtol=1e-12)
    histogram, matrix = pitch_class_histogram(roll), pitch_class_transitions(roll)
    np.testing.assert_array_equal(pitch_class_histogram(there), np.roll(histogram, by))
    np.testing.assert_array_equal(pitch_class_transitions(there), np.roll(matrix, (by, by), (0, 1)))


@given(rolls)
def test_shares_are_shares_and_histograms_sum_to_one(roll: Roll) -> None:
    for measure in MEASURES.values():
        value = measure(roll, 0.5)
        if not np.isnan(value).all():
            most = 1 + 1e-12 if "share" in measure.unit or measure.unit == "Jaccard" else 88
            assert ((value >= 0) & (value <= most)).all()
            assert not measure.bins or value.sum() == pytest.approx(1)


# ---- what is copied ------------------------------------------------------------------------------


def slowly(sampled: list[Roll], known: list[Roll], window: int) -> float:
    """Return the share of copied windows, each compared with each."""
    pieces, others = (
        [roll[t : t + window] for roll in rolls for t in range(len(roll) - window + 1)]
        for rolls in (sampled, known)
    )
    pieces = [piece for piece in pieces if (piece != piece[0]).any()]
    found = [any(np.array_equal(piece, other) for other in others) for piece in pieces]
    return float(np.mean(found)) if found else math.nan


@given(few, few, st.integers(1, 4))
def test_the_copied_share_is_that_of_a_slow_search(
    sampled: list[Roll], known: list[Roll], window: int
) -> None:
    share = slowly(sampled, known, window)
    np.testing.assert_allclose(copied_share(sampled, known, window), share)


def test_what_is_copied_is_found_wherever_it_is_and_only_whole() -> None:
    known, new = draw_roll(1, 100, stay=0), draw_roll(2, 100, stay=0)
    assert copied_share([known[7:57]], [new, known]) == 1
    assert copied_share([new], [known]) == 0
    assert copied_share([np.concatenate([new, known[40:73]])], [known]) == 2 / (133 - 31)
    # The end of one tune and the beginning of the next are no window of either.
    assert copied_share([known[30:70]], [known[:50], known[50:]]) == 0


def test_silence_and_a_held_frame_are_nobodys() -> None:
    held = roll_from(*[{60, 64}] * 40, *[set()] * 40)
    assert copied_share([held], [held[:40], held[40:]]) == 0  # of 31 windows on the change
    assert math.isnan(copied_share([held[:40], held[40:], held[:0]], [held]))


# ---- two sets ------------------------------------------------------------------------------------


def normal(mean: float, sd: float) -> np.ndarray:
    """Return 2,000 numbers that lie as those of a normal distribution do."""
    quantiles = [(i + 0.5) / 2000 for i in range(2000)]
    return np.array([NormalDist(mean, sd).inv_cdf(q) for q in quantiles])


@pytest.mark.parametrize(("apart", "wider"), [(0, 1), (1, 1), (2, 2), (0, 4), (1, 1000)])
def test_overlap_and_divergence_of_normal_distributions(apart: float, wider: float) -> None:
    p, q = NormalDist(0, 1), NormalDist(apart, wider)
    # A kernel estimate has the variance of the data and that of its kernel: Scott's rule, n^-1/5.
    blur = math.sqrt(1 + 2000**-0.4)
    p, q = (NormalDist(normal.mean, normal.stdev * blur) for normal in (p, q))
    expected = math.log(q.stdev / p.stdev) + (p.variance + apart**2) / (2 * q.variance) - 1 / 2
    overlap, divergence = compare_distances(normal(0, 1), normal(apart, wider))
    assert overlap == pytest.approx(p.overlap(q), abs=0.01)
    assert divergence == pytest.approx(expected, rel=0.02, abs=0.001)


def test_the_overlap_of_two_kernels_each_is_the_one_worked_out_by_hand() -> None:
    kernel = NormalDist(0, math.sqrt(2) * 2**-0.2)  # -1 and 1 deviate by sqrt(2); n = 2
    overlap, _ = compare_distances(np.array([-1.0, 1.0]), np.array([2.0, 4.0]))
    assert overlap == pytest.approx(kernel.cdf(-1.5 - 1) + kernel.cdf(-1.5 + 1), abs=1e-4)


distances = st.lists(st.floats(0, 1000).map(lambda x: round(x, 3)), min_size=1, max_size=20)


@settings(max_examples=40)
@given(distances, distances)
def test_overlap_is_a_share_alike_either_way_and_in_any_unit(
    some: list[float], others: list[float]
) -> None:
    p, q = np.array(some), np.array(others)
    overlap, divergence = compare_distances(p, q)
    assert 0 <= overlap <= 1 + 1e-9
    assert 0 <= divergence <= WORST + 1e-6
    assert compare_distances(q, p)[0] == pytest.approx(overlap)
    assert compare_distances(p, p) == pytest.approx((1, 0))
    assert compare_distances(8 * p, 8 * q) == pytest.approx((overlap, divergence))


@pytest.mark.parametrize(
    ("intra", "inter", "expected"),
    [
        ([2, 2, 2], [2], (1, 0)),
        ([0, 1e-17], [0, 0], (1, 0)),  # what rounding leaves is no difference
        ([2, 2], [3, 3], (0, WORST)),
        ([2, 2], [2, 1, 3], (0, WORST)),
        ([2, 1, 3], [2, 2], (0, WORST)),
    ],
)
def test_distances_all_equal_are_a_point(
    intra: list[float], inter: list[float], expected: tuple[float, float]
) -> None:
    result = compare_distances(np.array(intra, float), np.array(inter, float))
    assert result == pytest.approx(expected)


@pytest.mark.parametrize(
    ("name", "sets", "expected"),
    [
        ("pitch count", ([[1], [9]], [[0], [3], [7]]), [[3, 7, 4], [1, 2, 6, 9, 6, 2]]),
        ("note lengths", ([[6, 8]], [[0, 0], [3, 4]]), [[5], [10, 5]]),
    ],
)
def test_distances_are_euclidean_each_tune_with_each_other(
    name: str, sets: Any, expected: list[list[float]], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []
    monkeypatch.setattr("comparison.compare_distances", lambda *sets: seen.extend(sets) or (0.5, 2))
    row = compare_values(name, *(np.array(values, float) for values in sets))
    assert [distances.tolist() for distances in seen] == expected  # intra, inter
    assert (row.overlap, row.divergence) == (0.5, 2)


def test_mean_and_deviation_are_over_tunes_or_of_a_vector_over_pairs_of_them() -> None:
    row = compare_values("polyphony", np.array([[1.0], [3.0]]), np.array([[5.0], [5.0], [8.0]]))
    assert (row.sampled_mean, row.sampled_sd) == (2, 1)
    assert (row.real_mean, row.real_sd) == (6, pytest.approx(math.sqrt(2)))
    flat = compare_values("note lengths", np.array([[0.0, 0], [3, 4], [0, 0]]), np.zeros((2, 2)))
    assert flat.sampled_mean == pytest.approx(10 / 3)  # of 5, 0 and 5
    assert (flat.real_mean, flat.real_sd) == (0, 0)


def test_of_many_distances_the_same_few_are_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("comparison.PAIRS", 50)
    for there, left in ((49, 49), (50, 50), (51, 50)):
        assert len(np.unique(comparison.few(np.arange(there), np.random.default_rng(0)))) == left
    values = np.random.default_rng(1).random((2, 30, 1))
    assert compare_values("polyphony", *values) == compare_values("polyphony", *values)
    monkeypatch.setattr("comparison.compare_distances", lambda p, q: (len(p), len(q)))
    row = compare_values("polyphony", *values)
    assert (row.overlap, row.divergence) == (50, 50)


def of_name(sampled: list[Roll], real: list[Roll]) -> dict[str, comparison.Comparison]:
    return {comparison.name: comparison for comparison in compare(sampled, real, 0.5)}


REAL, ALIKE = ([draw_roll(seed, 80) for seed in range(s, s + 20)] for s in (0, 100))


def test_sets_of_one_kind_overlap_and_sets_of_two_kinds_do_not_where_they_differ() -> None:
    alike, itself = of_name(ALIKE, REAL), of_name(REAL, REAL)
    fuller = of_name([draw_roll(seed, 80, density=0.2) for seed in range(20)], REAL)
    slower = of_name([draw_roll(seed, 80, stay=0.8) for seed in range(20)], REAL)
    for kind, name in ((fuller, "polyphony"), (slower, "note length"), (slower, "pitch count")):
        assert kind[name].overlap < 0.2 < 0.8 < alike[name].overlap
        assert alike[name].divergence < 0.2 < 2 < kind[name].divergence
    # A set is as far from itself as its tunes are apart, but for each tune's distance from itself.
    assert min(row.overlap for row in itself.values()) > 0.85


def test_a_tune_without_an_answer_is_left_out_and_counted() -> None:
    short, silent = REAL[0][:40], np.zeros((80, 88), dtype=bool)
    rows = of_name([*ALIKE[:3], short, silent], REAL)
    for name, left in (("count", 5), ("polyphony", 4), ("at 32 frames", 4), ("at 64 frames", 3)):
        assert [len(row.sampled) for row in rows.values() if row.name.endswith(name)] == [left]
    assert rows["polyphony"] == of_name([*ALIKE[:3], short], REAL)["polyphony"]


@pytest.mark.parametrize(("sampled", "real"), [([], REAL[:3]), (REAL[:3], REAL[:1]), ([], [])])
def test_too_few_tunes_can_not_be_compared(sampled: list[Roll], real: list[Roll]) -> None:
    rows = compare(sampled, real, 0.5)
    assert all(math.isnan(row.overlap) and math.isnan(row.divergence) for row in rows)


def test_beats_are_counted_by_the_length_of_a_frame() -> None:
    rows = {row.name: row for row in compare(ALIKE[:1], REAL[:2], 0.25)}
    assert rows["note length"].sampled_mean == mean_note_length(ALIKE[0], 0.25)


def test_the_picture_has_a_panel_for_each_measure_with_both_sets_in_it() -> None:
    comparisons = compare(ALIKE[:4], REAL[:5], 0.5)
    figure = draw_measures([*comparisons, *compare([], REAL[:1], 0.5)[:1]], "model 7")
    assert figure.get_suptitle() == "model 7"
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["sampled", "real"]
    assert figure.axes[14].texts[0].get_text() == "not defined"
    panels = {axes.get_title().split(",")[0]: axes for axes in figure.axes[:14]}
    assert list(panels) == list(MEASURES)
    for row in comparisons:
        axes, bins = panels[row.name], len(MEASURES[row.name].bins)
        heights = [[bar.get_height() for bar in bars] for bars in axes.containers]
        if row.name in SCALARS:
            for shares, tunes in zip(heights, (4, 5), strict=True):
                counts = np.array(shares) * tunes
                assert [*counts, counts.sum()] == pytest.approx([*counts.round(), tunes])
            assert axes.get_xlabel() == MEASURES[row.name].unit
        elif row.sampled.shape[1] == bins:
            np.testing.assert_allclose(heights, [row.sampled.mean(axis=0), row.real.mean(axis=0)])
        else:
            more = row.sampled.mean(axis=0) - row.real.mean(axis=0)
            np.testing.assert_allclose(axes.images[0].get_array().ravel(), more)


# ---- one sample ----------------------------------------------------------------------------------


def test_health_counts_what_there_is_in_a_sample() -> None:
    found = health(roll_from({60, 64}, {60, 64}, {62}, set(), set(), set(), {62, 108}, {21}))
    assert (found.notes, found.lowest, found.highest) == (6, 21, 108)
    assert (found.silent_share, found.longest_repeat) == (3 / 8, 2)  # of silence there are 3 frames
    assert math.isnan(found.copied_share) and not found.warnings()
    nothing = health(np.zeros((5, 88), dtype=bool), known_windows([]))
    assert (nothing.notes, nothing.lowest, nothing.longest_repeat) == (0, None, 0)
    assert health(np.zeros((0, 88), dtype=bool), known_windows([])).warnings() == []


TUNE = draw_roll(3, 132, stay=0)
KNOWN = known_windows([TUNE])
SOUNDING = [{60 + t % 3} for t in range(20)]


@pytest.mark.parametrize(
    ("roll", "warned"),
    [
        (roll_from(*SOUNDING, *[set()] * 20), []),
        (roll_from(*SOUNDING, *[set()] * 21), ["silent: 51%"]),
        (roll_from(*SOUNDING, *[{60}] * 64), []),
        (roll_from(*SOUNDING, *[{70}] * 65), ["stuck: the same keys sound for 65 frames"]),
        (np.concatenate([TUNE[:56], draw_roll(4, 75, stay=0)]), []),  # 25 windows of 100
        (np.concatenate([TUNE[:57], draw_roll(4, 74, stay=0)]), ["copied: 26%"]),
        (np.concatenate([TUNE[:99], np.zeros((120, 88), bool)]), ["silent", "copied"]),
    ],
)
def test_a_sample_is_warned_of_beyond_a_bound_with_mends(roll: Roll, warned: list[str]) -> None:
    lines = health(roll, KNOWN).warnings()
    for line, start in zip(lines, warned, strict=True):
        assert line.startswith(start)
        assert "; try" in line and "--seed" in line and "\n" not in line
