"""The training loop, to be read from top to bottom.

The loss is the negative log-likelihood (NLL) in nats per frame, all 88 keys of a frame together.
"""

import csv
import gc
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from tqdm import tqdm

from checkpoint import Record, load_state, save_model, save_state
from data import Batch, Chunk, RollDataset, chunks, in_groups, length_groups, share_of, transposed
from distributed import ALONE, World
from files import InputError, whole_file
from model import PianoLSTM, State, first_rows
from settings import TrainSettings

REDRAW_SECONDS = 10  # between two drawings of the losses; one takes a quarter of a second
NAMED = 8  # tunes of a batch that diverged


class DivergedError(Exception):
    """The loss is no number any more; the best weights so far are on disk."""


def no_pause() -> None:
    """Go on."""


@contextmanager
def between_steps() -> Iterator[Callable[[], None]]:
    """Hold Ctrl-C and SIGTERM back until the program says that it suits; give what says so.

    What ends a program in the midst of things can leave an epoch half counted, and is lost while
    Python clears up. A second one does not wait.
    """
    if threading.current_thread() is not threading.main_thread():
        yield no_pause  # only the main thread gets signals
        return
    usual: dict[int, Any] = {s: signal.getsignal(s) for s in (signal.SIGTERM, signal.SIGINT)}
    asked: set[int] = set()

    def ask(number: int, _: object) -> None:
        asked.add(number)
        signal.signal(number, usual[number])

    def pause() -> None:
        for stop in usual:  # the harder one first; what is ignored changes nothing
            if stop in asked:
                asked.remove(stop)
                signal.raise_signal(stop)

    try:
        for stop in usual:
            signal.signal(stop, ask)
        yield pause
    finally:
        for stop, handler in usual.items():
            signal.signal(stop, handler)
    pause()


@dataclass(frozen=True)
class Epoch:
    """One line of metrics.csv and of times.csv."""

    epoch: int
    train: float  # NLL while training, dropout and all, first frames scored
    valid: float  # NLL, first frames not scored
    seconds: float  # training alone
    frames_per_second: float


def best_of(history: Sequence[Epoch]) -> Epoch:
    """Return the epoch of the lowest valid NLL, the first of several."""
    return min(history, key=lambda epoch: epoch.valid)


def describe(epoch: Epoch) -> str:
    """Return a line for the person who watches."""
    return (
        f"epoch {epoch.epoch:3d}   train {epoch.train:6.3f}   valid {epoch.valid:6.3f} nats/frame"
        f"   {epoch.seconds:5.1f} s   {epoch.frames_per_second:7,.0f} frames/s"
    )


def count_epochs(settings: TrainSettings, lengths: np.ndarray) -> int:
    """Return how many epochs to train: the settings' own, or those that make up its steps.

    Args:
        settings: the recipe.
        lengths: (N,) frames of each training tune.
    """
    if not settings.steps:
        return settings.epochs
    groups = length_groups(lengths, settings.batch_size, None)
    longest = [int(lengths[group].max()) for group in groups]
    steps = sum(math.ceil(length / (settings.bptt or length)) for length in longest)
    return max(1, round(settings.steps / steps))


def learning_rate(settings: TrainSettings, progress: float) -> float:
    """Return the learning rate when this share of training, 0 to 1, is done.

    Without warm-up it is constant. With, it is one cycle of half cosines (Smith and Topin 2018,
    arXiv:1708.07120): from 0 up to `lr` and back.
    """
    warmup = settings.warmup
    if not warmup:
        return settings.lr
    rising = progress / warmup if progress < warmup else (1 - progress) / (1 - warmup)
    return settings.lr * (1 - math.cos(math.pi * rising)) / 2


class Objective(nn.Module):
    """The NLL of a chunk, (F,) in nats, and the state after it: all of a step but the gradient.

    One module, since DistributedDataParallel wants to be called once for each gradient.
    """

    def __init__(self, model: PianoLSTM) -> None:
        """Take the model."""
        super().__init__()
        self.model = model

    def forward(self, chunk: Chunk, state: State | None, shift: Tensor) -> tuple[Tensor, State]:
        """Read a chunk after the state, its tunes having been moved by `shift`, (B,)."""
        rows = len(chunk.inputs)
        hidden, state = self.model(chunk.inputs, first_rows(state, rows), shift[:rows])
        # Padding is scored with the rest and left out then: to pick the vectors first takes longer.
        nll = self.model.head.nll(hidden.flatten(0, 1), chunk.targets.flatten(0, 1))
        return nll[chunk.scored.flatten()], state


