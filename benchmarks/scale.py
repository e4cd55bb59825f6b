"""Does a set a hundred times as large cost a hundred times as much, and no more memory?

    python benchmarks/scale.py              17.7 million frames; five minutes on 2 idle CPU cores
    python benchmarks/scale.py --times 10   a smaller one

The large set is made of Nottingham: its training tunes cut in two, one's beginning spliced to
another's end and moved to another key. main.py trains on either set in turns, each time for so many
seconds, its rolls being found in the cache of the first time. The exit status is 1 if a target is
missed. Nothing else should run meanwhile.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import corpora
from data import write_npz
from rolls import Rolls
from settings import DataSettings

HOME = Path(__file__).resolve().parent.parent
# Trains for so many seconds after the first optimizer step, and tells of it.
TRAIN = """
import json, os, resource, sys, time
import torch
import main, train
seconds, began, frames, told = float(sys.argv[1]), float(sys.argv[2]), 0, {}
learn, step = train.Trainer.learn, torch.optim.Adam.step
def first(self, closure=None):
    told.setdefault("start", time.time() - began)
    return step(self, closure)
def counted(self, batch, shift):
    global frames
    loss = learn(self, batch, shift)
    if "warm" not in told:  # the first batch is slower than all others
        told["warm"] = time.time()
    else:
        frames += int(batch.lengths.sum())
    if time.time() - told["warm"] > seconds:
        kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        told["memory"] = kib / (2**20 if sys.platform == "darwin" else 2**10)
        told["speed"] = frames / (time.time() - told.pop("warm"))
        print(json.dumps(told), flush=True)
        os._exit(0)
    return loss
torch.optim.Adam.step, train.Trainer.learn = first, counted
main.main(sys.argv[3:])
"""


def enlarged(rolls: Rolls, times: int, chance: np.random.Generator) -> Rolls:
    """Return `times` as many tunes, each the beginning of one and the end of another, moved."""
    tunes = []
    for _ in range(times):
        other = chance.permutation(len(rolls))
        for number in range(len(rolls)):
            one, two = rolls[number], rolls[int(other[number])]
            spliced = np.concatenate([one[: len(one) // 2], two[len(two) // 2 :]])
            tunes.append(np.packbits(np.roll(spliced, int(chance.integers(-5, 7)), axis=1), axis=1))
    return Rolls.joined(tunes)


def trained(
    data: Path, folder: Path, number: int, seconds: float, words: list[str]
) -> dict[str, float]:
    """Train on a file for so many seconds; return how it began, how fast it was, and its memory."""
    command = [sys.executable, "-c", TRAIN, str(seconds), str(time.time()), f"--data={data}"]
    command += [f"--run_dir={folder}/run{number}", *words]
    ended = subprocess.run(
        command, cwd=folder, env={**os.environ, "PYTHONPATH": str(HOME)}, check=True,
        capture_output=True, text=True,
    )  # fmt: skip
    told: dict[str, float] = json.loads(ended.stdout.splitlines()[-1])
    return told


def main(argv: list[str] | None = None) -> int:
    """Build, train in turns, print the table, return 1 if a target is missed."""
    parser = argparse.ArgumentParser(description="Train on a set a hundred times as large.")
    parser.add_argument("--times", type=int, default=100, help="as large as Nottingham")
    parser.add_argument("--seconds", type=float, default=30, help="of training, each time")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--data_dir", default=DataSettings().data_dir, help="where Nottingham is")
    options, words = parser.parse_known_args(argv)
    corpus = corpora.load(DataSettings(data_dir=options.data_dir), named=True)
    small = {split: Rolls.of(rolls) for split, rolls in corpus.splits.items()}
    chance = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files = {"Nottingham": folder / "small.npz", "the large set": folder / "large.npz"}
        large = {**small, "train": enlarged(small["train"], options.times, chance)}
        frames = {"Nottingham": small["train"], "the large set": large["train"]}
        write_npz(files["Nottingham"], small)
        write_npz(files["the large set"], large)
        cold = trained(files["the large set"], folder, 0, 1, words)["start"]
        trained(files["Nottingham"], folder, 1, 1, words)
        runs: dict[str, list[dict[str, float]]] = {name: [] for name in files}
        for number in range(options.rounds):
            for place, (name_, path) in enumerate(files.items()):
                run = trained(path, folder, 2 + 2 * number + place, options.seconds, words)
                runs[name_].append(run)
    middle = {
        name: {key: statistics.median(run[key] for run in taken) for key in taken[0]}
        for name, taken in runs.items()
    }
    one, many = middle["Nottingham"], middle["the large set"]
    print("| set | frames | to the first step | frames/s | memory |")
    print("| --- | --- | --- | --- | --- |")
    for name, values in middle.items():
        print(
            f"| {name} | {len(frames[name].packed):,} | {values['start']:.1f} s |"
            f" {values['speed']:,.0f} | {values['memory']:.0f} MiB |"
        )
    rows = [
        ("first step, cache cold", cold, None),
        ("first step, cache warm, in seconds", many["start"], 5.0),
        ("cost of a frame, of Nottingham's", one["speed"] / many["speed"], 1.1),
        ("memory above Nottingham's, in MiB", many["memory"] - one["memory"], 300.0),
    ]
    print("\n| what | value | at most | met |\n| --- | --- | --- | --- |")
    for what, value, most in rows:
        met = "" if most is None else "yes" if value <= most else "NO"
        print(f"| {what} | {value:.2f} | {'' if most is None else most} | {met} |")
    return 1 if any(most is not None and value > most for _, value, most in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
