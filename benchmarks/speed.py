"""How fast is the program, compared with the least work possible and with the original's way?

    python benchmarks/speed.py                     all rows; four minutes on two idle CPU cores
    python benchmarks/speed.py --only train        only the rows of this part
    python benchmarks/speed.py --json              as JSON
    python benchmarks/speed.py --device cuda       on a GPU

What is compared is run by turns of a second or less, and the median of several rounds counts:
another machine has other frames per second but nearly the same ratios. An epoch is one of a sample
of Nottingham with the same mixture of lengths and with full batches. Nothing else should run on the
machine. The exit
status is 1 if a target is missed.

The bare loop is the least that the default recipe needs: Linear, LSTM, Linear, binary
cross-entropy, and Adam on one fixed batch of noise; for sampling, the same layers and one Bernoulli
sample a frame. It reads no data, pads nothing, clips nothing and logs nothing.
"""

import json
import math
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pretty_midi
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset

sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from measured_run import measure

from data import RollDataset, load
from generate import sample_rolls
from model import PianoLSTM, build_model
from pianolstm.cli import Parser, SettingsGroup
from pianolstm.midi import roll_to_midi
from pianolstm.rolls import LOWEST_PITCH, PITCHES
from pianolstm.runtime import (
    choose_device,
    choose_precision,
    make_generators,
    run_script,
    sampling_threads,
)
from settings import DataSettings, ModelSettings, TrainSettings, best_preset
from train import Trainer

RECIPE, SIZES = TrainSettings(), ModelSettings()
HEADS = {"Bernoulli outputs": ModelSettings(latent_size=0), "chord head": SIZES}
PARTS = "train", "sample", "start", "memory", "original"
PIECES = {1: 600, 16: 300, 64: 150, 256: 50}  # pieces side by side: frames of each
BATCHES = 4  # of the sample of the training split
STARTS = 3  # of the whole command; it varies little
FEW_PIECES = 16  # up to so many, model.py computes the LSTM without oneDNN


@dataclass(frozen=True)
class Row:
    """A row of the table: a measurement and its target."""

    name: str
    value: float
    unit: str
    ratio: float | None = None  # to the row that it is compared with
    reference: str = ""  # name of that row
    at_least: float | None = None  # target for the ratio or, without one, for the value
    at_most: float | None = None
    remark: str = ""

    @property
    def met(self) -> bool | None:
        """Whether the target is met; None without a target."""
        value = self.value if self.ratio is None else self.ratio
        if self.at_least is not None:
            return value >= self.at_least
        return None if self.at_most is None else value <= self.at_most

    def cells(self) -> list[str]:
        """Return the cells of the table."""
        target = "" if self.at_least is None else f"at least {self.at_least:g}"
        target = target if self.at_most is None else f"at most {self.at_most:g}"
        met = {True: "yes", False: "NO", None: ""}[self.met]
        value = f"{self.value:,.{0 if self.value >= 100 else 2}f} {self.unit}"
        ratio = "" if self.ratio is None else f"{self.ratio:.2f} of {self.reference}"
        return [self.name, value, ratio, target, met, self.remark]


