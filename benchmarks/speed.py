"""How fast is it, beside the least that the same arithmetic takes, and beside the original's way?

    python benchmarks/speed.py                     every row; some minutes on 2 idle CPU cores
    python benchmarks/speed.py --only train        the rows of these names alone
    python benchmarks/speed.py --json              for machines
    python benchmarks/speed.py --device cuda       on a GPU

Everything is measured in one run, what is compared in turns, and of several rounds the median
counts: on another machine frames per second are others, ratios hardly. Nothing else should run
meanwhile. The exit status is 1 if a target is missed.

The bare loop is what the default recipe can't do without: Linear, LSTM, Linear, binary
cross-entropy, Adam on one fixed batch of noise; for sampling, the same layers and one Bernoulli
draw a frame. It reads no data, pads nothing, clips nothing, logs nothing.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import pretty_midi
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import corpora
from data import RollDataset
from files import run_program
from flags import Parser
from groups import Group
from machine import choose_precision, use_machine
from midi import roll_to_midi
from model import FEW, PianoLSTM
from presets import PRESETS
from sampling import generators_of, sample, sensible_threads
from settings import DataSettings, K, MachineSettings, ModelSettings, TrainSettings
from train import Trainer

HOME = Path(__file__).resolve().parent.parent
RECIPE, SIZES = TrainSettings(), ModelSettings()
HEADS = {"independent keys": ModelSettings(latent_size=0), "chord head": SIZES}
PARTS = "train", "sample", "start", "memory", "original"
STREAMS = {1: 1500, 16: 800, 64: 400, 256: 150}  # tunes side by side: frames of each


@dataclass(frozen=True)
class Row:
    """One line of the table: what was measured, and what it is held to."""

    name: str
    value: float
    unit: str
    ratio: float | None = None  # to the row it is compared with
    beside: str = ""
    at_least: float | None = None  # of the ratio, or of the value if there is none
    at_most: float | None = None
    remark: str = ""

    @property
    def met(self) -> bool | None:
        """Whether the target is met; None without one."""
        value = self.value if self.ratio is None else self.ratio
        if self.at_least is not None:
            return value >= self.at_least
        return None if self.at_most is None else value <= self.at_most

    def cells(self) -> list[str]:
        """Return the row as the table has it."""
        target = "" if self.at_least is None else f"at least {self.at_least:g}"
        target = target if self.at_most is None else f"at most {self.at_most:g}"
        met = {True: "yes", False: "NO", None: ""}[self.met]
        value = f"{self.value:,.{0 if self.value >= 100 else 2}f} {self.unit}"
        ratio = "" if self.ratio is None else f"{self.ratio:.2f} of {self.beside}"
        return [self.name, value, ratio, target, met, self.remark]


def in_turns(runs: dict[str, Callable[[], float]], rounds: int) -> dict[str, float]:
    """Run each by turns, once to warm up and then `rounds` times; return the medians."""
    speeds: dict[str, list[float]] = {name: [] for name in runs}
    for number in range(rounds + 1):
        for name, run in runs.items():
            print(f"\r{name:60}", end="", file=sys.stderr, flush=True)
            speed = run()
            if number:
                speeds[name].append(speed)
    print("\r", end="", file=sys.stderr)
    return {name: statistics.median(values) for name, values in speeds.items()}


# ---- training ------------------------------------------------------------------------------------


class Bare(nn.Module):
    """The layers of the default recipe with independent keys, and nothing else."""

    def __init__(self, sizes: ModelSettings) -> None:
        """Make the layers."""
        super().__init__()
        self.embedding = nn.Linear(K, sizes.embed_size)
        self.lstm = nn.LSTM(sizes.embed_size, sizes.hidden_size, sizes.layers, batch_first=True)
        self.logits = nn.Linear(sizes.hidden_size, K)

    def forward(
        self, frames: Tensor, state: tuple[Tensor, Tensor] | None = None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Return logits (B, T, K) and the state, given frames (B, T, K)."""
        hidden, state = self.lstm(self.embedding(frames), state)
        return self.logits(hidden), state


