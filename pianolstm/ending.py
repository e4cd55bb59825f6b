"""How a sampled piece ends: by the model's own prediction, or because it is caught in a loop."""

from collections.abc import Mapping
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor
from torch.nn import functional

from pianolstm.layers.copy_mixture import encode
from pianolstm.metrics.form import LoopBounds


class EndCalibration(NamedTuple):
    """Platt scaling of the end head's logit, with the number of frames so far.

        calibrated = scale * logit + bias + linear * q + square * q^2,  q = log(frames / typical)

    The model's vector does not tell how long a piece has been, so the head alone ends too many
    pieces after their first section (docs/log.md). The numbers are fitted to the validation split
    (`train.fit_ends`). Source: Platt 1999, "Probabilistic Outputs for Support Vector Machines".
    """

    typical: float = 1.0  # frames
    scale: float = 1.0
    bias: float = 0.0
    linear: float = 0.0
    square: float = 0.0

    @classmethod
    def of_metadata(cls, metadata: Mapping[str, Any]) -> Self:
        """Return what weights keep; older weights have none, and are not calibrated."""
        return cls(**metadata.get("end_calibration", {}))

    def apply(self, logits: Tensor, frames: Tensor | int) -> Tensor:
        """Return the calibrated logit that a piece ends after so many frames, (...)."""
        q = torch.as_tensor(frames / self.typical).log()
        return self.scale * logits + self.bias + (self.linear + self.square * q) * q


class Ending(NamedTuple):
    """How a piece may end before its last allowed frame."""

    greedy: bool = False  # end where the end is more likely than not, instead of at random
    bounds: LoopBounds | None = None  # of loops and held pitches; None = no bounds
    calibration: EndCalibration = EndCalibration()


class LoopGuard:
    """The loops that several pieces are in while they are sampled (`metrics.form.loop_lengths`).

    Args:
        rows: B, number of pieces.
        bounds: longest loops and longest held pitch, in frames.
        device: of the frames.
    """

    def __init__(self, rows: int, bounds: LoopBounds, device: torch.device) -> None:
        """Start before the first frame."""
        by_period = bounds.by_period()
        self._bounds = torch.tensor(by_period, device=device)
        self._hold = bounds.hold
        self._past: Tensor | None = None  # (B, periods, C), codes of frames, the newest first
        self._loops = torch.zeros(rows, len(by_period), dtype=torch.int64, device=device)
        self._held: Tensor | int = 0  # (B, P), frames for which each pitch has sounded

    def add(self, frame: Tensor) -> Tensor:
        """Add the next frame, (B, P), and return whether it exceeds a bound, (B,) bool."""
        code = encode(frame[:, None])  # (B, 1, C)
        self._held = (self._held + 1) * frame.to(torch.int64)
        periods = self._loops.shape[1]
        if self._past is None:
            self._past = code[:, :0]
        same = (self._past == code).all(dim=2) & frame.any(dim=1, keepdim=True)
        self._loops = (self._loops + 1) * functional.pad(same, (0, periods - same.shape[1]))
        self._past = torch.cat([code, self._past], dim=1)[:, :periods]
        too_long = (self._loops > self._bounds).any(dim=1)
        return too_long | (self._held > self._hold).any(dim=1)
