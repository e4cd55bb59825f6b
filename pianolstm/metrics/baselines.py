"""Two reference predictors, fitted to the training split by counting.

Both are scored like a model: negative log-likelihood (NLL) in nats per frame, pooled over all
frames of a split except the first frame of each piece.
"""

import math

import numpy as np
import torch

from pianolstm.rolls import PITCHES, PackedRolls, unpack


class Baselines:
    """A unigram model and a first-order Markov model of each pitch.

    Every probability is (count + 1) / (trials + 2), Laplace's rule of succession, so none is 0
    or 1.

    Args:
        train: the training split.
    """

    def __init__(self, train: PackedRolls) -> None:
        counts = torch.from_numpy(train.pitch_counts()).double()
        self.marginals = (counts + 1) / (int(train.lengths.sum()) + 2.0)  # (P,), P(pitch sounds)
        starts, ends, holds, rests = _count_transitions(train)
        self._p_hold = (holds + 1) / (holds + ends + 2)  # P(sounds | sounded in the frame before)
        self._p_start = (starts + 1) / (starts + rests + 2)  # P(sounds | was silent)

    def unigram(self, rolls: PackedRolls) -> float:
        """Return the NLL if each pitch sounds with its training frequency, whatever came before.

        Args:
            rolls: the split to score; every piece has at least one frame.

        Returns:
            Nats per frame.
        """
        firsts = unpack(rolls.packed[rolls.offsets[:-1]])  # (N, P), not scored
        counts = rolls.pitch_counts() - firsts.sum(axis=0)
        frequency = torch.from_numpy(counts / int((rolls.lengths - 1).sum()))  # (P,)
        p = self.marginals
        return float(-(frequency * p.log() + (1 - frequency) * (1 - p).log()).sum())

    def first_order_markov(self, rolls: PackedRolls) -> float:
        """Return the NLL if each pitch depends on whether it sounded in the previous frame.

        One probability to continue and one to start are shared by all pitches.

        Args:
            rolls: the split to score; every piece has at least one frame.

        Returns:
            Nats per frame.
        """
        starts, ends, holds, rests = _count_transitions(rolls)
        nll = -holds * math.log(self._p_hold) - ends * math.log(1 - self._p_hold)
        nll -= starts * math.log(self._p_start) + rests * math.log(1 - self._p_start)
        return nll * PITCHES / (starts + ends + holds + rests)


def _count_transitions(rolls: PackedRolls) -> tuple[int, int, int, int]:
    """Count transitions of single pitches between frames: starts, ends, holds and rests."""
    starts = ends = holds = frames = 0
    for before, after in rolls.transitions():  # (n, 11) uint8 each
        starts += int(np.bitwise_count(~before & after).sum())
        ends += int(np.bitwise_count(before & ~after).sum())
        holds += int(np.bitwise_count(before & after).sum())
        frames += len(before)
    return starts, ends, holds, frames * PITCHES - starts - ends - holds