def bare_training(
    sizes: ModelSettings, precision: str, frames: int, device: torch.device
) -> Callable[[], float]:
    """Return what trains the bare loop on about so many frames, and gives frames per second."""
    model, noise = Bare(sizes).to(device), torch.rand(RECIPE.batch_size, RECIPE.bptt + 1, K)
    batch = (noise < 0.05).float().to(device)
    optimizer = torch.optim.Adam(model.parameters(), lr=RECIPE.lr)
    size = RECIPE.batch_size * RECIPE.bptt

    def run() -> float:
        began, steps = time.perf_counter(), max(frames // size, 1)
        loss = torch.zeros(())
        for _ in range(steps):
            with torch.autocast(
                device.type, torch.bfloat16, precision == "bfloat16", cache_enabled=False
            ):
                logits, _ = model(batch[:, :-1])
                loss = functional.binary_cross_entropy_with_logits(logits, batch[:, 1:])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        loss.item()  # a GPU is done only then
        return steps * size / (time.perf_counter() - began)

    return run


def new_model(sizes: ModelSettings) -> PianoLSTM:
    """Return a model that expects three to four notes a frame, and knows nothing else."""
    model = PianoLSTM(sizes)
    model.head.set_marginals(torch.full((K,), 0.04))
    return model


def our_training(
    model: PianoLSTM, recipe: TrainSettings, dataset: RollDataset, device: torch.device
) -> Callable[[], float]:
    """Return what trains an epoch as main.py does, without scoring, and gives frames per second."""
    trainer = Trainer(model.to(device), dataset, lambda _: 0.0, recipe, 1, device, Path(), {})
    epoch = iter(range(1, 10**6))
    return lambda: trainer.epoch(next(epoch)).frames_per_second


def chosen(preset: dict[str, Any], group: type[Group]) -> dict[str, Any]:
    """Return the values of a preset that are settings of this group."""
    return {field.name: preset[field.name] for field in fields(group) if field.name in preset}


def training(
    train: Sequence[np.ndarray], rounds: int, device: torch.device, large: ModelSettings | None
) -> Iterator[Row]:
    """Compare epochs with the bare loop: both heads, both precisions, the preset."""
    whole, eighth = RollDataset(train), RollDataset([train[i] for i in range(0, len(train), 8)])
    runs, frames = {}, int(whole.lengths.sum())
    preset = PRESETS["best"](frames)
    best = new_model(ModelSettings(**chosen(preset, ModelSettings)))
    best_recipe = TrainSettings(**chosen(preset, TrainSettings))
    heads = HEADS | ({"chord head, large": large} if large else {})
    for precision in ("float32", "bfloat16"):
        recipe = TrainSettings(precision=precision)
        runs[f"bare loop, {precision}"] = bare_training(SIZES, precision, frames, device)
        if large:
            runs[f"bare loop, large, {precision}"] = bare_training(large, precision, frames, device)
        for name, sizes in heads.items():
            runs[f"{name}, {precision}"] = our_training(new_model(sizes), recipe, whole, device)
    runs["--preset best, float32"] = our_training(best, best_recipe, eighth, device)
    speeds = in_turns(runs, rounds)
    has_units, on_cpu = choose_precision("auto", device) == "bfloat16", device.type == "cpu"
    targets = {
        "independent keys, float32": 0.9 if on_cpu else 0.7,
        "chord head, float32": 0.65 if on_cpu else 0.7,
        "chord head, bfloat16": 1.2 if on_cpu and has_units else None,
        "chord head, large, float32": 0.7,
    }
    for name, speed in speeds.items():
        beside = "bare loop, large, float32" if "large" in name else "bare loop, float32"
        bare = name.startswith("bare loop") and name.endswith("float32")
        remark = "" if has_units or "bfloat16" not in name else "no matrix units for bfloat16 here"
        yield Row(
            f"train: {name}", speed, "frames/s", None if bare else speed / speeds[beside],
            beside, None if bare else targets.get(name), remark=remark,
        )  # fmt: skip


# ---- sampling ------------------------------------------------------------------------------------


def bare_sampling(streams: int, frames: int, device: torch.device) -> Callable[[], float]:
    """Return what draws frames from the bare layers, step by step, and gives frames per second."""
    model = Bare(SIZES).eval().to(device)

    @torch.inference_mode()
    def run() -> float:
        began = time.perf_counter()
        frame, state = torch.zeros(streams, 1, K, device=device), None
        # It is to have the same advantages as ours.
        before, *_ = torch.backends.mkldnn.set_flags(False if streams <= FEW else None)
        with sensible_threads(streams):
            for _ in range(frames):
                logits, state = model(frame, state)
                frame = torch.bernoulli(torch.sigmoid(logits))
        torch.backends.mkldnn.set_flags(before)
        frame.sum().item()
        return streams * frames / (time.perf_counter() - began)

    return run


def our_sampling(model: PianoLSTM, streams: int, frames: int) -> Callable[[], float]:
    """Return what draws tunes as generate.py does, and gives frames per second."""

    def run() -> float:
        began = time.perf_counter()
        sample(model, frames, generators_of(1, streams))
        return streams * frames / (time.perf_counter() - began)

    return run


def sampling(train: Sequence[np.ndarray], rounds: int, device: torch.device) -> Iterator[Row]:
    """Compare drawing tunes, one and many side by side, with the bare steps.

    A chord takes as long as it has notes: an epoch teaches the model how many there are.
    """
    on_cpu = {1: (0.85, 0.4), 64: (0.85, 0.5)} if device.type == "cpu" else {}
    targets = {streams: on_cpu.get(streams, (None, None)) for streams in STREAMS}
    models = {name: new_model(sizes) for name, sizes in HEADS.items()}
    for model in models.values():
        our_training(model, RECIPE, RollDataset(train), device)()
        model.eval()
    for streams, count in STREAMS.items():
        runs = {"bare": bare_sampling(streams, count, device)}
        runs |= {name: our_sampling(model, streams, count) for name, model in models.items()}
        bare, *speeds = in_turns(runs, rounds).values()
        yield Row(f"sample {streams}: bare steps", bare, "frames/s")
        for name, speed, target in zip(models, speeds, targets[streams], strict=True):
            yield Row(
                f"sample {streams}: {name}", speed, "frames/s", speed / bare, "bare steps", target
            )


# ---- whole commands ------------------------------------------------------------------------------

# Runs a command and tells its peak memory, from a small process: what a process took before it
# became another program counts too.
PEAK = """
import resource, subprocess, sys
subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""
FIRST_STEP = """
import os, sys, time
import torch
print(time.time(), flush=True)
def step(self, closure=None):
    print(time.time(), flush=True)
    os._exit(0)
torch.optim.Adam.step = step
import main
main.main(sys.argv[1:])
"""


def start(data_dir: str, rounds: int, device: torch.device) -> Iterator[Row]:
    """Time main.py to its first optimizer step, the data being parsed, and found parsed."""
    times: dict[str, list[float]] = {"import torch": [], "data parsed": [], "data cached": []}
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, "-c", FIRST_STEP, f"--data_dir={Path(data_dir).resolve()}"]
            for name in ("data parsed", "data cached"):
                words = [*command, f"--run_dir={name}", f"--device={device.type}"]
                environment, began = {**os.environ, "PYTHONPATH": str(HOME)}, time.time()
                lines = subprocess.run(
                    words, cwd=folder, env=environment, check=True, capture_output=True, text=True
                ).stdout.splitlines()
                times["import torch"].append(float(lines[0]) - began)
                times[name].append(float(lines[-1]) - began)
    for name, most in zip(times, (None, None, 3.5), strict=True):
        yield Row(f"start: {name}", statistics.median(times[name]), "s", at_most=most)


def memory(data_dir: str, device: torch.device) -> Iterator[Row]:
    """Measure the peak memory of the default run, one epoch of it, scored and played."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-c", PEAK, sys.executable, str(HOME / "main.py"), "--epochs=1"]
        command += [f"--data_dir={data_dir}", f"--run_dir={folder}/run", f"--device={device.type}"]
        peak = int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    kib = peak / (1024 if sys.platform == "darwin" else 1)  # macOS counts bytes
    yield Row("memory: peak of the default run", kib / 1024, "MiB", at_most=700)


