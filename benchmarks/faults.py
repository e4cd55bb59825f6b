"""Is nothing lost, and nothing let in? Faults of many kinds, counted.

    python benchmarks/faults.py                    every trial; ten minutes on 2 CPU cores
    python benchmarks/faults.py --only kill disk   the trials of these names alone
    python benchmarks/faults.py --share 0.05       a twentieth of each, for a first look

Each line of the table is a promise of the README's page "What you can rely on", tried often, with
the same faults every time. What fails is named on stderr. The exit status is 1 if a count is not
met. Trials run in processes of their own, forked from this one, so that none waits for its imports:
they need Linux or macOS.
"""

import argparse
import os
import pickle
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import hostile
import torch
from liar import servers
from trials import Bench, apart, disk, flags, kill, long, stop

from checkpoint import load_model
from data import read
from midi import midi_to_roll, roll_to_midi
from rolls import SPLITS

DATA = Path(os.environ.get("PIANO_DATA_DIR", "datasets")).resolve()
Trial = Callable[[Bench, float], tuple[int, int]]
READ = ("weights", "pickle", "midi", "folder")  # trials of what files are read
BESIDE = ("flags", "long")  # begun with the fuzzing, beside the others


def fuzzers(bench: Bench, minutes: float) -> list[tuple[str, Callable[[], tuple[int, int]]]]:
    """Start fuzzing the readers, each in a process of its own; return what waits for them."""
    midi = bench.folder / "good.mid"
    roll_to_midi(read(bench.data, 0.5)[0]["test"][0], 0.5).write(str(midi))
    tunes = {split: [[(60, 64), (), (62,)]] * 2 for split in SPLITS}
    pickles = [pickle.dumps(tunes, protocol) for protocol in range(6)]
    readers: list[tuple[str, Callable[[Path], object], list[bytes]]] = [
        ("pickle", lambda path: read(path, 0.5), pickles),
        ("MIDI", lambda path: midi_to_roll(path, 0.5), [midi.read_bytes()]),
        ("weights", load_model, [bench.weights.read_bytes()]),
    ]
    return [
        (
            f"fuzz: {name} files read or refused",
            apart(
                partial(hostile.fuzz, reader, good, bench.folder / f"fuzzed {name}", 60 * minutes)
            ),
        )
        for name, reader, good in readers
    ]


def in_another(run: Callable[[], tuple[int, int]]) -> tuple[int, int]:
    """Run a trial in a process of its own, and wait for it."""
    return apart(run)()


def place(bench: Bench, name: str) -> Path:
    """Make a folder for the files of a trial."""
    folder = bench.folder / name
    folder.mkdir()
    return folder


def main(argv: list[str] | None = None) -> int:
    """Try, print the table, return 1 if a count is not met."""
    parser = argparse.ArgumentParser(description="Count faults that are survived.")
    trials: dict[str, tuple[str, Trial]] = {
        "kill": ("killed while training, gone on with: the same bytes", kill),
        "stop": ("SIGINT and SIGTERM: 130 and 143, within 5 s, saved", stop),
        "disk": ("no room, no such place: status 1 or 2, one line, nothing half-written", disk),
        "weights": (
            "weights cut, flipped, hostile: refused in 2 s and 300 MB, nothing run",
            lambda bench, share: hostile.weights(
                bench.weights, place(bench, "weights"), round(200 * share), round(300 * share)
            ),
        ),
        "pickle": (
            "pickles damaged and hostile: read or refused, nothing run",
            lambda bench, share: hostile.pickles(place(bench, "pickles"), round(500 * share)),
        ),
        "midi": (
            "MIDI damaged and odd: read or refused in 1 s and 500 MB",
            lambda bench, share: hostile.midis(place(bench, "midi"), DATA, round(6000 * share)),
        ),
        "folder": (
            "a folder with damaged MIDI: exactly these are left out and named",
            lambda bench, share: hostile.midi_folder(place(bench, "music"), 250),
        ),
        "flags": ("flags at their extremes, alone and in pairs: status 0 or 2", flags),
        "servers": ("servers that lie: the next mirror within 30 s, nothing half-written", servers),
        "long": ("many epochs, ten minutes of music, 1,000 tunes: 50 MB at most", long),
    }  # fmt: skip
    parser.add_argument("--only", nargs="+", choices=(*trials, "fuzz"), default=(*trials, "fuzz"))
    parser.add_argument("--share", type=float, default=1.0, help="of the counts; default all")
    parser.add_argument("--fuzz_minutes", type=float, default=5.0, help="for each reader")
    options = parser.parse_args(argv)
    torch.set_num_threads(1)
    print("| trial | count | held | after |\n| --- | --- | --- | --- |", flush=True)
    met, began = True, time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        bench = Bench(Path(folder))
        minutes = options.fuzz_minutes * options.share
        later = fuzzers(bench, minutes) if "fuzz" in options.only else []
        now: list[tuple[str, Callable[[], tuple[int, int]]]] = []
        for name in trials:
            if name in options.only:
                promise, trial = trials[name]
                run = partial(trial, bench, options.share)
                if name in BESIDE:
                    later.append((promise, apart(run)))
                else:
                    # Files are read in a process of its own, so that its memory can be told.
                    now.append((promise, partial(in_another, run) if name in READ else run))
        for promise, wait in now + later:
            count, held = wait()
            met = met and held == count > 0
            seconds = time.monotonic() - began
            print(f"| {promise} | {count:,} | {held:,} | {seconds:.0f} s |", flush=True)
        os.chdir("/")
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
