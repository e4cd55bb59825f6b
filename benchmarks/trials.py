"""Runs that are killed, stopped, without room, with odd flags, or long; for faults.py.

Each command runs in a process forked from this one, so that none waits for its imports.
"""

import json
import os
import resource
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import hostile
import numpy as np
import torch

import corpora
import generate
import main as program
import train
from checkpoint import load_model, read_tensors
from data import write_npz
from files import InputError, run_program
from groups import plain
from rolls import SPLITS, Rolls
from sampling import generators_of, sample
from settings import GROUPS

WORDS = [
    "--embed_size=8", "--hidden_size=16", "--latent_size=4", "--memory=16", "--intervals",
    "--dropout=0.2", "--transpose=0.5", "--warmup=0.3", "--batch_size=4", "--bptt=20",
    "--seconds=2", "--num_samples=1", "--threads=1", "--device=cpu",
]  # fmt: skip
EPOCHS = 8
GIB = 2**30


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    status: int  # -9 if it was killed by signal 9
    said: str  # on stdout and stderr
    seconds: float  # from the signal, if there was one, else from the start

    @property
    def traceback(self) -> bool:
        """Whether it ended with one."""
        return "Traceback" in self.said

    @property
    def last_line(self) -> str:
        """What it said in the end."""
        return self.said.strip().splitlines()[-1] if self.said.strip() else ""


def command(
    words: Sequence[str],
    module: Any = program,
    *,
    signals: tuple[int, float] | None = None,
    after: Path | None = None,
    prepare: Callable[[], None] = lambda: None,
    patience: float = 120,
) -> Ended:
    """Run a command of ours in a process forked from this one.

    Args:
        words: its flags.
        module: main or generate.
        signals: a signal to send, and after how many seconds.
        after: a file that is waited for before these are counted.
        prepare: called in the process before.
        patience: seconds after which it is killed.
    """
    reading, writing = os.pipe()
    began = time.monotonic()
    child = os.fork()
    if not child:
        try:
            os.dup2(writing, 1)
            os.dup2(writing, 2)
            sys.argv = [module.__file__]
            # Shells let what they start in the background ignore Ctrl-C.
            signal.signal(signal.SIGINT, signal.default_int_handler)
            prepare()
            run_program(lambda: int(module.main(list(words))))
        except SystemExit as leave:
            status = leave.code if isinstance(leave.code, int) else int(leave.code is not None)
            os._exit(status)
        except BaseException:
            sys.excepthook(*sys.exc_info())
        os._exit(70)
    os.close(writing)
    killer = threading.Timer(patience, os.kill, (child, signal.SIGKILL))
    killer.start()
    if signals:
        while after is not None and not after.exists() and time.monotonic() - began < patience:
            time.sleep(0.01)
        time.sleep(signals[1])
        os.kill(child, signals[0])
        began = time.monotonic()
    with os.fdopen(reading, errors="replace") as pipe:
        said = pipe.read()
    _, code = os.waitpid(child, 0)
    killer.cancel()
    return Ended(os.waitstatus_to_exitcode(code), said, time.monotonic() - began)


