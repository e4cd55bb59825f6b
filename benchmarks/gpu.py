"""Run on a GPU what its user runs, and compare the results with those of the CPU.

    python benchmarks/gpu.py --output gpu.md                       three minutes on one GPU
    python benchmarks/gpu.py --output gpu.md --full --budget 540   the preset on Nottingham too
    python benchmarks/gpu.py --only speed large                    these parts alone
    python benchmarks/gpu.py --device cpu --quick                  tiny sizes, to test this script

The table has a row for each result, written as soon as it is known. Parts run side by side, each in
a process of its own, so that an error on the device ends one part only. Those that measure speed
run alone, after the others. Training that exceeds the budget is stopped, evaluated as far as it
came, and marked as stopped. The exit status is 1 if a row failed.
"""

import argparse
import csv
import io
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext, redirect_stdout
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from speed import bare_training, new_model, our_training, run_by_turns, values_of

import generate
import main as program
from data import RollDataset, load
from model import PianoLSTM, build_model
from pianolstm.files import one_line, read_json
from pianolstm.inputs.datasets import Corpus
from pianolstm.rolls import PITCHES, SPLITS, write_npz
from settings import DataSettings, ModelSettings, TrainSettings, best_preset
from train import evaluate

HOME = Path(__file__).resolve().parent.parent
CPU = torch.device("cpu")
TINY = ["--embed_size=8", "--hidden_size=8", "--latent_size=3", "--epochs=2"]
SHORT = ["--seconds=2", "--num_samples=1"]
PRESET = best_preset(176_561)  # frames of Nottingham's training split
LARGE = {"hidden_size": 2048, "layers": 3}
# Mean test NLL of three seeds on the CPU, and test NLL of the pretrained weights: docs/results.md.
CPU_NLL = {"default": 2.260, "jsb": 3.913, "nottingham": 0.774}
PRETRAINED_NLL = {"nottingham": 0.775, "jsb": 3.927}
SEEDS_DIFFER = 0.05  # nats per frame, at most
HEADING = "| what | result | seconds |\n", "| --- | --- | --- |\n"
ALONE_SECONDS = 60  # of the budget, reserved for the parts that run alone
GRACE = 45  # seconds beyond the budget, to evaluate what was stopped, before a part is killed


@dataclass(frozen=True)
class Bench:
    """What every row needs."""

    device: torch.device
    folder: Path  # for files of this process
    data_dir: Path  # of the named sets
    quick: bool = False

    def data(self, name: str) -> dict[str, str]:
        """Return the data settings of a named set; with `quick`, of a small set of noise."""
        if not self.quick:
            return {"dataset": name, "data_dir": str(self.data_dir)}
        path = self.folder / "noise.npz"
        if not path.is_file():
            generator = np.random.default_rng(0)
            pieces = {split: generator.random((6, 40, PITCHES)) < 0.04 for split in SPLITS}
            write_npz(path, {split: list(rolls) for split, rolls in pieces.items()})
        return {"data": str(path)}

    def corpus(self, name: str) -> Corpus:
        """Return a named set, or the noise in its place."""
        return load(DataSettings(**self.data(name)), named=True)  # type: ignore[arg-type]

    def flags(self, name: str) -> list[str]:
        """Return the flags of main.py that name a data set and the device."""
        values = {**self.data(name), "device": self.device.type}
        return [f"--{key}={value}" for key, value in values.items()]

    def train(self, name: str, run: str, *flags: str) -> Path:
        """Train with main.py; return the run's folder. Training that is stopped early is fine."""
        folder = self.folder / run
        status = program.main([*self.flags(name), f"--run_dir={folder}", *flags])
        expect(status in (0, 130), f"main.py: exit status {status}")
        return folder

    def sizes(self, **values: Any) -> ModelSettings:
        """Return model settings; with `quick`, tiny ones."""
        tiny = {"embed_size": 8, "hidden_size": 8, "latent_size": 3, "head_dim": 4}
        tiny |= {key: 0 for key in ("latent_size",) if values.get(key) == 0}
        return ModelSettings(**(values | tiny if self.quick else values))

    def weights(self, name: str) -> Path:
        """Return the pretrained weights of a set; with `quick`, weights trained on the noise."""
        if not self.quick:
            return HOME / "pretrained" / f"{name}.safetensors"
        path = self.folder / "weights" / "model.safetensors"
        return path if path.is_file() else self.train(name, "weights", *TINY, *SHORT) / path.name


