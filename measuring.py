"""`generate.py --measure N`: is what a model plays like real music? Beside a ceiling and a floor.

Sampled tunes, of the lengths of test tunes, are compared with the test split by every measure
(comparison.py). As good as can be is what training tunes score against the same split; no better
than nothing is what test tunes score whose frames are in random order.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from comparison import Comparison, compare, draw_measures
from corpora import Corpus
from files import whole_file
from measures import COPY_WINDOW, MEASURES, copied_share, health

BATCH = 32  # tunes sampled side by side


def lengths_like(tunes: Sequence[np.ndarray], count: int) -> list[int]:
    """Return the lengths of so many tunes, in frames, going round where there are fewer."""
    return [len(tunes[i % len(tunes)]) for i in range(count)]


def sample_lengths(
    lengths: Sequence[int], sample: Callable[[int, list[int]], np.ndarray]
) -> list[np.ndarray]:
    """Return a tune of each length, like ones side by side so that little is drawn in vain.

    Args:
        lengths: in frames.
        sample: given frames and the numbers of tunes, returns (B, frames, 88) bool.
    """
    order = sorted(range(len(lengths)), key=lambda i: lengths[i])
    rolls: dict[int, np.ndarray] = {}
    for start in range(0, len(order), BATCH):
        tunes = order[start : start + BATCH]
        drawn = sample(max(lengths[i] for i in tunes), tunes)
        rolls |= {i: roll[: lengths[i]] for i, roll in zip(tunes, drawn, strict=True)}
    return [rolls[i] for i in range(len(lengths))]


def shuffled(tunes: Sequence[np.ndarray], seed: int) -> list[np.ndarray]:
    """Return the tunes with the frames of each in random order."""
    generator = np.random.default_rng(seed)
    return [generator.permutation(tune) for tune in tunes]


def compare_all(
    sampled: Sequence[np.ndarray], corpus: Corpus, seed: int
) -> tuple[list[Comparison], list[Comparison], list[Comparison]]:
    """Compare samples, training tunes (as many) and shuffled test tunes with the test split."""
    train, test, beats = corpus.splits["train"], corpus.splits["test"], corpus.frame_beats
    drawn = np.random.default_rng(seed).permutation(len(train))[: len(sampled)]
    return (
        compare(sampled, test, beats),
        compare([train[i] for i in drawn], test, beats),
        compare(shuffled(test, seed), test, beats),
    )


def table(
    sampled: Sequence[Comparison], ceiling: Sequence[Comparison], floor: Sequence[Comparison]
) -> str:
    """Return the three comparisons as one Markdown table; "-" for what is not defined."""

    def cell(value: float, form: str) -> str:
        return "-" if np.isnan(value) else format(value, form)

    lines = [
        "| measure | sampled | test | overlap | ceiling | floor | of the ceiling | KL |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row, best, worst in zip(sampled, ceiling, floor, strict=True):
        unit = "distance of two tunes" if MEASURES[row.name].bins else MEASURES[row.name].unit
        share = row.overlap / best.overlap if best.overlap else np.nan
        overlaps = (row.overlap, best.overlap, worst.overlap, share)
        cells = [
            f"{row.name} ({unit})",
            f"{cell(row.sampled_mean, '.3g')} ({cell(row.sampled_sd, '.3g')})",
            f"{cell(row.real_mean, '.3g')} ({cell(row.real_sd, '.3g')})",
            *(cell(value, ".2f") for value in overlaps),
            cell(row.divergence, ".3f"),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def faults(sampled: Sequence[np.ndarray], corpus: Corpus) -> list[str]:
    """Return how many samples are silent or stuck, and how much of them is copied."""
    train, valid = corpus.splits["train"], corpus.splits["valid"]
    copied, usual = copied_share(sampled, train), copied_share(valid, train)
    kinds = [line.split(":")[0] for roll in sampled for line in health(roll).warnings()]
    return [
        f"silent {kinds.count('silent')}, stuck {kinds.count('stuck')} of {len(sampled)} samples",
        f"{COPY_WINDOW}-frame windows that are in the training set: {copied:.2%} of the samples',"
        f" {usual:.2%} of the valid tunes'",
    ]


def measure(sampled: Sequence[np.ndarray], corpus: Corpus, seed: int, folder: Path) -> str:
    """Write measures.md and measures.png; return what measures.md says.

    Args:
        sampled: tunes of the lengths of test tunes, (T, 88) bool each.
        corpus: what the model was trained on.
        seed: for what is drawn of the training tunes and how frames are shuffled.
        folder: to write to.
    """
    comparisons = compare_all(sampled, corpus, seed)
    title = f"{len(sampled)} sampled tunes beside the test split of {corpus.name}"
    text = "\n".join([f"# {title}\n", table(*comparisons), *faults(sampled, corpus)]) + "\n"
    figure: Any = draw_measures(comparisons[0], title)
    with whole_file(folder / "measures.md") as temporary:
        temporary.write_text(text, encoding="utf-8")
    with whole_file(folder / "measures.png") as temporary:
        figure.savefig(temporary, format="png", dpi=100)
    return text
