"""Reports in text: a corpus, a model's scores, and how closely samples resemble real music."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pianolstm.files import atomic_write
from pianolstm.metrics.copying import COPY_WINDOW, copied_share, window_hashes
from pianolstm.metrics.diagnostics import diagnose
from pianolstm.metrics.form import loop_bounds
from pianolstm.metrics.pieces import METRICS
from pianolstm.outputs.plots import plot_metrics
from pianolstm.rolls import PackedRolls, Splits

if TYPE_CHECKING:
    from pianolstm.metrics.comparison import Comparison


# ---- a corpus and a model's scores ---------------------------------------------------------------


def corpus_summary(name: str, splits: Splits) -> str:
    """Return one line with the number of pieces and frames of each split."""
    sizes = ", ".join(
        f"{split} {len(rolls)} pieces / {len(PackedRolls.pack(rolls).packed):,} frames"
        for split, rolls in splits.items()
    )
    return f"{name}: {sizes}"


def results_table(
    results: Mapping[str, Any], name: str, published: Sequence[tuple[str, float]] = ()
) -> tuple[str, list[tuple[str, str, str]]]:
    """Return a model's scores beside those of the baselines and of published models.

    Args:
        results: the contents of `results.json`.
        name: name of the corpus.
        published: names of published models and their NLLs on the test split, in nats per frame.

    Returns:
        The table to print, and its rows: label, value on valid, value on test.
    """
    valid, test = results["valid"], results["test"]

    def row(label: str, key: str, form: str = ".3f") -> tuple[str, str, str]:
        return label, format(valid[key], form), format(test[key], form)

    keys = ", 12 keys" if results.get("average_keys") else ""
    rows = [
        row(f"PianoLSTM, epoch {results['best_epoch']}{keys}", "nll"),
        row("  first frame scored too", "nll_first_frame_scored"),
        row("  mean over pieces", "nll_per_piece_mean"),
    ]
    if independent := results.get("independent_test"):
        label = f"  {independent['pieces']} independent pieces"
        rows.append((label, "", f"{independent['nll']:.3f}"))
    if "nll_per_voice" in test:
        rows.append(row("  per voice, first too", "nll_per_voice"))
        rows.append(row("  the voices told apart, <=", "nll_per_voice_at_most"))
    if start := results.get("init_from"):
        nlls = f"{start['valid_nll']:.3f}", f"{start['test_nll']:.3f}"
        rows.append(("weights before training", *nlls))
    rows.append(row("first-order Markov", "first_order_markov"))
    rows.append(row("unigram", "unigram"))
    rows += [(label, "", f"{nll:.3f}".removesuffix("0")) for label, nll in published]
    rows.append(row("frame accuracy", "frame_accuracy", ".1%"))
    rows.append(row("expected frame accuracy", "expected_frame_accuracy", ".1%"))
    lines = [f"\n{name}: NLL in nats per frame, lower is better\n"]
    lines.append(f"  {'':30}{'valid':>8}{'test':>8}")
    lines += ["  {:30}{:>8}{:>8}".format(*row) for row in rows]
    return "\n".join(lines) + "\n", rows


# ---- the evaluation of samples -------------------------------------------------------------------


def evaluate_samples(
    sampled: Sequence[np.ndarray],
    name: str,
    splits: Splits,
    frame_beats: float,
    seed: int,
    folder: Path,
) -> str:
    """Compare samples with the test split, and write metrics.md and metrics.png.

    Two references show the scale: training pieces compared with the test split are as similar as
    can be expected (the ceiling), and test pieces whose frames are shuffled have lost all order
    (the floor).

    Args:
        sampled: samples with the lengths of test pieces, (T, 88) bool each.
        name: name of the corpus.
        splits: its train, valid and test pieces.
        frame_beats: length of a frame in beats.
        seed: of the choice of training pieces and of the shuffling.
        folder: the folder to write to.

    Returns:
        The text of metrics.md.

    Raises:
        InputError: the folder is not writable.
    """
    from pianolstm.metrics.comparison import compare  # its SciPy takes a second to import

    train, test = splits["train"], splits["test"]
    choice = np.random.default_rng(seed).permutation(len(train))[: len(sampled)]
    comparisons = compare(sampled, test, frame_beats)
    ceiling = compare([train[i] for i in choice], test, frame_beats)
    generator = np.random.default_rng(seed)
    floor = compare([generator.permutation(piece) for piece in test], test, frame_beats)
    title = f"{len(sampled)} samples compared with the test split of {name}"
    problems = _count_problems(sampled, train, splits["valid"], frame_beats)
    text = "\n".join([f"# {title}\n", _table(comparisons, ceiling, floor), *problems]) + "\n"
    with atomic_write(folder / "metrics.md") as temporary:
        temporary.write_text(text, encoding="utf-8")
    with atomic_write(folder / "metrics.png") as temporary:
        plot_metrics(comparisons, title).savefig(temporary, format="png", dpi=100)
    return text


def _table(
    sampled: Sequence["Comparison"], ceiling: Sequence["Comparison"], floor: Sequence["Comparison"]
) -> str:
    """Return the comparisons as a Markdown table; "-" stands for NaN."""

    def cell(value: float, form: str) -> str:
        return "-" if np.isnan(value) else format(value, form)

    lines = [
        "| metric | sampled | test | overlap | ceiling | floor | of the ceiling | KL |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row, best, worst in zip(sampled, ceiling, floor, strict=True):
        unit = "distance between pieces" if METRICS[row.name].bins else METRICS[row.name].unit
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


def _count_problems(
    sampled: Sequence[np.ndarray],
    train: Sequence[np.ndarray],
    valid: Sequence[np.ndarray],
    frame_beats: float,
) -> list[str]:
    """Return lines on silent and stuck samples, and on copied windows of samples and valid."""
    known = window_hashes(train)
    copied, usual = copied_share(sampled, known), copied_share(valid, known)
    bounds = loop_bounds(train)
    every = [diagnose(roll, frame_beats=frame_beats, bounds=bounds) for roll in sampled]
    kinds = [line.split(":")[0] for diagnostics in every for line in diagnostics.warnings()]
    return [
        f"silent {kinds.count('silent')}, stuck {kinds.count('stuck')} of {len(sampled)} samples",
        f"{COPY_WINDOW}-frame windows that are in the training set: {copied:.2%} of the samples',"
        f" {usual:.2%} of the validation pieces'",
    ]