class UnexpectedError(Exception):
    """A result is not what it should be."""


def expect(condition: bool, message: str) -> None:
    """Raise UnexpectedError unless the condition holds."""
    if not condition:
        raise UnexpectedError(message)


# ---- correctness ---------------------------------------------------------------------------------


def machine(bench: Bench) -> str:
    """Return what the device and the software are."""
    parts = [f"{os.cpu_count()} CPU cores", f"Python {sys.version.split()[0]}"]
    parts.append(f"torch {torch.__version__}")
    if bench.device.type == "cuda":
        parts.insert(0, torch.cuda.get_device_name())
        parts.append(f"cuDNN {torch.backends.cudnn.version()}")
    return ", ".join(parts)


@torch.inference_mode()
def chunks_and_one_pass(bench: Bench) -> str:
    """Compare a pass over whole pieces with one in chunks, between which the state is kept."""
    torch.manual_seed(1)
    frames = (torch.rand(4, 150, PITCHES) < 0.04).float().to(bench.device)
    worst = 0.0
    for sizes in (bench.sizes(), bench.sizes(**values_of(PRESET, ModelSettings))):
        model = build_model(sizes).to(bench.device).eval()
        whole, _ = model(frames)
        state, parts = None, []
        for part in frames.split(60, dim=1):
            vectors, state = model(part, state)
            parts.append(vectors)
        worst = max(worst, float((torch.cat(parts, dim=1) - whole).abs().max()))
    expect(worst < 2e-3, f"the vectors differ by up to {worst:.1e}")
    return f"the vectors differ by at most {worst:.1e}"


def nll_and_cpu(bench: Bench) -> str:
    """Compare the NLL on the device with that on the CPU."""
    path, test = bench.weights("jsb"), RollDataset(bench.corpus("jsb").splits["test"])
    here, there = (
        evaluate(PianoLSTM.load(path, device), test, device, accuracy=False).nll
        for device in (bench.device, CPU)
    )
    text = f"{here:.6f}, on the CPU {there:.6f}"
    expect(abs(here - there) < 1e-4, text)
    return text


def same_seed(bench: Bench) -> str:
    """Sample twice with one seed."""
    model = PianoLSTM.load(bench.weights("jsb"), bench.device)
    bars = 2 if bench.quick else 16
    first, second = (generate.sample(model, 7, num_samples=3, bars=bars) for _ in range(2))
    differing = sum(not np.array_equal(a.roll, b.roll) for a, b in zip(first, second, strict=True))
    expect(not differing, f"{differing} of {len(first)} rolls differ")
    return f"the same {len(first)} rolls"


def resumed(bench: Bench) -> str:
    """Compare the losses of 2 + 2 epochs with those of 4."""
    recipe = ["--dropout=0.2", "--attention_window=64", "--relative_pitch"]
    recipe += ["--transpose_prob=0.5", *SHORT, *(TINY if bench.quick else [])]
    whole = bench.train("jsb", "whole", *recipe, "--epochs=4")
    halves = bench.train("jsb", "halves", *recipe, "--epochs=2")
    program.main([f"--resume={halves}", "--epochs=4"])
    one, two = (
        np.array([[float(row[key]) for key in ("train", "valid")] for row in _csv(run, "metrics")])
        for run in (whole, halves)
    )
    expect(one.shape == two.shape == (4, 2), f"{len(one)} and {len(two)} epochs")
    text = f"losses differ by at most {(difference := float(np.abs(one - two).max())):.1e}"
    expect(difference < 1e-3, text)
    return text


# ---- programs ------------------------------------------------------------------------------------


