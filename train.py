"""Evaluation and the training loop, to be read from top to bottom.

The loss is the negative log-likelihood (NLL) in nats per frame, all 88 pitches of a frame together.
"""

import math
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from copy import deepcopy
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel
from tqdm import tqdm

from data import (
    Batch,
    Chunk,
    RollDataset,
    batches,
    bucket_by_length,
    chunks,
    random_transpose,
    shard,
)
from model import PianoLSTM
from pianolstm.checkpoint import Metadata, load_training_state, save_training_state
from pianolstm.ending import EndCalibration
from pianolstm.files import InputError, write_csv
from pianolstm.layers.key_average import KeyAverage
from pianolstm.metrics.accuracy import expected_accuracy, greedy_counts, piece_uniforms
from pianolstm.runtime import SINGLE_PROCESS, World, defer_signals
from settings import TrainSettings

EVAL_BATCH = 32  # pieces evaluated side by side; affects speed and memory alone
EVAL_CHUNK = 128  # frames, likewise
EVAL_DRAWS = 20  # samples of each frame for the expected accuracy, which it moves by about 0.05 %
EVAL_SEED = 0  # of these samples
REPLOT_SECONDS = 10  # between two plots of the loss; one takes a quarter of a second
ENDS_PASSES = 14  # of fitting the end head
ENDS_BATCH = 2048  # frames of a step of it
ENDS_DROPOUT = 0.2  # of its inputs
ENDS_FRAMES = 2**18  # most frames that it is fitted to
ENDS_PRIOR = 4.0  # inverse variance of the prior of its calibration
NAMED_PIECES = 8  # pieces of a diverged batch that the message names


# ---- evaluation ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Scores:
    """The evaluation of a model on one split; NLLs in nats per frame."""

    nll: float  # pooled over all frames but the first of each piece: the headline
    nll_first_frame_scored: float  # pooled over all frames, the first predicted from silence
    nll_per_piece_mean: float  # mean over pieces of each piece's mean, without its first frame
    nll_per_piece_mean_first_frame_scored: float  # likewise, with it
    end_nll_per_piece: float  # nats per piece, of where it ends: summed over its frames
    frame_accuracy: float | None  # of all frames but the first; None if not requested
    expected_frame_accuracy: float | None  # of all frames, by samples; None if not requested
    frames: int  # frames of the split, first frames included


