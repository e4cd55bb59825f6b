"""The training loop and the evaluation, to be read from top to bottom.

Loss and score are the negative log-likelihood (NLL) in nats per frame, all 88 keys of a frame
together, pooled over all frames of a split (the rule of Boulanger-Lewandowski et al. 2012).
"""

import csv
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from torch import Tensor, nn
from tqdm import tqdm

from checkpoint import Record, load_state, save_model, save_state
from data import Batch, RollDataset, batches, chunks
from files import InputError, whole_file
from model import PianoLSTM, first_rows
from settings import TrainSettings

EVAL_BATCH = 64  # tunes; a matter of speed and memory alone
EVAL_CHUNK = 256  # frames; likewise
REDRAW_SECONDS = (
    10  # between two drawings of the losses while training, which take a quarter second
)


# ---- evaluation ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Scores:
    """How well a model predicts one split; NLLs in nats per frame."""

    nll: float  # pooled, the first frame of each tune not scored: the headline
    nll_first_frame_scored: float  # pooled, the first frame predicted from silence
    nll_per_tune_mean: float  # mean over tunes of each tune's own mean; first frame not scored
    frame_accuracy: float | None  # of the frames after the first; None where it was not asked for
    frames: int  # of the split, first frames included


@torch.inference_mode()
def evaluate(
    model: PianoLSTM, dataset: RollDataset, device: torch.device, *, accuracy: bool = True
) -> Scores:
    """Score a split, in chunks of bounded memory; how it is cut changes no number.

    Frame accuracy (Bay, Ehmann and Downie 2009, "Evaluation of Multiple-F0 Estimation and Tracking
    Systems"): TP / (TP + FP + FN) over the keys of all frames, where the frame predicted is the one
    that the head gives at temperature 0. It is not the expected accuracy over samples that the ICML
    2012 paper has. Silence predicted as silence counts nowhere; a
    split that is all silence, so predicted, has 0.
    """
    model.eval()
    totals: list[Tensor] = []  # (B,) a batch: each tune's NLL
    firsts: list[Tensor] = []  # (B,): that of its first frame
    lengths: list[Tensor] = []  # (B,): T
    right = wrong = 0
    for batch in batches(dataset, EVAL_BATCH):
        grids: list[Tensor] = []  # NLLs, (B, t) a chunk, zero where nothing is scored
        state = None
        for chunk in chunks(batch, EVAL_CHUNK, device):
            hidden, state = model(chunk.inputs, first_rows(state, len(chunk.inputs)))
            nll = model.head.nll(hidden[chunk.scored], chunk.targets[chunk.scored])
            grid = torch.zeros(len(batch.lengths), chunk.scored.shape[1], dtype=torch.float64)
            grid[: len(chunk.inputs)][chunk.scored.cpu()] = nll.cpu().double()
            if accuracy:
                counted = chunk.scored.clone()
                counted[:, : 0 if grids else 1] = False
                predicted = model.head.sample(hidden[counted], temperature=0) > 0
                real = chunk.targets[counted] > 0
                right += int((predicted & real).sum())
                wrong += int((predicted ^ real).sum())
            grids.append(grid)
        totals.append(torch.cat(grids, dim=1).sum(dim=1))
        firsts.append(grids[0][:, 0])
        lengths.append(batch.lengths)
    total, first, length = torch.cat(totals), torch.cat(firsts), torch.cat(lengths)  # (N,) each
    return Scores(
        nll=float((total - first).sum() / (length - 1).sum()),
        nll_first_frame_scored=float(total.sum() / length.sum()),
        nll_per_tune_mean=float(((total - first) / (length - 1)).mean()),
        frame_accuracy=right / max(right + wrong, 1) if accuracy else None,
        frames=int(length.sum()),
    )


class Baselines:
    """What any model must beat: two predictors fitted to the training split by counting.

    Both are scored as the headline is: nats per frame, pooled, first frames not scored.
    """

    def __init__(self, train: RollDataset) -> None:
        """Count; one more on either side keeps every probability off 0 and 1 (Laplace's rule)."""
        frames = train.frames.double()
        self.marginals = (frames.sum(dim=0) + 1) / (len(frames) + 2)  # (K,) p(key sounds)
        before, after = pairs(train)
        held = (after[before] > 0).double()
        struck = (after[~before] > 0).double()
        self.p_held = float((held.sum() + 1) / (len(held) + 2))  # p(sounds | sounded)
        self.p_struck = float((struck.sum() + 1) / (len(struck) + 2))  # p(sounds | was silent)

    def marginal(self, dataset: RollDataset) -> float:
        """Return the NLL of "always the average frame": each key by itself, with its frequency."""
        _, after = pairs(dataset)
        sounding = after.double().mean(dim=0)  # (K,)
        p = self.marginals
        return float(-(sounding * p.log() + (1 - sounding) * (1 - p).log()).sum())

    def copy_previous(self, dataset: RollDataset) -> float:
        """Return the NLL of "the frame before again", either kind of change at its own rate."""
        before, after = pairs(dataset)
        p = torch.where(before, self.p_held, self.p_struck).double()
        return float(-torch.where(after, p, 1 - p).log().sum() / len(after))


