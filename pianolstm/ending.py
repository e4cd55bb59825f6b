"""How a sampled piece ends: by the model's own prediction, or because it is caught in a loop."""

from typing import NamedTuple

import torch
from torch import Tensor

from pianolstm.metrics.form import MAX_PERIOD, LoopBounds


class Ending(NamedTuple):
    """How a piece may end before its last allowed frame."""

    greedy: bool = False  # end where the end is more likely than not, instead of at random
    bounds: LoopBounds | None = None  # of loops and held pitches; None = no bounds


class LoopGuard:
    """The loops that several pieces are in while they are sampled (`metrics.form.longest_loop`).

    Args:
        rows: B, number of pieces.
        bounds: longest loop and longest held pitch, in frames.
        device: of the frames.
    """

    def __init__(self, rows: int, bounds: LoopBounds, device: torch.device) -> None:
        """Start before the first frame."""
        self._bounds = bounds
        self._past: list[Tensor] = []  # the last frames, (B, P) each, the newest first
        self._loops = torch.zeros(rows, 0, dtype=torch.int64, device=device)  # by period, from 1
        self._held: Tensor | int = 0  # (B, P), frames for which each pitch has sounded

    def exceeded(self, frame: Tensor) -> Tensor:
        """Return whether a next frame, (B, P), would exceed a bound, (B,) bool."""
        loops, held = self._extend(frame)
        return (loops > self._bounds.loop).any(dim=1) | (held > self._bounds.hold).any(dim=1)

    def add(self, frame: Tensor) -> None:
        """Add the next frame, (B, P)."""
        loops, self._held = self._extend(frame)
        self._past = [frame, *self._past][:MAX_PERIOD]
        missing = len(self._past) - loops.shape[1]
        self._loops = torch.cat([loops, loops.new_zeros(len(frame), missing)], dim=1)

    def _extend(self, frame: Tensor) -> tuple[Tensor, Tensor]:
        """Return the lengths of all loops, (B, periods), and of held pitches, (B, P)."""
        held = (self._held + 1) * frame.to(torch.int64)
        if not self._past:
            return self._loops, held
        same = (torch.stack(self._past, dim=1) == frame[:, None]).all(dim=2)  # (B, periods)
        same &= frame.any(dim=1, keepdim=True)
        return (self._loops + 1) * same, held