class Trainer:
    """Trains a model, keeping the best weights by valid NLL in the run's folder.

    All randomness of an epoch is drawn from (seed, epoch), so that a run that was stopped and goes
    on is the run that never stopped.

    Args:
        model: freshly made.
        train: the training split.
        validate: returns the valid NLL of a model.
        settings: the recipe.
        seed: number that all randomness is drawn from.
        device: where the model is.
        folder: the run's folder.
        record: what to write into the weights file besides the model's settings.
        draw: draws the history; called now and then, for whoever looks on.
        world: the processes that train together; each is given all tunes, and takes its share.
    """

    def __init__(
        self,
        model: PianoLSTM,
        train: RollDataset,
        validate: Callable[[PianoLSTM], float],
        settings: TrainSettings,
        seed: int,
        device: torch.device,
        folder: Path,
        record: Record,
        draw: Callable[[Sequence[Epoch]], None] = lambda history: None,
        world: World = ALONE,
    ) -> None:
        """Take the parts; nothing is computed yet."""
        self.model, self.train, self.validate = model, train, validate
        self.settings, self.seed, self.device = settings, seed, device
        self.folder, self.record, self.draw, self.world = folder, record, draw, world
        self.drawn_at = -math.inf  # seconds
        self.optimizer = torch.optim.Adam(model.parameters(), lr=settings.lr, fused=True)
        self.objective: nn.Module = Objective(model)
        if world.size > 1:
            self.objective = DistributedDataParallel(self.objective)
        self.history: list[Epoch] = []
        self.pause = no_pause

    @property
    def weights_path(self) -> Path:
        """The file of the best weights so far."""
        return self.folder / "model.safetensors"

    def resume(self) -> None:
        """Go back to where training stood as the run's folder has it, or to the start."""
        path = self.folder / "state.safetensors"
        if path.is_file():
            record = load_state(path, self.model, self.optimizer)
            try:
                self.history = [Epoch(**line) for line in record["history"]]
            except (KeyError, TypeError):
                raise InputError(f"{path}: not the state of a run (no history of epochs)") from None

    def fit(self) -> bool:
        """Train up to the last epoch; return whether it got there.

        Ctrl-C gives up the epoch that is running, so that resuming repeats it whole. If it is the
        first, what was learnt so far is kept as the best there is.

        Raises:
            DivergedError: the loss became infinite or NaN; weights are those of the best epoch.
        """
        try:
            # Several processes stop wherever they are: the epoch is repeated by --resume.
            with between_steps() if self.world.size == 1 else nullcontext(no_pause) as self.pause:
                while len(self.history) < self.settings.epochs:
                    epoch = self.epoch(len(self.history) + 1)
                    if self.world.first:
                        self.keep([*self.history, epoch])
                    self.history.append(epoch)
                    print(describe(epoch), flush=True)
        except KeyboardInterrupt:
            print("stopped; what is best so far is evaluated and kept")
            if not self.history and self.world.first:
                save_model(self.weights_path, self.model, {**self.record, "best_epoch": 0})
            return False
        return True

    def epoch(self, number: int) -> Epoch:
        """Pass over the training split once, then score the valid split."""
        seeds = np.random.SeedSequence([self.seed, number])
        chances = seeds.generate_state(self.world.size, np.uint64)
        torch.manual_seed(int(chances[self.world.rank] >> 1))  # dropout
        order = np.random.default_rng(seeds)
        total, frames, began = 0.0, 0, time.perf_counter()
        whole = int(self.train.lengths.sum())
        self.model.train()
        with tqdm(
            total=whole,
            desc=f"epoch {number}/{self.settings.epochs}",
            unit=" frames",
            unit_scale=True,
            leave=False,
            # None where nobody watches: no bars in log files.
            disable=None if self.world.first else True,
        ) as bar:
            groups = length_groups(self.train.lengths, self.settings.batch_size, order)
            for tunes, batch in zip(groups, in_groups(self.train, groups), strict=True):
                progress = (number - 1 + frames / whole) / self.settings.epochs
                self.optimizer.param_groups[0]["lr"] = learning_rate(self.settings, progress)
                total += self.learn(*transposed(batch, self.model.settings.transpose, order))
                frames += int(batch.lengths.sum())
                # Several processes give up together, at the epoch's end.
                if self.world.size == 1 and not math.isfinite(total):
                    raise diverged(f"epoch {number}, {name_batch(groups, tunes)}", total)
                bar.update(int(batch.lengths.sum()))
                bar.set_postfix_str(
                    f"{total * self.world.size / frames:.3f} nats/frame", refresh=False
                )
        total = float(self.world.sum(torch.tensor(total, device=self.device)))
        if not math.isfinite(total):
            raise diverged(f"epoch {number}", total)
        seconds = time.perf_counter() - began
        valid = self.world.agree(self.validate(self.model) if self.world.first else None)
        if not math.isfinite(valid):
            raise DivergedError(f"epoch {number}: the valid NLL is {valid}; try a lower --lr")
        return Epoch(number, total / frames, valid, seconds, frames / seconds)

    def learn(self, batch: Batch, shift: Tensor) -> float:
        """Take an optimizer step for each chunk of a batch; return its NLL in nats, of this share.

        The batch's tunes were moved by `shift` semitones, (B,) int64.
        """
        total = torch.zeros((), device=self.device)
        whole, size = batch.lengths, self.world.size
        batch, shift = share_of(batch, shift, self.world.rank, size)
        state, shift = None, shift.to(self.device)
        for chunk in chunks(batch, self.settings.bptt, self.device, whole):
            self.pause()
            with self.reduced_precision():
                nll, state = self.objective(chunk, state, shift)  # (F,)
            self.optimizer.zero_grad()
            # The mean over the whole batch, once the processes' gradients have been averaged.
            (nll.sum() * (size / chunk.total)).backward()
            if self.settings.clip:
                nn.utils.clip_grad_norm_(self.model.parameters(), self.settings.clip)
            self.optimizer.step()
            total += nll.detach().sum()
        return float(total)

    def reduced_precision(self) -> torch.autocast:
        """Return what computes in bfloat16 where that is safe, if the settings ask for it."""
        reduced = self.settings.precision == "bfloat16"
        # The weights change at every step, so that nothing is gained by keeping a copy of them.
        return torch.autocast(self.device.type, torch.bfloat16, reduced, cache_enabled=False)

    def keep(self, history: Sequence[Epoch]) -> None:
        """Write the run's files as they stand after the last epoch of this history."""
        last, best = history[-1], best_of(history)
        if best is last:
            record = {**self.record, "best_epoch": last.epoch, "valid_nll": last.valid}
            save_model(self.weights_path, self.model, record)
        lines = [asdict(epoch) for epoch in history]
        # Apart, as the losses are the same whenever they are trained again, and the times are not.
        write_table(self.folder / "metrics.csv", ("epoch", "train", "valid"), lines)
        write_table(self.folder / "times.csv", ("epoch", "seconds", "frames_per_second"), lines)
        # The state comes last: if the program is killed before, the epoch is repeated.
        path = self.folder / "state.safetensors"
        save_state(path, self.model, self.optimizer, {"history": lines})
        if time.perf_counter() - self.drawn_at > REDRAW_SECONDS:
            self.draw(history)
            self.drawn_at = time.perf_counter()