def pairs(dataset: RollDataset) -> tuple[Tensor, Tensor]:
    """Return all frames but the last of a tune, and those that follow, (F, 88) bool each."""
    frames = dataset.frames > 0
    starts = torch.zeros(len(frames) + 1, dtype=torch.bool)
    starts[torch.from_numpy(dataset.offsets)] = True  # the end of the last tune is one past the end
    return frames[:-1][~starts[1:-1]], frames[1:][~starts[1:-1]]


# ---- training ------------------------------------------------------------------------------------


class DivergedError(Exception):
    """The loss is no number any more; the best weights so far are on disk."""


@contextmanager
def between_steps() -> Iterator[Callable[[], None]]:
    """Hold Ctrl-C back until the program says that it suits; give the function that says so.

    An interrupt that comes in the midst of things can leave an epoch half counted, and one that
    comes while Python clears up is lost. A second Ctrl-C does not wait.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: None  # only the main thread can be interrupted
        return
    asked = False

    def ask(*_: object) -> None:
        nonlocal asked
        asked = True
        signal.signal(signal.SIGINT, usual)

    def pause() -> None:
        if asked:
            raise KeyboardInterrupt

    usual = signal.signal(signal.SIGINT, ask)
    try:
        yield pause
    finally:
        signal.signal(signal.SIGINT, usual)


@dataclass(frozen=True)
class Epoch:
    """One line of metrics.csv."""

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


class Trainer:
    """Trains a model, keeping the best weights by valid NLL in the run's folder.

    All randomness of an epoch is drawn from (seed, epoch), so that a run that was stopped and goes
    on is the run that never stopped.

    Args:
        model: freshly made.
        train: the training split.
        validate: the valid NLL of the model as it stands.
        settings: the recipe.
        seed: number that all randomness is drawn from.
        device: where the model is.
        folder: the run's folder.
        record: what to write into the weights file besides the model's settings.
        draw: draws the history; called now and then, for whoever looks on.
    """

    def __init__(
        self,
        model: PianoLSTM,
        train: RollDataset,
        validate: Callable[[], float],
        settings: TrainSettings,
        seed: int,
        device: torch.device,
        folder: Path,
        record: Record,
        draw: Callable[[Sequence[Epoch]], None] = lambda history: None,
    ) -> None:
        """Take the parts; nothing is computed yet."""
        self.model, self.train, self.validate = model, train, validate
        self.settings, self.seed, self.device = settings, seed, device
        self.folder, self.record, self.draw = folder, record, draw
        self.drawn_at = -math.inf  # seconds
        self.optimizer = torch.optim.Adam(model.parameters(), lr=settings.lr)
        self.history: list[Epoch] = []
        self.pause: Callable[[], None] = lambda: None

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
            with between_steps() as self.pause:
                while len(self.history) < self.settings.epochs:
                    epoch = self.epoch(len(self.history) + 1)
                    self.keep([*self.history, epoch])
                    self.history.append(epoch)
                    print(describe(epoch), flush=True)
        except KeyboardInterrupt:
            print("stopped; what is best so far is evaluated and kept")
            if not self.history:
                save_model(self.weights_path, self.model, {**self.record, "best_epoch": 0})
            return False
        return True

    def epoch(self, number: int) -> Epoch:
        """Pass over the training split once, then score the valid split."""
        seeds = np.random.SeedSequence([self.seed, number])
        torch.manual_seed(int(seeds.generate_state(1, np.uint64)[0] >> 1))  # dropout
        order = np.random.default_rng(seeds)
        total, frames, began = 0.0, 0, time.perf_counter()
        self.model.train()
        with tqdm(
            total=int(self.train.lengths.sum()),
            desc=f"epoch {number}/{self.settings.epochs}",
            unit=" frames",
            unit_scale=True,
            leave=False,
            disable=None,  # none where nobody watches: no bars in log files
        ) as bar:
            for batch in batches(self.train, self.settings.batch_size, order):
                total += self.learn(batch)
                frames += int(batch.lengths.sum())
                if not math.isfinite(total):
                    raise DivergedError(f"epoch {number}: the loss is {total}; try a lower --lr")
                bar.update(int(batch.lengths.sum()))
                bar.set_postfix_str(f"{total / frames:.3f} nats/frame", refresh=False)
        seconds = time.perf_counter() - began
        valid = self.validate()
        if not math.isfinite(valid):
            raise DivergedError(f"epoch {number}: the valid NLL is {valid}; try a lower --lr")
        return Epoch(number, total / frames, valid, seconds, frames / seconds)

    def learn(self, batch: Batch) -> float:
        """Take an optimizer step for each chunk of a batch; return the batch's NLL in nats."""
        total = torch.zeros((), device=self.device)
        state = None
        for chunk in chunks(batch, self.settings.bptt, self.device):
            self.pause()
            hidden, state = self.model(chunk.inputs, first_rows(state, len(chunk.inputs)))
            nll = self.model.head.nll(hidden[chunk.scored], chunk.targets[chunk.scored])  # (F,)
            self.optimizer.zero_grad()
            nll.mean().backward()
            if self.settings.clip:
                nn.utils.clip_grad_norm_(self.model.parameters(), self.settings.clip)
            self.optimizer.step()
            total += nll.detach().sum()
        return float(total)

    def keep(self, history: Sequence[Epoch]) -> None:
        """Write the run's files as they stand after the last epoch of this history."""
        last, best = history[-1], best_of(history)
        if best is last:
            record = {**self.record, "best_epoch": last.epoch, "valid_nll": last.valid}
            save_model(self.weights_path, self.model, record)
        lines = [asdict(epoch) for epoch in history]
        with (
            whole_file(self.folder / "metrics.csv") as temporary,
            temporary.open("w", encoding="utf-8", newline="") as file,
        ):
            table = csv.DictWriter(file, lines[0].keys(), lineterminator="\n")
            table.writeheader()
            table.writerows(lines)
        # The state comes last: if the program is killed before, the epoch is repeated.
        save_state(
            self.folder / "state.safetensors", self.model, self.optimizer, {"history": lines}
        )
        if time.perf_counter() - self.drawn_at > REDRAW_SECONDS:
            self.draw(history)
            self.drawn_at = time.perf_counter()