def trained(bench: Bench, name: str, expected: float, *flags: str) -> str:
    """Train with main.py; return its NLLs beside that of the CPU."""
    run = bench.train(name, f"run-{len(flags)}", *flags, *([*TINY, *SHORT] if bench.quick else []))
    if not (run / "times.csv").is_file():
        return "stopped by the budget in the first epoch"
    results, epochs = read_json(run / "results.json"), _csv(run, "times")
    recipe = read_json(run / "settings.json")["settings"]["train"]
    valid, test = results["valid"]["nll"], results["test"]["nll"]
    speed = statistics.median(float(row["frames_per_second"]) for row in epochs)
    text = f"test {test:.3f} (CPU {expected:.3f}), valid {valid:.3f}; {len(epochs)} epochs in"
    text += f" {recipe['precision']}, {speed:,.0f} frames/s beside the other parts"
    if len(epochs) < recipe["epochs"]:
        return f"stopped by the budget, {recipe['epochs']} epochs wanted: {text}"
    expect(bench.quick or abs(test - expected) < SEEDS_DIFFER, text)
    return text


def generated(bench: Bench) -> str:
    """Sample with generate.py."""
    folder = bench.folder / "samples"
    flags = SHORT if bench.quick else ["--num_samples=4"]
    flags = [*flags, "--seed=1", f"--output_dir={folder}", f"--device={bench.device.type}"]
    start = time.perf_counter()
    status = generate.main([str(bench.weights("nottingham")), *flags])
    expect(status == 0, f"generate.py: exit status {status}")
    count = len([*folder.glob("*.mid")])
    return f"{count} MIDI files in {time.perf_counter() - start:.1f} s"


def evaluated(bench: Bench, name: str) -> str:
    """Evaluate pretrained weights with main.py."""
    with redirect_stdout(io.StringIO()) as output:
        program.main([f"--evaluate={bench.weights(name)}", "--json", *bench.flags(name)])
    results = json.loads(output.getvalue())
    test, expected = results["test"]["nll"], PRETRAINED_NLL[name]
    text = f"test {test:.4f} (CPU {expected:.3f})"
    expect(bench.quick or abs(test - expected) < 0.002, text)
    return text


def two_processes(bench: Bench) -> str:
    """Train in two processes on the one device, through torchrun."""
    if bench.quick:
        return "skipped: --quick"
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    # torchrun gives each process a GPU of its own, but there is only one.
    command += ["--nproc_per_node=2", "--no_python", "sh", "-c", 'LOCAL_RANK=0 exec "$0" "$@"']
    command += [sys.executable, str(HOME / "main.py"), *bench.flags("jsb"), *TINY, *SHORT]
    command += ["--epochs=1", f"--run_dir={bench.folder / 'two'}"]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=bench.folder
    )
    try:
        output, _ = process.communicate(timeout=60)
    finally:
        if process.poll() is None:
            process.terminate()  # torchrun then ends its processes
            process.wait()
    print(output)
    if process.returncode == 0:
        return "they train"
    errors = [line for line in output.splitlines() if "Duplicate GPU" in line]
    expect(bool(errors), _last_error(output))
    return f"refused by NCCL: {errors[-1].strip()}"


# ---- speed ---------------------------------------------------------------------------------------


def beside_bare_loop(
    bench: Bench,
    precision: str,
    sizes: dict[str, Any],
    recipe: dict[str, Any] | None = None,
    bare: dict[str, Any] | None = None,
    part: int = 1,
    rounds: int = 3,
) -> str:
    """Train epochs as main.py does and the bare loop, by turns; return the median speeds.

    Args:
        bench: the device.
        precision: number format of both.
        sizes: values of ModelSettings.
        recipe: values of TrainSettings.
        bare: values of ModelSettings for the bare loop.
        part: train on every part-th piece of Nottingham.
        rounds: epochs after the first, which warms up.
    """
    rolls, device = bench.corpus("nottingham").splits["train"], bench.device
    train = RollDataset([rolls[index] for index in range(0, len(rolls), part)])
    torch.manual_seed(1)
    model = new_model(bench.sizes(**sizes))
    settings, peak = TrainSettings(**{**(recipe or {}), "precision": precision}), ""
    ours = our_training(model, settings, train, device)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        ours()
        peak = f"; peak of GPU memory {torch.cuda.max_memory_allocated() / 2**30:.2f} GiB"
    frames = int(train.lengths.sum())
    least = bare_training(bench.sizes(**(bare or {})), precision, frames, device)
    speed, bare_speed = run_by_turns({"ours": ours, "bare loop": least}, rounds).values()
    text = f"{speed:,.0f} frames/s, {speed / bare_speed:.2f} of the bare loop's {bare_speed:,.0f}"
    return text + peak


