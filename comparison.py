"""Two sets of tunes side by side, sampled and real, by every measure of `measures.MEASURES`.

The comparison is that of Yang and Lerch, "On the evaluation of generative models in music" (Neural
Computing and Applications 32, 2020, online 2018): if samples are like the real tunes, then a sample
and a real tune are as far apart as two real tunes are.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from scipy.spatial.distance import cdist, pdist
from scipy.stats import gaussian_kde

from measures import MEASURES

PAIRS = 10_000  # distances, at most, that a density is estimated from: a few seconds for them all
POINTS = 1_000  # at which each of two densities is looked at; closer than any kernel is wide
REACH = 4  # standard deviations of a kernel beyond which nothing of it is looked for
FLOOR = 1e-10  # a density is taken for at least so much of the one it is compared with
SAME = 1e-9  # numbers no further apart are one number
BLUE, ORANGE = "#1f5f8b", "#d98032"  # sampled, real
COLUMNS = 4  # of panels


# ---- comparison ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Comparison:
    """What one measure says of two sets of tunes.

    The mean and the standard deviation (population, over tunes) are of the measure itself; of a
    vector, they are of the distances between any two tunes of the set. A tune for which a measure
    is NaN is left out of it; the rows of the values tell how many are left. NaN where too few are.
    """

    name: str
    sampled_mean: float
    sampled_sd: float
    real_mean: float
    real_sd: float
    overlap: float  # area under both densities, 0 to 1: 1 = no further apart than real tunes are
    divergence: float  # Kullback-Leibler, nats, 0 to 23.03: 0 = the same
    sampled: np.ndarray = field(repr=False, compare=False)  # (N, D), a row for each tune left
    real: np.ndarray = field(repr=False, compare=False)


def compare(
    sampled: Sequence[np.ndarray], real: Sequence[np.ndarray], frame_beats: float
) -> list[Comparison]:
    """Compare two sets of rolls, (T, 88) bool each, by every measure.

    Counts, repeats and similarities grow or shrink with a tune's length: the tunes of both sets
    should be about as long. The same sets always give the same numbers.

    Args:
        sampled: what a model played.
        real: what it is measured by, such as a test split.
        frame_beats: length of a frame in beats.
    """
    return [
        compare_values(
            name, values_of(name, sampled, frame_beats), values_of(name, real, frame_beats)
        )
        for name in MEASURES
    ]


def values_of(name: str, rolls: Sequence[np.ndarray], frame_beats: float) -> np.ndarray:
    """Return a measure of every roll for which it is defined, (N, D)."""
    values = [MEASURES[name](roll, frame_beats) for roll in rolls]
    defined = [value for value in values if not np.isnan(value).any()]
    return np.array(defined) if defined else np.empty((0, 1))


def compare_values(name: str, sampled: np.ndarray, real: np.ndarray) -> Comparison:
    """Compare two sets by their values of one measure, (N, D) and (M, D).

    Distances are Euclidean; the intra-set ones are those between each two tunes of the real set,
    the inter-set ones those between each sample and each real tune. `PAIRS` of them are drawn,
    always the same ones, where there are more. Without two real tunes and one sample there is
    nothing to compare, and the overlap and the divergence are NaN.
    """
    overlap = divergence = np.nan
    if len(real) > 1 and len(sampled):
        chance = np.random.default_rng(0)
        intra, inter = pdist(real), cdist(sampled, real).ravel()
        overlap, divergence = compare_distances(few(intra, chance), few(inter, chance))
    of_sampled, of_real = (
        pdist(values) if MEASURES[name].bins and len(values) else values
        for values in (sampled, real)
    )
    return Comparison(
        name, *centre(of_sampled), *centre(of_real), overlap, divergence, sampled, real
    )


def centre(values: np.ndarray) -> tuple[float, float]:
    """Return the mean and the standard deviation; NaN of nothing."""
    return (float(values.mean()), float(values.std())) if values.size else (np.nan, np.nan)


def few(distances: np.ndarray, chance: np.random.Generator) -> np.ndarray:
    """Return `PAIRS` of the distances, or all of fewer."""
    return chance.choice(distances, PAIRS, replace=False) if len(distances) > PAIRS else distances


def compare_distances(intra: np.ndarray, inter: np.ndarray) -> tuple[float, float]:
    """Return the overlapping area and the KL divergence of two sets of distances.

    With p the density of the intra-set distances and q that of the inter-set ones, each a sum of
    Gaussian kernels whose width is Scott's rule,

        overlap = integral of min(p, q), 0 to 1,
        divergence = integral of p ln(p / q), in nats, q taken for no less than 1e-10 p.

    Both are summed over one grid that reaches to the ends of all kernels. The program that Yang and
    Lerch published takes each density over a range of its own instead, and cuts it off there.

    Distances that are all equal have no width: they are a point. Two points are the same, overlap 1
    and divergence 0, or as different as can be, like a point and a density: 0 and ln(1e10) = 23.03.
    """
    points = [np.ptp(distances) <= SAME for distances in (intra, inter)]
    if any(points):
        same = all(points) and abs(intra[0] - inter[0]) <= SAME
        return (1.0, 0.0) if same else (0.0, -float(np.log(FLOOR)))
    kernels = [gaussian_kde(distances) for distances in (intra, inter)]
    # One may be a thousand times narrower than the other, so each brings points of its own.
    grid = np.concatenate([points_of(kernel) for kernel in kernels])
    grid.sort()
    weights = np.gradient(grid)  # the trapezoid rule
    p, q = (kernel(grid) * weights for kernel in kernels)
    p, q = p / p.sum(), q / q.sum()
    there = p > 1e-300  # less is nothing, and may not be divided by
    p_there = p[there]
    divergence = (p_there * np.log(p_there / np.maximum(q[there], FLOOR * p_there))).sum()
    return float(np.minimum(p, q).sum()), max(float(divergence), 0.0)  # rounding may go below


def points_of(kernel: gaussian_kde) -> np.ndarray:
    """Return where to look at a density, (POINTS,): all of its range, evenly."""
    reach = REACH * np.sqrt(kernel.covariance[0, 0])
    return np.linspace(kernel.dataset.min() - reach, kernel.dataset.max() + reach, POINTS)


# ---- picture -------------------------------------------------------------------------------------


def draw_measures(comparisons: Sequence[Comparison], title: str) -> Figure:
    """Draw a panel for each comparison: how the tunes of both sets are distributed.

    A scalar is a histogram of the tunes of each set. A vector is its mean over the tunes; of a
    square one the difference of the means is drawn, sampled less real.
    """
    rows = -(-len(comparisons) // COLUMNS)
    figure = Figure(figsize=(4 * COLUMNS, 2.8 * rows + 0.8), layout="constrained")
    panels = figure.subplots(rows, COLUMNS, squeeze=False).ravel()
    for axes, comparison in zip(panels, comparisons, strict=False):
        overlap = "" if np.isnan(comparison.overlap) else f", overlap {comparison.overlap:.2f}"
        axes.set_title(comparison.name + overlap, fontsize=10)
        bins = MEASURES[comparison.name].bins
        if not (len(comparison.sampled) and len(comparison.real)):
            axes.text(0.5, 0.5, "not defined", ha="center", transform=axes.transAxes)
        elif not bins:
            draw_scalars(axes, comparison)
        elif comparison.real.shape[1] == len(bins):
            draw_bars(axes, comparison, bins)
        else:
            draw_square(axes, comparison, bins)
    for axes in panels[len(comparisons) :]:
        axes.set_axis_off()
    figure.suptitle(title)
    both = [Patch(color=BLUE, label="sampled"), Patch(color=ORANGE, label="real")]
    figure.legend(handles=both, loc="outside lower center", ncols=2)
    return figure


def draw_scalars(axes: Axes, comparison: Comparison) -> None:
    """Draw two histograms over the same bins: the share of each set's tunes."""
    both = np.concatenate([comparison.sampled, comparison.real])
    edges = np.histogram_bin_edges(both, bins=20)
    for values, colour in ((comparison.sampled, BLUE), (comparison.real, ORANGE)):
        share = np.full(len(values), 1 / len(values))
        axes.hist(values[:, 0], edges.tolist(), weights=share, color=colour, alpha=0.6)
    axes.set(xlabel=MEASURES[comparison.name].unit, ylabel="share of tunes")


