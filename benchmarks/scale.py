"""Train on a set a hundred times as large as Nottingham: do speed and RAM stay the same?

    python benchmarks/scale.py              17.7 million frames; five minutes on two idle CPU cores
    python benchmarks/scale.py --times 10   a smaller set

The large set is made from Nottingham's training pieces: each is cut in two, the beginning of one is
joined to the end of another, and the result is transposed. main.py trains on both sets by turns for
some seconds each, with the rolls already in the cache. Other flags go to main.py. The exit status
is 1 if a target is missed. Nothing else should run on the machine.
"""

import argparse
import statistics
import sys
import tempfile
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from measured_run import measure

from data import load
from pianolstm.rolls import PackedRolls, write_npz
from settings import DataSettings


def enlarge(rolls: PackedRolls, times: int, generator: np.random.Generator) -> PackedRolls:
    """Return `times` as many pieces, each the beginning of one and the end of another, transposed.

    Args:
        rolls: the pieces.
        times: by how much.
        generator: random generator.
    """
    pieces = []
    for _ in range(times):
        other = generator.permutation(len(rolls))
        for number in range(len(rolls)):
            first, second = rolls[number], rolls[int(other[number])]
            joined = np.concatenate([first[: len(first) // 2], second[len(second) // 2 :]])
            shift = int(generator.integers(-5, 7))
            pieces.append(np.packbits(np.roll(joined, shift, axis=1), axis=1))
    return PackedRolls.concatenate(pieces)


def main(argv: list[str] | None = None) -> int:
    """Make the large set, train by turns, print the tables; return 1 if a target is missed."""
    parser = argparse.ArgumentParser(description="Train on a set a hundred times as large.")
    parser.add_argument("--times", type=int, default=100, help="size, in times Nottingham's")
    parser.add_argument("--seconds", type=float, default=30, help="duration of each training")
    parser.add_argument("--rounds", type=int, default=3, help="trainings on each set")
    parser.add_argument("--data_dir", default=DataSettings().data_dir, help="folder of Nottingham")
    options, flags = parser.parse_known_args(argv)
    corpus = load(DataSettings(data_dir=options.data_dir), named=True)
    small = {split: PackedRolls.pack(rolls) for split, rolls in corpus.splits.items()}
    large = enlarge(small["train"], options.times, np.random.default_rng(0))
    train = {"Nottingham": small["train"], "the large set": large}
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in train}
    with tempfile.TemporaryDirectory() as temporary:
        folder, number = Path(temporary), 0

        def train_on(name: str, seconds: float) -> dict[str, float]:
            nonlocal number
            number += 1
            return measure(
                [f"--data={folder}/{name}.npz", f"--run_dir={folder}/run{number}", *flags],
                seconds,
                folder,
            )

        for name, rolls in train.items():
            write_npz(folder / f"{name}.npz", {**small, "train": rolls})
        uncached = [train_on(name, 1)["first_step"] for name in train]
        for _ in range(options.rounds):
            for name in train:
                runs[name].append(train_on(name, options.seconds))
    medians = {
        name: {key: statistics.median(run[key] for run in measured) for key in measured[0]}
        for name, measured in runs.items()
    }
    one, many = medians["Nottingham"], medians["the large set"]
    print("| set | frames | to the first step | frames/s | RAM |")
    print("| --- | --- | --- | --- | --- |")
    for name, values in medians.items():
        print(
            f"| {name} | {len(train[name].packed):,} | {values['first_step']:.1f} s |"
            f" {values['frames_per_second']:,.0f} | {values['peak_mib']:.0f} MiB |"
        )
    cost = one["frames_per_second"] / many["frames_per_second"]
    rows = [
        ("first step without the cache, in seconds", uncached[1], None),
        ("first step with the cache, in seconds", many["first_step"], 5.0),
        ("cost of a frame, in times Nottingham's", cost, 1.1),
        ("RAM above Nottingham's, in MiB", many["peak_mib"] - one["peak_mib"], 300.0),
    ]
    print("\n| metric | value | at most | met |\n| --- | --- | --- | --- |")
    for metric, value, most in rows:
        met = "" if most is None else "yes" if value <= most else "NO"
        print(f"| {metric} | {value:.2f} | {'' if most is None else most} | {met} |")
    return 1 if any(most is not None and value > most for _, value, most in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