# ---- the original's way --------------------------------------------------------------------------


class ParsedEachTime(Dataset[Tensor]):
    """Tunes as MIDI files, each parsed whenever it is asked for, as the original has them."""

    def __init__(self, files: list[Path]) -> None:
        """Take the files."""
        self.files = files

    def __len__(self) -> int:
        """Return the number of tunes."""
        return len(self.files)

    def __getitem__(self, i: int) -> Tensor:
        """Return tune i, (T, 88) float32."""
        midi = pretty_midi.PrettyMIDI(str(self.files[i]))
        return torch.from_numpy(midi.get_piano_roll(fs=4)[21:109].T > 0).float()


def original(train: Sequence[np.ndarray], device: torch.device) -> Iterator[Row]:
    """Compare an epoch with one of the original's way: whole tunes, padded to the longest."""
    dataset = RollDataset(train)
    ours = our_training(new_model(HEADS["independent keys"]), RECIPE, dataset, device)
    ours()
    longest, model = int(dataset.lengths.max()), Bare(SIZES).to(device)
    optimizer = torch.optim.Adam(model.parameters(), lr=RECIPE.lr)
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder, f"{i}.mid") for i in range(len(train))]
        for roll, file in zip(train, files, strict=True):
            roll_to_midi(roll, 0.5).write(str(file))
        loader = DataLoader(
            ParsedEachTime(files), RECIPE.batch_size, shuffle=True,
            collate_fn=lambda tunes: torch.stack(
                [functional.pad(tune, (0, 0, 0, longest - len(tune))) for tune in tunes]
            ),
        )  # fmt: skip
        began = time.perf_counter()
        for batch in loader:
            logits, _ = model(batch[:, :-1].to(device))
            loss = functional.binary_cross_entropy_with_logits(logits, batch[:, 1:].to(device))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        theirs = int(dataset.lengths.sum()) / (time.perf_counter() - began)
    yield Row("original: its way of batching", theirs, "frames/s")
    speed = ours()
    yield Row("original: ours", speed, "frames/s", speed / theirs, "it", at_least=20)