def run_by_turns(runs: dict[str, Callable[[], float]], rounds: int) -> dict[str, float]:
    """Call each by turns, once to warm up and then `rounds` times; return the median of each."""
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
    """The layers of the default recipe with independent Bernoulli outputs, and nothing else."""

    def __init__(self, sizes: ModelSettings) -> None:
        """Make the layers."""
        super().__init__()
        self.embedding = nn.Linear(PITCHES, sizes.embed_size)
        self.lstm = nn.LSTM(sizes.embed_size, sizes.hidden_size, sizes.layers, batch_first=True)
        self.logits = nn.Linear(sizes.hidden_size, PITCHES)

    def forward(
        self, frames: Tensor, state: tuple[Tensor, Tensor] | None = None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Return logits, (B, T, P), and the state, given frames, (B, T, P)."""
        hidden, state = self.lstm(self.embedding(frames), state)
        return self.logits(hidden), state


def bare_training(
    sizes: ModelSettings, precision: str, frames: int, device: torch.device
) -> Callable[[], float]:
    """Return a function that trains the bare loop and returns its frames per second.

    Args:
        sizes: of the layers.
        precision: "float32" or "bfloat16".
        frames: about how many it trains on.
        device: where.
    """
    model = Bare(sizes).to(device)
    noise = torch.rand(RECIPE.batch_size, RECIPE.bptt + 1, PITCHES)
    batch = (noise < 0.05).float().to(device)
    optimizer = torch.optim.Adam(model.parameters(), lr=RECIPE.lr)
    size = RECIPE.batch_size * RECIPE.bptt

    def run() -> float:
        start, steps = time.perf_counter(), max(frames // size, 1)
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
        loss.item()  # waits for a GPU
        return steps * size / (time.perf_counter() - start)

    return run


def new_model(sizes: ModelSettings) -> PianoLSTM:
    """Return a model initialised for three to four notes a frame."""
    model = build_model(sizes)
    model.head.set_unigram(torch.full((PITCHES,), 0.04))
    return model


def our_training(
    model: PianoLSTM, recipe: TrainSettings, dataset: RollDataset, device: torch.device
) -> Callable[[], float]:
    """Return a function that trains an epoch as main.py does and returns its frames per second."""
    trainer = Trainer(model.to(device), dataset, lambda _: 0.0, recipe, 1, device, Path(), {})
    numbers = iter(range(1, 10**6))
    # Not `fit`, which also writes the run's files.
    return lambda: trainer._run_epoch(next(numbers)).frames_per_second


def values_of(preset: dict[str, Any], group: type[SettingsGroup]) -> dict[str, Any]:
    """Return the values of a preset that are settings of this group."""
    return {field.name: preset[field.name] for field in fields(group) if field.name in preset}


def every_length(rolls: Sequence[np.ndarray], batch_size: int) -> RollDataset:
    """Return `BATCHES` full batches of pieces of like length, from the longest to the shortest."""
    order = np.argsort([-len(roll) for roll in rolls], kind="stable")
    full = len(rolls) // batch_size
    numbers = [(2 * i + 1) * full // (2 * BATCHES) for i in range(BATCHES)] if full else [0]
    chosen = [order[number * batch_size : (number + 1) * batch_size] for number in numbers]
    return RollDataset([rolls[i] for i in np.concatenate(chosen)])


def training(
    train: Sequence[np.ndarray], rounds: int, device: torch.device, large: ModelSettings | None
) -> Iterator[Row]:
    """Compare epochs with the bare loop: both heads and --preset best, in both precisions."""
    sample = every_length(train, RECIPE.batch_size)
    preset = best_preset(sum(map(len, train)))
    best = ModelSettings(**values_of(preset, ModelSettings))
    best_recipe = TrainSettings(**values_of(preset, TrainSettings))
    best_sample = every_length(train, best_recipe.batch_size)
    runs, frames = {}, int(sample.lengths.sum())
    heads = HEADS | ({"chord head, large": large} if large else {})
    for precision in ("float32", "bfloat16"):
        recipe = TrainSettings(precision=precision)
        runs[f"bare loop, {precision}"] = bare_training(SIZES, precision, frames, device)
        if large:
            runs[f"bare loop, large, {precision}"] = bare_training(large, precision, frames, device)
        for name, sizes in heads.items():
            runs[f"{name}, {precision}"] = our_training(new_model(sizes), recipe, sample, device)
        runs[f"--preset best, {precision}"] = our_training(
            new_model(best), replace(best_recipe, precision=precision), best_sample, device
        )
    speeds = run_by_turns(runs, rounds)
    fast_bfloat16, on_cpu = choose_precision("auto", device) == "bfloat16", device.type == "cpu"
    targets = {
        "Bernoulli outputs, float32": 0.92 if on_cpu else 0.7,
        "chord head, float32": 0.7,
        "chord head, bfloat16": 0.95 if on_cpu and fast_bfloat16 else None,
        "chord head, large, float32": 0.7,
        "--preset best, bfloat16": 0.17 if on_cpu and fast_bfloat16 else None,
    }
    for name, speed in speeds.items():
        reference = "bare loop, large, float32" if "large" in name else "bare loop, float32"
        bare = name.startswith("bare loop") and name.endswith("float32")
        remark = "" if fast_bfloat16 or "bfloat16" not in name else "auto takes float32 here"
        yield Row(
            f"train: {name}", speed, "frames/s", None if bare else speed / speeds[reference],
            reference, None if bare else targets.get(name), remark=remark,
        )  # fmt: skip


# ---- sampling ------------------------------------------------------------------------------------


def bare_sampling(pieces: int, frames: int, device: torch.device) -> Callable[[], float]:
    """Return a function that samples from the bare layers and returns its frames per second."""
    model = Bare(SIZES).eval().to(device)

    @torch.inference_mode()
    def run() -> float:
        start = time.perf_counter()
        frame, state = torch.zeros(pieces, 1, PITCHES, device=device), None
        # The same advantages as the model has: no oneDNN and one thread for a few pieces.
        before, *_ = torch.backends.mkldnn.set_flags(False if pieces <= FEW_PIECES else None)
        with sampling_threads(pieces):
            for _ in range(frames):
                logits, state = model(frame, state)
                frame = torch.bernoulli(torch.sigmoid(logits))
        torch.backends.mkldnn.set_flags(before)
        frame.sum().item()
        return pieces * frames / (time.perf_counter() - start)

    return run


def our_sampling(model: PianoLSTM, pieces: int, frames: int) -> Callable[[], float]:
    """Return a function that samples as generate.py does and returns its frames per second."""

    def run() -> float:
        start = time.perf_counter()
        sample_rolls(model, frames, make_generators(1, pieces))
        return pieces * frames / (time.perf_counter() - start)

    return run


def sampling(train: Sequence[np.ndarray], rounds: int, device: torch.device) -> Iterator[Row]:
    """Compare sampling one piece, and many side by side, with the bare layers.

    The time of the chord head depends on the number of notes in a frame. So the model is trained
    for an epoch, after which it samples as many notes as real music has.
    """
    on_cpu = {1: (0.85, 0.4), 64: (0.85, 0.55)} if device.type == "cpu" else {}
    targets = {pieces: on_cpu.get(pieces, (None, None)) for pieces in PIECES}
    models = {name: new_model(sizes) for name, sizes in HEADS.items()}
    for model in models.values():
        our_training(model, RECIPE, RollDataset(train), device)()
        model.eval()
    for pieces, frames in PIECES.items():
        runs = {"bare": bare_sampling(pieces, frames, device)}
        runs |= {name: our_sampling(model, pieces, frames) for name, model in models.items()}
        bare, *speeds = run_by_turns(runs, rounds).values()
        yield Row(f"sample {pieces}: bare layers", bare, "frames/s")
        for name, speed, target in zip(models, speeds, targets[pieces], strict=True):
            yield Row(
                f"sample {pieces}: {name}", speed, "frames/s", speed / bare, "bare layers", target
            )


# ---- whole commands ------------------------------------------------------------------------------


def start(data_dir: str, rounds: int, device: torch.device) -> Iterator[Row]:
    """Time main.py to its first optimizer step, without and with the data in the cache."""
    times: dict[str, list[float]] = {"import torch": [], "data parsed": [], "data cached": []}
    for _ in range(min(rounds, STARTS)):
        with tempfile.TemporaryDirectory() as folder:
            for name in ("data parsed", "data cached"):
                flags = [f"--data_dir={Path(data_dir).resolve()}", f"--device={device.type}"]
                measured = measure([*flags, f"--run_dir={name}"], 0, Path(folder))
                times["import torch"].append(measured["torch"])
                times[name].append(measured["first_step"])
    for name, most in zip(times, (None, None, 3.5), strict=True):
        yield Row(f"start: {name}", statistics.median(times[name]), "s", at_most=most)


def memory(data_dir: str, device: torch.device) -> Iterator[Row]:
    """Measure the peak of RAM of the default run, with one epoch, evaluation and samples."""
    flags = [f"--data_dir={Path(data_dir).resolve()}", f"--device={device.type}", "--epochs=1"]
    with tempfile.TemporaryDirectory() as folder:
        measured = measure([*flags, "--run_dir=run"], math.inf, Path(folder))
    yield Row("memory: peak of the default run", measured["peak_mib"], "MiB", at_most=700)


# ---- the original's way --------------------------------------------------------------------------


class ParsedEachTime(Dataset[Tensor]):
    """Pieces as MIDI files, parsed whenever one is read, as in the original."""

    def __init__(self, files: list[Path]) -> None:
        """Take the files."""
        self.files = files

    def __len__(self) -> int:
        """Return the number of pieces."""
        return len(self.files)

    def __getitem__(self, i: int) -> Tensor:
        """Return piece i, (T, 88) float32."""
        midi = pretty_midi.PrettyMIDI(str(self.files[i]))
        return torch.from_numpy(
            midi.get_piano_roll(fs=4)[LOWEST_PITCH : LOWEST_PITCH + PITCHES].T > 0
        ).float()


def original(train: Sequence[np.ndarray], device: torch.device) -> Iterator[Row]:
    """Compare an epoch with one in the original's way: whole pieces, padded to the longest."""
    dataset = every_length(train, RECIPE.batch_size)
    ours = our_training(new_model(HEADS["Bernoulli outputs"]), RECIPE, dataset, device)
    ours()
    longest, model = max(map(len, train)), Bare(SIZES).to(device)
    optimizer = torch.optim.Adam(model.parameters(), lr=RECIPE.lr)
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder, f"{i}.mid") for i in range(len(dataset))]
        for roll, file in zip(dataset.rolls, files, strict=True):
            roll_to_midi(roll, 0.5).write(str(file))
        loader = DataLoader(
            ParsedEachTime(files), RECIPE.batch_size, shuffle=True,
            collate_fn=lambda pieces: torch.stack(
                [functional.pad(piece, (0, 0, 0, longest - len(piece))) for piece in pieces]
            ),
        )  # fmt: skip
        start = time.perf_counter()
        for batch in loader:
            logits, _ = model(batch[:, :-1].to(device))
            loss = functional.binary_cross_entropy_with_logits(logits, batch[:, 1:].to(device))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        theirs = int(dataset.lengths.sum()) / (time.perf_counter() - start)
    yield Row("original: its way of batching", theirs, "frames/s")
    speed = ours()
    reference = "its way of batching"
    yield Row("original: ours", speed, "frames/s", speed / theirs, reference, at_least=20)