def _csv(run: Path, name: str) -> list[dict[str, str]]:
    """Return the rows of a table in a run's folder."""
    return [*csv.DictReader((run / f"{name}.csv").read_text(encoding="utf-8").splitlines())]


def _last_error(output: str) -> str:
    """Return the last line of a program's output that names an error, or its last line."""
    lines = [line.strip() for line in output.splitlines() if line.strip()] or ["no output"]
    return next((line for line in reversed(lines) if "Error: " in line), lines[-1])


# ---- the table -----------------------------------------------------------------------------------

# Arguments of `beside_bare_loop`, by the name of the row.
SPEED: dict[str, dict[str, Any]] = {
    "independent Bernoulli outputs": {"sizes": {"latent_size": 0}},
    "chord head": {"sizes": {}},
    "--preset best": {
        "sizes": values_of(PRESET, ModelSettings),
        "recipe": values_of(PRESET, TrainSettings),
        "part": 8,
    },
}
# Each row by its name, in the parts that are processes of their own.
PARTS: dict[str, dict[str, Callable[[Bench], str]]] = {
    "checks": {
        "machine": machine,
        "state carried across chunks, and one pass": chunks_and_one_pass,
        "NLL of pretrained/jsb.safetensors, and on the CPU": nll_and_cpu,
        "sampling twice with one seed": same_seed,
        "2 + 2 epochs with --resume, and 4": resumed,
    },
    "programs": {
        "--evaluate pretrained/nottingham.safetensors": partial(evaluated, name="nottingham"),
        "--evaluate pretrained/jsb.safetensors": partial(evaluated, name="jsb"),
        "generate.py pretrained/nottingham.safetensors": generated,
        "torchrun, two processes on one device": two_processes,
    },
    "default": {
        "main.py": lambda bench: trained(bench, "nottingham", CPU_NLL["default"]),
    },
    "preset": {
        "main.py --preset best --dataset jsb": lambda bench: trained(
            bench, "jsb", CPU_NLL["jsb"], "--preset=best"
        ),
    },
    "full": {
        "main.py --preset best": lambda bench: trained(
            bench, "nottingham", CPU_NLL["nottingham"], "--preset=best"
        ),
    },
    "speed": {
        f"training, {name}, {precision}": partial(beside_bare_loop, precision=precision, **values)
        for precision in ("float32", "bfloat16")
        for name, values in SPEED.items()
    },
    "large": {
        f"training, hidden 2048 x 3, {precision}": partial(
            beside_bare_loop, precision=precision, sizes=LARGE, bare=LARGE, rounds=2
        )
        for precision in ("bfloat16", "float32")
    },
}  # fmt: skip
ALONE = "speed", "large"  # parts that run after the others, one at a time


class Table:
    """Prints rows as they come, and appends them to a file.

    Args:
        path: the file; None = print only.
    """

    def __init__(self, path: Path | None) -> None:
        """Write the heading."""
        self._path, self._lock = path, threading.Lock()
        if path is not None:
            path.write_text("", encoding="utf-8")
        self.write("".join(HEADING))

    def write(self, lines: str) -> None:
        """Write lines of the table."""
        with self._lock:
            sys.stdout.write(lines)
            sys.stdout.flush()
            if self._path is not None:
                with self._path.open("a", encoding="utf-8") as file:
                    file.write(lines)

    def add(self, what: str, result: str, seconds: float) -> None:
        """Write a row."""
        self.write(f"| {what} | {result.replace('|', '/')} | {seconds:.1f} |\n")