def draw_bars(axes: Axes, comparison: Comparison, bins: Sequence[str]) -> None:
    """Draw the mean of a vector over each set, two bars side by side for each of its places."""
    places = np.arange(len(bins))
    axes.bar(places - 0.2, comparison.sampled.mean(axis=0), 0.4, color=BLUE)
    axes.bar(places + 0.2, comparison.real.mean(axis=0), 0.4, color=ORANGE)
    axes.set_xticks(places, bins, fontsize=6)
    axes.set_ylabel(MEASURES[comparison.name].unit)


def draw_square(axes: Axes, comparison: Comparison, bins: Sequence[str]) -> None:
    """Draw the mean of the samples less that of the real tunes, a square for each pair of bins."""
    more = comparison.sampled.mean(axis=0) - comparison.real.mean(axis=0)
    furthest = max(float(np.abs(more).max()), SAME)
    axes.imshow(
        more.reshape(len(bins), -1), cmap="PuOr", vmin=-furthest, vmax=furthest, aspect="auto"
    )
    axes.set_xticks(range(len(bins)), bins, fontsize=6)
    axes.set_yticks(range(len(bins)), bins, fontsize=6)
    # In words, as a colour bar would take its room from every panel of the column.
    axes.set(xlabel=f"to (purple: more in samples; the deepest is {furthest:.2g})", ylabel="from")
