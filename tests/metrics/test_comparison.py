"""Comparison of two sets of pieces: distances, densities, undefined cases."""

import math
from statistics import NormalDist
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pianolstm.metrics import comparison
from pianolstm.metrics.comparison import Comparison, compare, compare_distances, compare_values
from pianolstm.metrics.pieces import mean_note_length

LIMIT = 10 * math.log(10)  # nats: the divergence where q is 1e-10 p everywhere


def random_roll(seed: int, density: float = 0.05, hold: float = 0.5) -> np.ndarray:
    """Return a roll of 80 frames; each repeats the frame before with the probability `hold`."""
    generator = np.random.default_rng(seed)
    roll = np.zeros((80, 88), dtype=bool)
    for t in range(80):
        held = t > 0 and generator.random() < hold
        roll[t, 24:64] = roll[t - 1, 24:64] if held else generator.random(40) < density
    return roll


REAL, SIMILAR = ([random_roll(seed) for seed in range(s, s + 20)] for s in (0, 100))


# ---- densities of distances ----------------------------------------------------------------------


def normal_sample(mean: float, sd: float) -> np.ndarray:
    """Return 2,000 evenly spaced quantiles of a normal distribution."""
    quantiles = [(i + 0.5) / 2000 for i in range(2000)]
    return np.array([NormalDist(mean, sd).inv_cdf(q) for q in quantiles])


@pytest.mark.parametrize(("mean", "sd"), [(0, 1), (1, 1), (2, 2), (0, 4), (1, 1000)])
def test_overlap_and_divergence_of_normal_distributions(mean: float, sd: float) -> None:
    p, q = NormalDist(0, 1), NormalDist(mean, sd)
    # A kernel estimate has the variance of the data plus that of its kernel, n^-0.4 of it by
    # Scott's rule.
    widening = math.sqrt(1 + 2000**-0.4)
    p, q = (NormalDist(normal.mean, normal.stdev * widening) for normal in (p, q))
    expected = math.log(q.stdev / p.stdev) + (p.variance + mean**2) / (2 * q.variance) - 1 / 2
    overlap, divergence = compare_distances(normal_sample(0, 1), normal_sample(mean, sd))
    assert overlap == pytest.approx(p.overlap(q), abs=0.01)
    assert divergence == pytest.approx(expected, rel=0.02, abs=0.001)


def test_the_overlap_of_two_densities_of_two_kernels_worked_out_by_hand() -> None:
    kernel = NormalDist(0, math.sqrt(2) * 2**-0.2)  # -1 and 1 have the deviation sqrt(2); n = 2
    overlap, _ = compare_distances(np.array([-1.0, 1.0]), np.array([2.0, 4.0]))
    assert overlap == pytest.approx(kernel.cdf(-1.5 - 1) + kernel.cdf(-1.5 + 1), abs=1e-4)


distances = st.lists(st.floats(0, 1000).map(lambda x: round(x, 3)), min_size=1, max_size=20)


@settings(max_examples=40)
@given(distances, distances)
def test_overlap_is_a_symmetric_share_and_both_figures_are_independent_of_the_unit(
    some: list[float], others: list[float]
) -> None:
    p, q = np.array(some), np.array(others)
    overlap, divergence = compare_distances(p, q)
    assert 0 <= overlap <= 1 + 1e-9
    assert 0 <= divergence <= LIMIT + 1e-6
    assert compare_distances(q, p)[0] == pytest.approx(overlap)
    assert compare_distances(p, p) == pytest.approx((1, 0))
    assert compare_distances(8 * p, 8 * q) == pytest.approx((overlap, divergence))


@pytest.mark.parametrize(
    ("intra", "inter", "expected"),
    [
        ([2, 2, 2], [2], (1, 0)),
        ([0, 1e-17], [0, 0], (1, 0)),  # equal but for rounding
        ([2, 2], [3, 3], (0, LIMIT)),
        ([2, 2], [2, 1, 3], (0, LIMIT)),
        ([2, 1, 3], [2, 2], (0, LIMIT)),
    ],
)
def test_equal_distances_count_as_a_point(
    intra: list[float], inter: list[float], expected: tuple[float, float]
) -> None:
    result = compare_distances(np.array(intra, float), np.array(inter, float))
    assert result == pytest.approx(expected)