def apart(trial: Callable[[], tuple[int, int]]) -> Callable[[], tuple[int, int]]:
    """Start a trial in a process of its own; return what waits for its counts."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            os.write(writing, json.dumps(trial()).encode())
        except BaseException:
            sys.excepthook(*sys.exc_info())
        os._exit(0)
    os.close(writing)

    def wait() -> tuple[int, int]:
        with os.fdopen(reading) as pipe:
            said = pipe.read()
        os.waitpid(child, 0)
        count, held = json.loads(said or "[1, 0]")
        return count, held

    return wait


def complain(trial: str, ended: Ended) -> None:
    """Say on stderr how a trial went wrong."""
    print(f"{trial}: status {ended.status} after {ended.seconds:.1f} s: {ended.said[-400:]}",
          file=sys.stderr)  # fmt: skip


# ---- runs that are stopped -----------------------------------------------------------------------


class Bench:
    """A folder to work in, a small set of tunes, and a run on it that nothing stopped."""

    def __init__(self, folder: Path) -> None:
        """Make them."""
        chance = np.random.default_rng(0)
        self.folder, self.data = folder, folder / "tunes.npz"
        tunes = {
            split: Rolls.of([chance.random((n, 88)) < 0.04 for n in range(20, 20 + 3 * count, 3)])
            for split, count in zip(SPLITS, (14, 3, 3), strict=True)
        }
        write_npz(self.data, tunes)
        self.words = [f"--data={self.data}", *WORDS, f"--epochs={EPOCHS}"]
        self.whole = folder / "whole"
        began = time.monotonic()
        ended = command([*self.words, f"--run_dir={self.whole}"])
        if ended.status:
            raise SystemExit(f"not even a run that nothing stops: {ended.said}")
        self.seconds = time.monotonic() - began
        self.weights = self.whole / "model.safetensors"

    def same(self, run: Path) -> bool:
        """Whether a run is byte for byte the whole one, and nothing half-written lies about."""
        names = ("model.safetensors", "metrics.csv", "loss.png")
        state, expected = (read_tensors(f / "state.safetensors")[0] for f in (run, self.whole))
        return (
            all((run / name).read_bytes() == (self.whole / name).read_bytes() for name in names)
            and all(torch.equal(state[name], tensor) for name, tensor in expected.items())
            and not list(run.rglob("*.tmp"))
        )


def readable(run: Path) -> bool:
    """Whether every file that a run has so far can be read."""
    try:
        for path in run.rglob("*.safetensors"):
            read_tensors(path)
        for path in run.rglob("*.json"):
            json.loads(path.read_text(encoding="utf-8"))
    except (InputError, ValueError) as error:
        print(f"unreadable: {error}", file=sys.stderr)
        return False
    return True


def kill(bench: Bench, share: float) -> tuple[int, int]:
    """Kill training at random instants, and go on."""
    chance, count, held = np.random.default_rng(5), max(round(40 * share), 1), 0
    for number in range(count):
        run = bench.folder / f"killed{number}"
        after = float(chance.uniform(0.05, bench.seconds))
        command([*bench.words, f"--run_dir={run}"], signals=(signal.SIGKILL, after))
        whole = readable(run)
        begun = (run / "settings.json").is_file()
        words = ["--resume", str(run)] if begun else [*bench.words, f"--run_dir={run}-again"]
        ended = command(words)
        good = whole and not ended.status and bench.same(run if begun else Path(f"{run}-again"))
        held += good
        if not good:
            complain(f"killed after {after:.2f} s and gone on with", ended)
    return count, held


def stop(bench: Bench, share: float) -> tuple[int, int]:
    """Interrupt and end training in its midst."""
    chance, count, held = np.random.default_rng(6), max(round(10 * share), 1), 0
    for number in range(2 * count):
        how, status = ((signal.SIGINT, 130), (signal.SIGTERM, 143))[number % 2]
        run = bench.folder / f"stopped{number}"
        after, state = float(chance.uniform(0, 1)), run / "state.safetensors"
        words = [*bench.words, f"--run_dir={run}", "--epochs=999"]
        ended = command(words, signals=(how, after), after=state)
        saved = state.is_file() and readable(run)
        good = ended.status == status and ended.seconds < 5 and saved and not ended.traceback
        held += good
        if not good:
            complain(f"{how.name} after {after:.2f} s", ended)
    return 2 * count, held


def disk(bench: Bench, share: float) -> tuple[int, int]:
    """Let each file of a run in turn be the first that does not fit; and name places that are none.

    In place of a full disk there is a limit of the size of a file.
    """
    sizes = sorted({path.stat().st_size for path in bench.whole.rglob("*") if path.is_file()})
    count = held = 0
    for number, size in enumerate(sizes):
        run = bench.folder / f"full{number}"

        def limit(size: int = size) -> None:
            # Less, as the times that are kept of a run differ in length.
            resource.setrlimit(resource.RLIMIT_FSIZE, (9 * size // 10, 9 * size // 10))

        ended = command([*bench.words, f"--run_dir={run}"], prepare=limit)
        tidy = readable(run) and not list(run.rglob("*.tmp"))
        good = ended.status == 1 and not ended.traceback and tidy
        count, held = count + 1, held + good
        if not good:
            complain(f"no file of {size} bytes", ended)
    weights = [str(bench.weights), "--seconds=1"]
    for place in ("/proc/nowhere", f"{bench.data}/below", "/dev/null/x", "a" * 300):
        for module, words in (
            (program, [*bench.words, f"--run_dir={place}"]),
            (generate, [*weights, f"--output_dir={place}"]),
            (generate, [*weights, "--measure=2", f"--output_dir={place}"]),
        ):
            ended = command(words, module)
            good = ended.status == 2 and not ended.traceback
            count, held = count + 1, held + good
            if not good:
                complain(f"{words[-1]!r}", ended)
    return count, held


# ---- command lines -------------------------------------------------------------------------------

# Bounds that would only take long, or fill the disk as they should.
LONG = {"epochs", "steps", "seconds", "beats", "bars", "num_samples", "measure", "layers",
        "upper_layers", "max_minutes", "memory", "heads", "head_size", "match"}  # fmt: skip
PLACES = {"data", "data_dir", "run_dir", "output_dir", "resume", "evaluate"}


def extremes() -> Iterator[str]:
    """Yield flags with values at, and beyond, the ends of their ranges."""
    for group in GROUPS.values():
        for field in fields(group):
            name = field.name
            if name in PLACES or field.type in (bool, "bool"):
                continue
            yield from (f"--{name}={text}" for text in ("", "-1", "nan", "inf", "1e400", "x", "0"))
            limits = field.metadata["limits"]
            for word, bound in limits.items():
                if plain(type(bound)) in (int, float) and (word == "at least" or name not in LONG):
                    yield f"--{name}={bound}"
            for choice in field.metadata["choices"] or ():
                if choice not in ("cuda", "mps", *corpora.BENCHMARKS, "chorales"):
                    yield f"--{name}={choice}"


def flags(bench: Bench, share: float) -> tuple[int, int]:
    """Give the flags at their extremes, alone and in pairs."""
    chance, single = np.random.default_rng(7), list(dict.fromkeys(extremes()))
    pairs = [chance.choice(single, 2, replace=False).tolist() for _ in range(150)]
    lines = [[flag] for flag in single] + pairs
    lines = [lines[i] for i in chance.permutation(len(lines))[: max(round(len(lines) * share), 1)]]
    words = [word for word in bench.words if not word.startswith("--epochs")] + ["--epochs=1"]

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (12 * GIB, 12 * GIB))

    held = 0
    for number, line in enumerate(lines):
        run = f"--run_dir={bench.folder}/flags{number}"
        ended = command([*words, run, *line], prepare=limit)
        good = ended.status in (0, 2) and not ended.traceback
        held += good
        if not good:
            complain(" ".join(line), ended)
    return len(lines), held


# ---- long ----------------------------------------------------------------------------------------


def long(bench: Bench, share: float) -> tuple[int, int]:
    """Train many epochs, draw long music and many tunes: memory stays where it is."""

    def training() -> tuple[int, int]:
        words = [*bench.words, f"--run_dir={bench.folder}/long", "--num_samples=1"]
        sizes: list[float] = []
        fit = train.Trainer.epoch

        def epoch(self: Any, number: int) -> Any:
            sizes.append(hostile.peak())
            return fit(self, number)

        train.Trainer.epoch = epoch  # type: ignore[method-assign]
        program.main([*words, f"--epochs={max(round(1500 * share), 40)}"])
        grown = sizes[-1] - sizes[len(sizes) // 10]
        if grown >= 50:
            print(f"training grew by {grown:.0f} MB", file=sys.stderr)
        return 1, int(grown < 50)

    def music() -> tuple[int, int]:
        model, _ = load_model(bench.weights)
        grown = []
        for frames, tunes, times in ((2400, 1, 3), (64, 100, max(round(10 * share), 2))):
            sample(model, frames, generators_of(1, tunes))
            before = hostile.peak()
            for seed in range(times):
                sample(model, frames, generators_of(seed, tunes), max_hold=16)
            grown.append(hostile.peak() - before)
        if max(grown) >= 50:
            print(f"drawing grew by {max(grown):.0f} MB", file=sys.stderr)
        return 2, sum(size < 50 for size in grown)

    results = [apart(trial)() for trial in (training, music)]
    return sum(count for count, _ in results), sum(held for _, held in results)
