"""How well a model predicts, and how well it would have to.

The score is the negative log-likelihood (NLL) in nats per frame, all 88 keys of a frame together,
pooled over all frames of a split (the rule of Boulanger-Lewandowski et al. 2012).
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from data import RollDataset, batches, chunks
from heads import DRAWS, LIKELIEST
from model import PianoLSTM, first_rows
from settings import K

EVAL_BATCH = 32  # tunes; a matter of speed and memory alone
EVAL_CHUNK = 128  # frames; likewise


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
                read = hidden[counted]
                unused = read.new_zeros(len(read), DRAWS)  # at temperature 0 there is no chance
                predicted = model.head.sample(read, unused, LIKELIEST) > 0
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
        counts = torch.from_numpy(train.rolls.key_counts()).double()
        self.marginals = (counts + 1) / (int(train.lengths.sum()) + 2.0)  # (K,) p(key sounds)
        rose, fell, held, silent = changes(train)
        self.p_held = (held + 1) / (held + fell + 2)  # p(sounds | sounded)
        self.p_struck = (rose + 1) / (rose + silent + 2)  # p(sounds | was silent)

    def marginal(self, dataset: RollDataset) -> float:
        """Return the NLL of "always the average frame": each key by itself, with its frequency."""
        firsts = np.stack([roll[0] for roll in dataset.rolls])  # (N, K), which are not scored
        counts = dataset.rolls.key_counts() - firsts.sum(axis=0)
        sounding = torch.from_numpy(counts / int((dataset.lengths - 1).sum()))  # (K,)
        p = self.marginals
        return float(-(sounding * p.log() + (1 - sounding) * (1 - p).log()).sum())

    def copy_previous(self, dataset: RollDataset) -> float:
        """Return the NLL of "the frame before again", either kind of change at its own rate."""
        rose, fell, held, silent = changes(dataset)
        nll = -held * math.log(self.p_held) - fell * math.log(1 - self.p_held)
        nll -= rose * math.log(self.p_struck) + silent * math.log(1 - self.p_struck)
        return nll * K / (rose + fell + held + silent)


def changes(dataset: RollDataset) -> tuple[int, int, int, int]:
    """Count, over all keys, from one frame to the next: begins, ends, sounds on, stays silent."""
    rose = fell = held = frames = 0
    for before, after in dataset.rolls.steps():
        rose += int(np.bitwise_count(~before & after).sum())
        fell += int(np.bitwise_count(before & ~after).sum())
        held += int(np.bitwise_count(before & after).sum())
        frames += len(before)
    return rose, fell, held, frames * K - rose - fell - held