# ---- the table -----------------------------------------------------------------------------------


def main(argv: list[str] | None = None) -> int:
    """Measure, print the table, return 1 if a target is missed."""
    parser = Parser(prog="speed.py", description="Measure speed beside the least that is needed.")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--rounds", type=int, default=5, help="the median of how many (default: 5)")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads; 0 = PyTorch's choice")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda", "mps"))
    parser.add_argument("--large", action="store_true", help="3 layers of 2048 too, for GPUs")
    parser.add_argument("--data_dir", default=DataSettings().data_dir, help="where Nottingham is")
    parser.add_argument("--json", action="store_true", help="print JSON, no table")
    flags = parser.parse_args(argv)
    device = use_machine(MachineSettings(flags.device, flags.threads))
    train = corpora.load(DataSettings(data_dir=flags.data_dir), named=True).splits["train"]
    large = ModelSettings(hidden_size=2048, layers=3) if flags.large else None
    parts = {
        "train": lambda: training(train, flags.rounds, device, large),
        "sample": lambda: sampling(train, flags.rounds, device),
        "start": lambda: start(flags.data_dir, flags.rounds, device),
        "memory": lambda: memory(flags.data_dir, device),
        "original": lambda: original(train, device),
    }
    rows = [row for name in flags.only for row in parts[name]()]
    if flags.json:
        print(json.dumps([{**asdict(row), "met": row.met} for row in rows], indent=2))
    else:
        print("| what | speed | beside it | target | met | |")
        print("| --- | --- | --- | --- | --- | --- |")
        for row in rows:
            print(f"| {' | '.join(row.cells())} |")
    return 1 if any(row.met is False for row in rows) else 0


if __name__ == "__main__":
    run_program(main)