# ---- the table -----------------------------------------------------------------------------------


def main(argv: list[str] | None = None) -> int:
    """Measure and print the table; return 1 if a target is missed."""
    parser = Parser(prog="speed.py", description="Compare speed with the least work possible.")
    parser.add_argument(
        "--only", nargs="+", choices=PARTS, default=PARTS, help="parts of the table"
    )
    parser.add_argument(
        "--rounds", type=int, default=9, help="of which the median counts (default: 9)"
    )
    parser.add_argument("--threads", type=int, default=0, help="CPU threads; 0 = one per core")
    parser.add_argument(
        "--device", default="cpu", choices=("cpu", "cuda", "mps"), help="(default: cpu)"
    )
    parser.add_argument(
        "--large", action="store_true", help="also measure 3 layers of 2048, for GPUs"
    )
    parser.add_argument("--data_dir", default=DataSettings().data_dir, help="folder of Nottingham")
    parser.add_argument("--json", action="store_true", help="print JSON instead of the table")
    flags = parser.parse_args(argv)
    device = choose_device(flags.device, flags.threads)
    train = load(DataSettings(data_dir=flags.data_dir), named=True).splits["train"]
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
        print("| what | speed | ratio | target | met | |")
        print("| --- | --- | --- | --- | --- | --- |")
        for row in rows:
            print(f"| {' | '.join(row.cells())} |")
    return 1 if any(row.met is False for row in rows) else 0


if __name__ == "__main__":
    run_script(main)