@torch.inference_mode()
def evaluate(
    model: PianoLSTM | KeyAverage,
    dataset: RollDataset,
    device: torch.device,
    *,
    accuracy: bool = True,
) -> Scores:
    """Evaluate a model on a split, in chunks of bounded memory.

    NLL is pooled over frames (Boulanger-Lewandowski et al. 2012). Frame accuracy is TP / (TP + FP +
    FN) over the pitches of all frames (Bay, Ehmann and Downie 2009, "Evaluation of Multiple-F0
    Estimation and Tracking Systems"), where the prediction is the head's greedy frame. Silence
    predicted as silence counts nowhere; without any note, true or predicted, accuracy is 0. The
    expected accuracy is that of the ICML 2012 paper (`metrics.accuracy`).

    Args:
        model: switched to evaluation mode.
        dataset: the split.
        device: device of the model.
        accuracy: whether to compute the two accuracies, which takes longer than the NLL.
    """
    model.eval()
    totals: list[Tensor] = []  # (B,) per batch: each piece's NLL
    firsts: list[Tensor] = []  # (B,): the NLL of its first frame
    lengths: list[Tensor] = []  # (B,): T
    right = wrong = 0
    expected = end_nll = 0.0
    calibration = EndCalibration.of_metadata(model.metadata)
    # A mixture reads each piece in many keys.
    rows = max(EVAL_BATCH // 8, 1) if isinstance(model, KeyAverage) else EVAL_BATCH
    buckets = bucket_by_length(dataset.lengths, rows, None)
    for bucket, batch in zip(buckets, batches(dataset, buckets), strict=True):
        grids: list[Tensor] = []  # (B, t) per chunk: NLLs, 0 in padding
        state = None
        # A generator for each piece: its samples are the same in any chunks and batches.
        generators = [torch.Generator().manual_seed(EVAL_SEED + index) for index in bucket]
        for chunk in chunks(batch, EVAL_CHUNK, device):
            state = state and state.first_rows(len(chunk.inputs))
            vectors, state = model(chunk.inputs, state)
            nll = model.head.nll(vectors[chunk.mask], chunk.targets[chunk.mask])
            grid = torch.zeros(len(batch.lengths), chunk.mask.shape[1], dtype=torch.float64)
            grid[: len(chunk.inputs)][chunk.mask.cpu()] = nll.cpu().double()
            if accuracy:
                counted = chunk.mask.clone()
                counted[:, : 0 if grids else 1] = False  # without the first frame of a piece
                counts = greedy_counts(model.head, vectors[counted], chunk.targets[counted])
                right, wrong = right + counts[0], wrong + counts[1]
                frames = chunk.mask.sum(dim=1).tolist()
                uniforms = piece_uniforms(generators[: len(frames)], frames, EVAL_DRAWS)
                means = expected_accuracy(
                    model.head,
                    vectors[chunk.mask],
                    chunk.targets[chunk.mask],
                    uniforms.to(device),
                )
                expected += float(means.sum())
            end_nll += float(_end_nll(model, vectors, chunk, calibration))
            grids.append(grid)
        totals.append(torch.cat(grids, dim=1).sum(dim=1))
        firsts.append(grids[0][:, 0])
        lengths.append(batch.lengths)
    total, first, length = torch.cat(totals), torch.cat(firsts), torch.cat(lengths)  # (N,) each
    return Scores(
        nll=float((total - first).sum() / (length - 1).sum()),
        nll_first_frame_scored=float(total.sum() / length.sum()),
        nll_per_piece_mean=float(((total - first) / (length - 1)).mean()),
        nll_per_piece_mean_first_frame_scored=float((total / length).mean()),
        end_nll_per_piece=end_nll / len(length),
        frame_accuracy=right / max(right + wrong, 1) if accuracy else None,
        expected_frame_accuracy=expected / int(length.sum()) if accuracy else None,
        frames=int(length.sum()),
    )


def _end_nll(
    model: PianoLSTM | KeyAverage,
    vectors: Tensor,
    chunk: Chunk,
    calibration: EndCalibration | None = None,
) -> Tensor:
    """Return the NLL of which frames of a chunk are the last of their pieces, summed, in nats."""
    logits = model.end_head(vectors, chunk.inputs)[chunk.read]
    if calibration is not None:
        logits = calibration.apply(logits, chunk.times[chunk.read])
    last = chunk.last[chunk.read].to(logits.dtype)
    return functional.binary_cross_entropy_with_logits(logits, last, reduction="sum")


# ---- where pieces end ----------------------------------------------------------------------------


def fit_ends(
    model: PianoLSTM, train: RollDataset, valid: RollDataset, device: torch.device
) -> None:
    """Fit the end head to the finished model, of which nothing else changes, and calibrate it.

    During training it learns beside a model that changes, from vectors with the model's dropout.
    Here it learns from the vectors as they are when pieces are sampled. Of all passes the one with
    the lowest validation NLL stays, or the head as it was. The calibration is kept in the model's
    metadata.

    Args:
        model: switched to evaluation mode.
        train: the training split.
        valid: the validation split. Of both, pieces with `ENDS_FRAMES` frames or so are enough.
        device: device of the model.
    """
    head = model.end_head
    *inputs, _ = _end_inputs(model, train, device)
    *held_out, times = _end_inputs(model, valid, device)

    def nll(vectors: Tensor, frames: Tensor, last: Tensor) -> Tensor:
        return functional.binary_cross_entropy_with_logits(head(vectors, frames), last)

    with torch.no_grad():
        best, kept = float(nll(*held_out)), deepcopy(head.state_dict())
    optimizer = torch.optim.AdamW(head.parameters(), lr=0.001)
    generator = torch.Generator().manual_seed(0)
    for _ in range(ENDS_PASSES):
        for rows in torch.randperm(len(inputs[0]), generator=generator).split(ENDS_BATCH):
            vectors, frames, last = (part.index_select(0, rows.to(device)) for part in inputs)
            keep = torch.rand(vectors.shape, generator=generator).to(device) >= ENDS_DROPOUT
            optimizer.zero_grad()
            nll(vectors * keep / (1 - ENDS_DROPOUT), frames, last).backward()
            optimizer.step()
        with torch.no_grad():
            now = float(nll(*held_out))
        if now < best:
            best, kept = now, deepcopy(head.state_dict())
    head.load_state_dict(kept)
    with torch.no_grad():
        logits = head(*held_out[:2])
    calibration = _calibrate_ends(logits, times, held_out[2], float(train.lengths.mean()))
    model.metadata["end_calibration"] = calibration._asdict()


def _calibrate_ends(logits: Tensor, times: Tensor, last: Tensor, typical: float) -> EndCalibration:
    """Return the calibration with the lowest NLL on these frames, and a prior.

    The prior is normal around no calibration, and weighs most where there are few pieces.

    Args:
        logits: (F,), of the end head.
        times: (F,) int64, frames of the piece up to each.
        last: (F,), 1 where the piece ends, else 0.
        typical: frames of a piece, about.
    """
    logits, times, last = (part.to("cpu", torch.float64) for part in (logits, times, last))
    q = (times / typical).log()
    columns = torch.stack([logits, torch.ones_like(q), q, q.square()], dim=1)
    no_change = torch.tensor(EndCalibration()[1:], dtype=torch.float64)
    numbers = no_change.clone().requires_grad_()
    optimizer = torch.optim.LBFGS([numbers], max_iter=100, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        nll = functional.binary_cross_entropy_with_logits(columns @ numbers, last, reduction="sum")
        penalized = nll + ENDS_PRIOR / 2 * (numbers - no_change).square().sum()
        penalized.backward()
        return penalized

    optimizer.step(loss)
    return EndCalibration(typical, *numbers.tolist())


@torch.no_grad()
def _end_inputs(
    model: PianoLSTM, dataset: RollDataset, device: torch.device
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return what the end head reads, (F, H) and (F, P), which frames are last, and their number.

    The number is that of the piece's frames so far, (F,) int64.
    """
    model.eval()
    parts = []
    order = np.random.default_rng(0).permutation(len(dataset))
    order = order[: np.searchsorted(dataset.lengths[order].cumsum(), ENDS_FRAMES) + 1]
    some = RollDataset([dataset.rolls[index] for index in order])
    for batch in batches(some, bucket_by_length(some.lengths, EVAL_BATCH, None)):
        state = None
        for chunk in chunks(batch, EVAL_CHUNK, device):
            state = state and state.first_rows(len(chunk.inputs))
            vectors, state = model(chunk.inputs, state)
            vectors = vectors[:, :, : model.end_head.size]
            of_frames = vectors, chunk.inputs, chunk.last.float(), chunk.times
            parts.append([part[chunk.read] for part in of_frames])
    vectors, frames, last, times = (torch.cat(part) for part in zip(*parts, strict=True))
    return vectors, frames, last, times


# ---- schedule ------------------------------------------------------------------------------------


def count_epochs(settings: TrainSettings, lengths: np.ndarray) -> int:
    """Return the number of epochs: `epochs`, or those that come nearest to `max_steps`.

    Args:
        settings: the recipe.
        lengths: (N,) frames of each training piece.
    """
    if not settings.max_steps:
        return settings.epochs
    buckets = bucket_by_length(lengths, settings.batch_size, None)
    longest = [int(lengths[bucket].max()) for bucket in buckets]
    steps = sum(math.ceil(length / (settings.bptt or length)) for length in longest)
    return max(1, round(settings.max_steps / steps))


def learning_rate(settings: TrainSettings, progress: float) -> float:
    """Return the learning rate after this share of training, 0 to 1.

    The schedule onecycle is one cycle of half cosines, from 0 up to `lr` and back (Smith and Topin
    2018, arXiv:1708.07120).
    """
    if settings.lr_schedule == "constant":
        return settings.lr
    warmup = settings.warmup_ratio
    phase = progress / warmup if progress < warmup else (1 - progress) / (1 - warmup)
    return settings.lr * (1 - math.cos(math.pi * phase)) / 2


# ---- the loop ------------------------------------------------------------------------------------


class DivergedError(Exception):
    """The loss became infinite or NaN; the best weights before are on disk."""


@dataclass(frozen=True)
class Epoch:
    """One epoch: a row of metrics.csv and of times.csv."""

    epoch: int  # from 1
    train: float  # NLL while training, with dropout, first frames scored
    valid: float  # NLL, first frames not scored
    seconds: float  # of training alone
    frames_per_second: float

    def __str__(self) -> str:
        """Return a line for the terminal."""
        return (
            f"epoch {self.epoch:3d}   train {self.train:6.3f}   valid {self.valid:6.3f} nats/frame"
            f"   {self.seconds:5.1f} s   {self.frames_per_second:7,.0f} frames/s"
        )


class Objective(nn.Module):
    """The NLL of a chunk: one module, so that DistributedDataParallel can wrap it.

    Args:
        model: the model.
        consistency: weight of the divergence between the two transpositions of each piece; 0 = the
            pieces are in one transposition.
    """

    def __init__(self, model: PianoLSTM, consistency: float = 0.0) -> None:
        """Keep the model."""
        super().__init__()
        self.model, self.consistency = model, consistency

    def forward(self, chunk: Chunk, state: Any, shift: Tensor) -> tuple[Tensor, Tensor, Any]:
        """Read a chunk after a state.

        Args:
            chunk: inputs and targets, (B', t, P) each; with consistency, rows 2 i and 2 i + 1 are
                the same piece, transposed.
            state: of the previous chunk, with B' rows or more; None = the start of the pieces.
            shift: (B,) int64, the transposition of each piece of the batch in semitones.

        Returns:
            The NLL of each target frame, (F,) in nats; what is added to their sum, the NLL of the
            ends of pieces and the weighted divergence; and the state after the chunk.
        """
        rows = len(chunk.inputs)
        state = state and state.first_rows(rows)
        vectors, state = self.model(chunk.inputs, state, shift[:rows])
        extra = _end_nll(self.model, vectors, chunk)
        if self.consistency:
            # (B' / 2, 2, t, ...) -> (2, B' / 2 * t, ...)
            vectors, targets = (
                part.unflatten(0, (-1, 2)).transpose(0, 1).flatten(1, 2)
                for part in (vectors, chunk.targets)
            )
            shift = shift[:rows].view(-1, 2).diff(dim=1).expand(-1, chunk.mask.shape[1]).flatten()
            nll, divergence = self.model.head.nll_and_divergence(vectors, targets, shift)
            mask = chunk.mask[::2].flatten()
            # Twice, as all sums here are over two transpositions.
            extra = extra + 2 * self.consistency * divergence[mask].sum()
            return nll[:, mask].flatten(), extra, state
        # Scoring the padding too and masking it afterwards is faster than selecting vectors first.
        nll = self.model.head.nll(vectors.flatten(0, 1), chunk.targets.flatten(0, 1))
        return nll[chunk.mask.flatten()], extra, state


class Trainer:
    """Trains a model and keeps the weights with the lowest valid NLL in the run's folder.

    The random numbers of an epoch depend only on (seed, epoch), so a run that was stopped and
    resumed gives the same result as one that was not.

    Args:
        model: freshly initialised.
        train: the training split.
        validate: returns the valid NLL of a model.
        settings: the recipe.
        seed: seed of all random numbers.
        device: device of the model.
        folder: the run's folder.
        metadata: written into the weights file beside the model's settings.
        plot: plots the history; called from time to time.
        world: the processes that train together. Each is given all pieces, and trains on its shard
            of every batch.
        log: records an epoch; called after each.
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
        metadata: Metadata,
        plot: Callable[[Sequence[Epoch]], None] = lambda history: None,
        world: World = SINGLE_PROCESS,
        log: Callable[[Epoch], None] = lambda epoch: None,
    ) -> None:
        """Make the optimizer; nothing is computed yet."""
        self.model, self.train, self.validate = model, train, validate
        self.settings, self.seed, self.device = settings, seed, device
        self.folder, self.metadata, self.plot, self.world = folder, metadata, plot, world
        self.log = log
        self.optimizer = torch.optim.Adam(model.parameters(), lr=settings.lr, fused=True)
        ends = list(model.end_head.parameters())
        others = [p for p in model.parameters() if not any(p is end for end in ends)]
        self._parameter_groups = others, ends
        self.objective: nn.Module = Objective(model, settings.consistency)
        if world.size > 1:
            self.objective = DistributedDataParallel(self.objective)
        self.history: list[Epoch] = []
        self._plotted_at = -math.inf  # seconds
        self._deliver_signals: Callable[[], None] = lambda: None

    @property
    def weights_path(self) -> Path:
        """The file of the best weights so far."""
        return self.folder / "model.safetensors"

    @property
    def stopped_early(self) -> bool:
        """Whether the last `patience` epochs had no new lowest valid NLL, and others are left."""
        patience, done = self.settings.patience, len(self.history)
        if not patience or not 0 < done < self.settings.epochs:
            return False
        return done - _best(self.history).epoch >= patience

    def resume(self) -> None:
        """Restore the state of the run's folder, if it has one.

        Raises:
            InputError: the state can't be read or belongs to another run.
        """
        path = self.folder / "state.pt"
        if path.is_file():
            rows = load_training_state(path, self.model, self.optimizer)
            try:
                self.history = [Epoch(**row) for row in rows]
            except TypeError:
                raise InputError(f"{path}: not the state of a run (no history)") from None

    def fit(self) -> bool:
        """Train up to the last epoch, or until `stopped_early`; return False after Ctrl-C.

        Ctrl-C gives up the running epoch, which resuming repeats from its start. During the first
        epoch, the weights so far are kept as the best.

        Raises:
            DivergedError: the loss became infinite or NaN; the weights of the best epoch stay.
        """
        # Several processes stop at once: no step in between is common to all of them.
        signals = defer_signals() if self.world.size == 1 else nullcontext(lambda: None)
        try:
            with signals as self._deliver_signals:
                while len(self.history) < self.settings.epochs and not self.stopped_early:
                    epoch = self._run_epoch(len(self.history) + 1)
                    if self.world.is_main:
                        self._save([*self.history, epoch])
                        self.log(epoch)
                    self.history.append(epoch)
                    print(epoch, flush=True)
        except KeyboardInterrupt:
            print("stopped; evaluating the best weights so far")
            if not self.history and self.world.is_main:
                self.model.save(self.weights_path, {**self.metadata, "best_epoch": 0})
            return False
        if self.stopped_early:
            done, best = len(self.history), _best(self.history).epoch
            print(
                f"stopped early after epoch {done} of {self.settings.epochs}: no lower valid NLL"
                f" than that of epoch {best} in {done - best} epochs (--patience)"
            )
        return True

    def _run_epoch(self, number: int) -> Epoch:
        """Train on every piece of the training split once, then compute the valid NLL."""
        seeds = np.random.SeedSequence([self.seed, number])
        dropout_seeds = seeds.generate_state(self.world.size, np.uint64)
        torch.manual_seed(int(dropout_seeds[self.world.rank] >> 1))
        generator = np.random.default_rng(seeds)  # of batches and transposition
        total, frames, start = 0.0, 0, time.perf_counter()
        all_frames = int(self.train.lengths.sum())
        self.model.train()
        with tqdm(
            total=all_frames,
            desc=f"epoch {number}/{self.settings.epochs}",
            unit=" frames",
            unit_scale=True,
            leave=False,
            disable=None if self.world.is_main else True,  # None: no bar in log files
        ) as bar:
            buckets = bucket_by_length(self.train.lengths, self.settings.batch_size, generator)
            for bucket, batch in zip(buckets, batches(self.train, buckets), strict=True):
                progress = (number - 1 + frames / all_frames) / self.settings.epochs
                self.optimizer.param_groups[0]["lr"] = learning_rate(self.settings, progress)
                probability = self.model.settings.transpose_prob
                views = [
                    random_transpose(batch, probability, generator)
                    for _ in range(2 if self.settings.consistency else 1)
                ]
                total += self._train_batch(views)
                frames += int(batch.lengths.sum())
                # Several processes compare their totals at the end of the epoch.
                if self.world.size == 1 and not math.isfinite(total):
                    raise _diverged(f"epoch {number}, {_name_batch(buckets, bucket)}", total)
                bar.update(int(batch.lengths.sum()))
                mean = total * self.world.size / frames
                bar.set_postfix_str(f"{mean:.3f} nats/frame", refresh=False)
        total = float(self.world.sum(torch.tensor(total, device=self.device)))
        if not math.isfinite(total):
            raise _diverged(f"epoch {number}", total)
        seconds = time.perf_counter() - start
        valid = self.world.broadcast(self.validate(self.model) if self.world.is_main else None)
        if not math.isfinite(valid):
            raise DivergedError(f"epoch {number}: the valid NLL is {valid}; try a lower --lr")
        return Epoch(number, total / frames, valid, seconds, frames / seconds)

    def _train_batch(self, views: Sequence[tuple[Batch, Tensor]]) -> float:
        """Take an optimizer step for each chunk of a batch; return the NLL of this shard in nats.

        Args:
            views: the whole batch, in one transposition or two, and the transposition of its pieces
                in semitones, (B,) int64.
        """
        total = torch.zeros((), device=self.device)
        lengths, size = views[0][0].lengths, self.world.size
        shards, shifts = zip(*(shard(*view, self.world.rank, size) for view in views), strict=True)
        # Row after row, so that a piece's transpositions stay together when shorter pieces end.
        batch = Batch(
            *(torch.stack(parts, dim=1).flatten(0, 1) for parts in zip(*shards, strict=True))
        )
        state, shift = None, torch.stack(shifts, dim=1).flatten().to(self.device)
        for chunk in chunks(batch, self.settings.bptt, self.device, lengths, len(views)):
            self._deliver_signals()
            with self._autocast():
                nll, extra, state = self.objective(chunk, state, shift)  # (F,)
            self.optimizer.zero_grad()
            # The mean over the whole batch, once gradients are averaged over the processes.
            ((nll.sum() + extra) * (size / (chunk.total * len(views)))).backward()
            if self.settings.clip:
                # Apart, so that the end head changes nothing of how the rest learns.
                for parameters in self._parameter_groups:
                    nn.utils.clip_grad_norm_(parameters, self.settings.clip)
            self.optimizer.step()
            total += nll.detach().sum()
        return float(total) / len(views)

    def _autocast(self) -> torch.autocast:
        """Return a context that computes in bfloat16 where that is safe, if so configured."""
        enabled = self.settings.precision == "bfloat16"
        # No cache of cast weights: they change at every step.
        return torch.autocast(self.device.type, torch.bfloat16, enabled, cache_enabled=False)

    def _save(self, history: Sequence[Epoch]) -> None:
        """Write the run's files after the last epoch of this history."""
        last, best = history[-1], _best(history)
        if best is last:
            best_epoch = {"best_epoch": last.epoch, "valid_nll": last.valid}
            self.model.save(self.weights_path, {**self.metadata, **best_epoch})
        rows = [asdict(epoch) for epoch in history]
        # Times go to a file of their own, because the same seed repeats losses but not times.
        write_csv(self.folder / "metrics.csv", ("epoch", "train", "valid"), rows)
        write_csv(self.folder / "times.csv", ("epoch", "seconds", "frames_per_second"), rows)
        # The state comes last: if the program is killed before, --resume repeats the epoch.
        save_training_state(self.folder / "state.pt", self.model, self.optimizer, rows)
        if time.perf_counter() - self._plotted_at > REPLOT_SECONDS:
            self.plot(history)
            self._plotted_at = time.perf_counter()


def _best(history: Sequence[Epoch]) -> Epoch:
    """Return the first epoch with the lowest valid NLL."""
    return min(history, key=lambda epoch: epoch.valid)


def _diverged(where: str, loss: float) -> DivergedError:
    return DivergedError(f"{where}: the loss is {loss}; try a lower --lr")


def _name_batch(buckets: Sequence[list[int]], bucket: list[int]) -> str:
    """Return the number of a batch within the epoch, and the indices of its first pieces."""
    names = ", ".join(str(index) for index in sorted(bucket)[:NAMED_PIECES])
    more = f" and {len(bucket) - NAMED_PIECES} more" if len(bucket) > NAMED_PIECES else ""
    number = buckets.index(bucket) + 1
    return f"batch {number} of {len(buckets)} (training pieces {names}{more})"