# ---- values of one metric ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "sets", "expected"),
    [
        ("pitch count", ([[1], [9]], [[0], [3], [7]]), [[3, 7, 4], [1, 2, 6, 9, 6, 2]]),
        ("note lengths", ([[6, 8]], [[0, 0], [3, 4]]), [[5], [10, 5]]),
    ],
)
def test_distances_are_euclidean_between_all_pairs(
    name: str, sets: Any, expected: list[list[float]], monkeypatch: pytest.MonkeyPatch
) -> None:
    compared: list[Any] = []

    def record(*sets: Any) -> tuple[float, float]:
        compared.extend(sets)
        return 0.5, 2

    monkeypatch.setattr(comparison, "compare_distances", record)
    row = compare_values(name, *(np.array(values, float) for values in sets))
    assert [distances.tolist() for distances in compared] == expected  # intra-set, inter-set
    assert (row.overlap, row.divergence) == (0.5, 2)


def test_mean_and_deviation_are_those_of_values_or_for_a_vector_of_distances() -> None:
    row = compare_values("polyphony", np.array([[1.0], [3.0]]), np.array([[5.0], [5.0], [8.0]]))
    assert (row.sampled_mean, row.sampled_sd) == (2, 1)
    assert (row.real_mean, row.real_sd) == (6, pytest.approx(math.sqrt(2)))
    row = compare_values("note lengths", np.array([[0.0, 0], [3, 4], [0, 0]]), np.zeros((2, 2)))
    assert row.sampled_mean == pytest.approx(10 / 3)  # of 5, 0 and 5
    assert (row.real_mean, row.real_sd) == (0, 0)


def test_of_many_distances_always_the_same_subset_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comparison, "_MAX_DISTANCES", 50)
    values = np.random.default_rng(1).random((2, 30, 1))
    assert compare_values("polyphony", *values) == compare_values("polyphony", *values)
    monkeypatch.setattr(
        comparison, "compare_distances", lambda p, q: (len(np.unique(p)), len(np.unique(q)))
    )
    row = compare_values("polyphony", *values)  # of 435 and 900 distances
    assert (row.overlap, row.divergence) == (50, 50)


# ---- sets of pieces ------------------------------------------------------------------------------


def by_name(sampled: list[np.ndarray], real: list[np.ndarray]) -> dict[str, Comparison]:
    return {row.name: row for row in compare(sampled, real, 0.5)}


def test_overlap_is_high_for_similar_sets_and_low_for_a_metric_in_which_they_differ() -> None:
    similar, itself = by_name(SIMILAR, REAL), by_name(REAL, REAL)
    denser = by_name([random_roll(seed, density=0.2) for seed in range(20)], REAL)
    slower = by_name([random_roll(seed, hold=0.8) for seed in range(20)], REAL)
    for other, name in ((denser, "polyphony"), (slower, "note length"), (slower, "pitch count")):
        assert other[name].overlap < 0.2 < 0.8 < similar[name].overlap
        assert similar[name].divergence < 0.2 < 2 < other[name].divergence
    # Below 1, as the inter-set distances of a set to itself include the zeros of equal pieces.
    assert min(row.overlap for row in itself.values()) > 0.85


def test_pieces_for_which_a_metric_is_undefined_are_left_out_of_it() -> None:
    short, silent = REAL[0][:40], np.zeros((80, 88), dtype=bool)
    rows = by_name([*SIMILAR[:3], short, silent], REAL)
    for name, count in (("count", 5), ("polyphony", 4), ("at 32 frames", 4), ("at 64 frames", 3)):
        assert [len(row.sampled) for row in rows.values() if row.name.endswith(name)] == [count]
    assert rows["polyphony"] == by_name([*SIMILAR[:3], short], REAL)["polyphony"]


@pytest.mark.parametrize(("sampled", "real"), [([], REAL[:3]), (REAL[:3], REAL[:1]), ([], [])])
def test_overlap_and_divergence_of_too_few_pieces_are_nan(
    sampled: list[np.ndarray], real: list[np.ndarray]
) -> None:
    rows = compare(sampled, real, 0.5)
    assert all(math.isnan(row.overlap) and math.isnan(row.divergence) for row in rows)


def test_note_lengths_are_in_beats_of_the_given_frame_length() -> None:
    rows = {row.name: row for row in compare(SIMILAR[:1], REAL[:2], 0.25)}
    assert rows["note length"].sampled_mean == mean_note_length(SIMILAR[0], 0.25)
