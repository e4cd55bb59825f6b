"""Metrical position: where in its bars and sections a piece is.

Chords change at the same places of each bar, and sections have 8 bars or 16. An LSTM has to count
frames to know where it is, and loses count in its own samples. So the model is given two things:

- the number of the frame, as sines and cosines of the periods of bars and sections;
- for a few periods, how often the bass has changed at each phase of the period so far: a histogram
  that starts with the phase of the next frame. So it need not know the upbeat or the metre.

Letters are those of model.py, and: N phases of all histograms.

Sources: sines and cosines (Vaswani et al. 2017, arXiv:1706.03762); changes of harmony as evidence
of the metre (Temperley and Sleator 1999, "Modeling Meter and Harmony: A Preference-Rule Approach").
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

# Frames. A bar of 4/4 has 8 and one of 6/8 or 3/4 has 6, where a frame is an eighth note.
WAVES = (2, 4, 8, 16, 32, 64, 128, 3, 6, 12, 24, 48, 96)
HISTOGRAMS = (9, 12, 16)  # 9 = a bar of 9/8
PHASES = sum(HISTOGRAMS)
_PRIOR = 0.5  # changes added to each phase


class MetreState(NamedTuple):
    """What metrical position keeps of the frames so far."""

    frames: Tensor  # (B,) int64, how many have been read
    changes: Tensor  # (B, N), how often the bass changed at each phase

    def first_rows(self, rows: int) -> "MetreState":
        """Return the state of the first pieces of the batch."""
        return MetreState(*(tensor[:rows] for tensor in self))


class MetricalPosition(nn.Module):
    """Embeds the position of the next frame.

    Args:
        embed_size: E.
    """

    def __init__(self, embed_size: int) -> None:
        """Make the layer; at first it gives 0."""
        super().__init__()
        self.proj = nn.Linear(2 * len(WAVES) + PHASES, embed_size, bias=False)
        nn.init.zeros_(self.proj.weight)

    @staticmethod
    def initial_state(frames: Tensor) -> MetreState:
        """Return the state before the first of these frames, (B, T, P)."""
        rows = len(frames)
        return MetreState(frames.new_zeros(rows, dtype=torch.int64), frames.new_zeros(rows, PHASES))

    def forward(self, changes: Tensor, state: MetreState) -> tuple[Tensor, MetreState]:
        """Return the embedding for each frame, of the position of the one after it.

        Args:
            changes: (B, T) bool, whether the bass differs from that of the frame before.
            state: of the frames before these.

        Returns:
            (B, T, E), and the state after the last frame.
        """
        device, dtype = changes.device, state.changes.dtype
        time = state.frames[:, None] + torch.arange(changes.shape[1], device=device)  # (B, T)
        following = time[:, :, None] + 1
        periods = torch.tensor(WAVES, device=device)
        angles = (following % periods).to(dtype) * (2 * torch.pi / periods.to(dtype))
        features, after = [angles.sin(), angles.cos()], []
        for period, before in zip(HISTOGRAMS, state.changes.split(HISTOGRAMS, dim=1), strict=True):
            phases = functional.one_hot(time % period, period)  # (B, T, period)
            totals = before[:, None] + (phases * changes[:, :, None]).cumsum(dim=1)
            after.append(totals[:, -1])
            order = (following + torch.arange(period, device=device)) % period
            chance = totals.sum(dim=2, keepdim=True) / period
            # The logarithm of the ratio to as many changes at random phases.
            features.append(((totals.gather(2, order) + _PRIOR) / (chance + _PRIOR)).log())
        embedded = self.proj(torch.cat(features, dim=2))
        return embedded, MetreState(time[:, -1] + 1, torch.cat(after, dim=1))