def diverged(where: str, loss: float) -> DivergedError:
    """Return the error of a loss that is no number any more."""
    return DivergedError(f"{where}: the loss is {loss}; try a lower --lr")


def name_batch(groups: Sequence[list[int]], tunes: list[int]) -> str:
    """Return which batch of an epoch holds these tunes, and the first of them."""
    names = ", ".join(str(tune) for tune in sorted(tunes)[:NAMED])
    more = f" and {len(tunes) - NAMED} more" if len(tunes) > NAMED else ""
    return f"batch {groups.index(tunes) + 1} of {len(groups)} (training tunes {names}{more})"


def write_table(path: Path, columns: Sequence[str], lines: Sequence[dict[str, Any]]) -> None:
    """Write these columns of the lines as CSV."""
    with whole_file(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, columns, extrasaction="ignore", lineterminator="\n")
        table.writeheader()
        table.writerows(lines)


def plot_losses(
    path: Path, history: Sequence[Epoch], title: str, levels: Sequence[tuple[str, float]]
) -> None:
    """Draw train and valid NLL per frame over epochs, and other predictors as dashed levels.

    The scale is logarithmic: what is won from 1.0 to 0.9 is to be seen beside a start from 14.
    What costs next to nothing, such as silence that was foreseen, is drawn at a thousandth.
    """
    figure = Figure(figsize=(9, 5.5), layout="constrained")
    axes = figure.add_subplot()
    epochs = [epoch.epoch for epoch in history]
    train, valid = ([max(getattr(e, split), 1e-3) for e in history] for split in ("train", "valid"))
    heights = [max(level, 1e-3) for _, level in levels]
    axes.plot(epochs, train, ".-", color="#7a8a99", label="train")
    axes.plot(epochs, valid, ".-", color="#c0392b", label="valid")
    best = best_of(history)
    point = (best.epoch, valid[history.index(best)])
    above = best.train <= best.valid  # where the train curve is not
    axes.plot(*point, "o", color="#c0392b", markersize=9, fillstyle="none")
    axes.annotate(
        f"best: {best.valid:.2f}", point, (6, 9 if above else -17),
        textcoords="offset points", ha="right", color="#c0392b",
    )  # fmt: skip
    axes.set(title=title, xlabel="epoch", ylabel="negative log-likelihood (nats per frame)")
    axes.set_xlim(0.5, max(len(history), 2) + 0.5)
    lowest = 0.85 * min(*train, *valid, *heights)
    highest = 1.1 * max(*train, *valid, *heights)
    axes.set_ylim(lowest, highest)
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 3, 5, 7)))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_locator(NullLocator())
    for (name, level), height in zip(levels, heights, strict=True):
        # Below its line where another line would run through it.
        near = (highest / lowest) ** 0.05
        crowded = any(height < other < near * height for other in heights)
        axes.axhline(height, linestyle="--", linewidth=1, color="#2c3e50", alpha=0.6, zorder=0)
        axes.annotate(
            f"{name}: {level:.2f}", (1, height), (-6, -11 if crowded else 3),
            xycoords=("axes fraction", "data"), textcoords="offset points", ha="right",
            fontsize=8, color="#2c3e50",
        )  # fmt: skip
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="lower left", ncols=2)
    with whole_file(path) as temporary:
        figure.savefig(temporary, format="png", dpi=150)
    # A figure is 5 MB of objects that refer to one another: left alone, a dozen of them pile up.
    del figure, axes
    gc.collect()