@contextmanager
def interrupt_after(seconds: float) -> Iterator[None]:
    """Send SIGINT to this process after so many seconds: training stops, and is evaluated.

    Raises:
        TimeoutError: the block was interrupted, and did not handle it.
    """
    end = time.monotonic() + seconds
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    alarm = signal.signal(signal.SIGALRM, lambda *_: signal.raise_signal(signal.SIGINT))
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    except KeyboardInterrupt:
        if time.monotonic() < end:
            raise
        raise TimeoutError("stopped by the budget") from None
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, alarm)
        signal.signal(signal.SIGINT, before)


def run_here(part: str, bench: Bench, table: Table, end: float) -> bool:
    """Compute the rows of a part in this process; return whether none failed.

    Args:
        part: name of the part.
        bench: what rows need.
        table: where rows go.
        end: the value of `time.monotonic()` at which the budget is spent.
    """
    good = True
    for what, row in PARTS[part].items():
        start = time.monotonic()
        if start >= end:
            table.add(what, "skipped: the budget is spent", 0.0)
            continue
        try:
            with interrupt_after(end - start), redirect_stdout(sys.stderr):
                result = row(bench)
        except (Exception, SystemExit) as error:
            traceback.print_exc()
            last = traceback.format_exception_only(error)[-1].strip().splitlines()[-1]
            result, good = f"FAILED: {last or one_line(error)}", False
        table.add(what, result, time.monotonic() - start)
    return good


def run_apart(part: str, flags: argparse.Namespace, table: Table, end: float) -> bool:
    """Run this script on a part alone, in a process of its own; return whether no row failed."""
    seconds = max(end - time.monotonic(), 0.0)
    command = [sys.executable, __file__, "--only", part, f"--device={flags.device}"]
    command += [f"--budget={seconds}", f"--data_dir={flags.data_dir.resolve()}"]
    # Several parts share the CPU cores.
    threads = str(max((os.cpu_count() or 1) // 4, 1))
    environment = {**os.environ, "OMP_NUM_THREADS": threads}
    log = flags.output and flags.output.with_suffix(f".{part}.log")
    failed, start = False, time.monotonic()
    with (
        log.open("w", encoding="utf-8") if log else nullcontext() as stderr,
        subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=stderr, text=True, env=environment
        ) as process,
    ):
        killer = threading.Timer(seconds + GRACE, process.kill)
        killer.start()
        for line in process.stdout or ():
            if line not in HEADING:
                table.write(line)
                failed = failed or "FAILED" in line
        status = process.wait()
        killer.cancel()
    if status and not failed:
        table.add(part, f"FAILED: exit status {status}", time.monotonic() - start)
    return status == 0


def main(argv: Sequence[str] | None = None) -> int:
    """Compute every row; return 1 if one failed."""
    parser = argparse.ArgumentParser(prog="gpu.py", description=str(__doc__).partition("\n")[0])
    parser.add_argument("--output", type=Path, help="also write the table here; logs go beside it")
    parser.add_argument("--only", nargs="+", choices=PARTS, help="parts to run; default: all")
    parser.add_argument("--full", action="store_true", help="the preset on Nottingham too")
    parser.add_argument("--budget", type=float, default=210, help="seconds in all (default: 210)")
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--quick", action="store_true", help="tiny sizes, noise in place of data")
    parser.add_argument("--data_dir", type=Path, default=Path(DataSettings().data_dir))
    flags = parser.parse_args(argv)
    parts = flags.only or [part for part in PARTS if part != "full" or flags.full]
    end, table = time.monotonic() + flags.budget, Table(flags.output)
    if flags.quick or len(parts) == 1:
        with tempfile.TemporaryDirectory() as name:
            device, folder = torch.device(flags.device), Path(name)
            bench = Bench(device, folder, flags.data_dir.resolve(), flags.quick)
            good = [run_here(part, bench, table, end) for part in parts]
        return 0 if all(good) else 1
    together = [part for part in parts if part not in ALONE]
    alone = [part for part in parts if part in ALONE]
    end_together = end - ALONE_SECONDS if alone else end
    with ThreadPoolExecutor(len(PARTS)) as pool:
        good = [*pool.map(lambda part: run_apart(part, flags, table, end_together), together)]
    good += [run_apart(part, flags, table, end) for part in alone]
    return 0 if all(good) else 1


if __name__ == "__main__":
    sys.exit(main())
