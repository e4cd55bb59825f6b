"""Flags at, and beyond, the ends of their ranges are accepted or refused; none of them crashes."""

import resource
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import numpy as np
from trials import FinishedRun, forms, run

from pianolstm.inputs.datasets import NAMED_SETS
from settings import GROUPS

MEMORY = 8 * 2**30  # bytes; more is refused, as on a machine that has no more
PAIRS = 150
# Large values of these take long, much disk or, for threads, much address space, as they should.
LONG = {
    "epochs", "max_steps", "seconds", "beats", "bars", "num_samples", "layers", "upper_layers",
    "max_minutes", "attention_window", "attention_heads", "head_dim", "query_frames",
    "threads",
}  # fmt: skip
PATHS = {"data", "data_dir", "run_dir"}
ABSENT = {"cuda", "mps", *NAMED_SETS, "chorales"}  # choices that this machine may not have


def extremes() -> Iterator[str]:
    for group in GROUPS.values():
        for field in fields(group):
            if field.name in PATHS or field.type is bool:
                continue
            for text in ("", "-1", "nan", "inf", "1e400", "x", "0"):
                yield f"--{field.name}={text}"
            for word, bound in field.metadata["limits"].items():
                if word == "at least" or field.name not in LONG:
                    yield f"--{field.name}={bound}"
            for choice in field.metadata["choices"] or ():
                if choice not in ABSENT:
                    yield f"--{field.name}={choice}"


@forms(12, 507)
def test_extreme_flags_alone_and_in_pairs_train_or_are_refused(
    count: int, finished_run: FinishedRun, tmp_path: Path
) -> None:
    generator, single = np.random.default_rng(7), list(dict.fromkeys(extremes()))
    pairs = [generator.choice(single, 2, replace=False).tolist() for _ in range(PAIRS)]
    lines = [[flag] for flag in single] + pairs
    order = generator.permutation(len(lines))[:count]
    assert len(order) == count
    for number in order:
        words = [*finished_run.flags, "--epochs=1", f"--run_dir={tmp_path}/{number}"]
        limits = {resource.RLIMIT_AS: MEMORY}
        ended = run("main", *words, *lines[number], limits=limits)
        assert ended.status in (0, 2), (lines[number], ended)
        errors = 1 if ended.status else 0
        assert (ended.errors, ended.crashed) == (errors, False), (lines[number], ended)