def plot_losses(
    path: Path, history: Sequence[Epoch], title: str, levels: Sequence[tuple[str, float]]
) -> None:
    """Draw train and valid NLL per frame over epochs, and other predictors as dashed levels."""
    figure = Figure(figsize=(9, 5.5), layout="constrained")
    axes = figure.add_subplot()
    epochs = [epoch.epoch for epoch in history]
    axes.plot(epochs, [epoch.train for epoch in history], ".-", color="#7a8a99", label="train")
    axes.plot(epochs, [epoch.valid for epoch in history], ".-", color="#c0392b", label="valid")
    best = best_of(history)
    above = best.train <= best.valid  # where the train curve is not
    axes.plot(best.epoch, best.valid, "o", color="#c0392b", markersize=9, fillstyle="none")
    axes.annotate(
        f"best: {best.valid:.2f}", (best.epoch, best.valid), (0, 9 if above else -17),
        textcoords="offset points", ha="center", color="#c0392b",
    )  # fmt: skip
    axes.set(title=title, xlabel="epoch", ylabel="negative log-likelihood (nats per frame)")
    axes.set_xlim(0.5, max(len(history), 2) + 0.5)
    axes.set_ylim(bottom=0)
    highest = axes.get_ylim()[1]
    for name, level in levels:
        # Below its line where another line would run through it.
        crowded = any(0 < other - level < 0.05 * highest for _, other in levels)
        axes.axhline(level, linestyle="--", linewidth=1, color="#2c3e50", alpha=0.6, zorder=0)
        axes.annotate(
            f"{name}: {level:.2f}", (1, level), (-6, -11 if crowded else 3),
            xycoords=("axes fraction", "data"), textcoords="offset points", ha="right",
            fontsize=8, color="#2c3e50",
        )  # fmt: skip
    axes.set_ylim(0, max([highest, *(1.05 * level for _, level in levels)]))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="lower left", ncols=2)
    with whole_file(path) as temporary:
        figure.savefig(temporary, format="png", dpi=150)
