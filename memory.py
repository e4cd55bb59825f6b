"""The memory: attention over the tune's own past. Mathematics only, as model.py, which uses it.

Letters are those of model.py, and: V the views, A the heads of each, D the width of a head, S the
frames that the memory holds.

Sources: attention over an LSTM's own past (Grave, Joulin and Usunier 2017, arXiv:1612.04426; Merity
et al. 2016, arXiv:1609.07843); a bias for each lag (Raffel et al. 2020, arXiv:1910.10683).
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from intervals import seen_from
from settings import ModelSettings


class Past(NamedTuple):
    """What the memory holds of the tunes so far, oldest first."""

    keys: Tensor  # (B, S, V * A * D), what led up to each frame and the frame itself
    frames: Tensor  # (B, S, K)
    anchors: Tensor  # (B, S, V) int64, the key that each view of a frame is from


class Memory(nn.Module):
    """Attention over the tune's own past: what followed where it sounded like now?

    Tunes repeat whole parts, at lags that differ from tune to tune. At time t, with x_t read, each
    head asks a query of every moment s < t that the memory holds, and reads out the frame x_{s+1}
    that followed there, averaged by the softmax of

        query_t . key_s / sqrt(D) + bias[t - s]

    Query and key are made from the LSTM's output and, directly, from the last few frames, so that a
    repeat is recognised before the LSTM has learnt to tell one moment from another. The bias,
    learnt for each lag, is the habit of a style: to come back after 16 or 64 frames. A slot of
    score 0 and no frame stands for "nothing of the kind".

    Music repeats itself on other degrees of the scale too, which no comparison of keys can see. So
    there are up to three views, with heads of their own: of frames as they are, from their highest
    note, and from their lowest. What is compared at a moment are then intervals from that note, and
    what followed there is moved along to where the note is now.

    Args:
        settings: the sizes.
        keys: K.
    """

    def __init__(self, settings: ModelSettings, keys: int) -> None:
        """Make the layers."""
        super().__init__()
        self.span, self.match = settings.memory, settings.match
        self.views = settings.views
        self.heads = settings.views * settings.heads
        width = settings.heads * settings.head_size
        self.query = nn.Linear(settings.hidden_size, settings.views * width)
        self.key = nn.Linear(settings.hidden_size, settings.views * width)
        self.recent = nn.ModuleList(
            nn.Linear(settings.match * keys, width, bias=False) for _ in range(settings.views)
        )
        self.lag = nn.Parameter(torch.zeros(self.heads, settings.memory))  # lag 1 comes first
        self.dropout = nn.Dropout(settings.view_dropout)
        self.output = nn.Linear(self.heads * keys, settings.hidden_size, bias=False)

    def forward(
        self, hidden: Tensor, frames: Tensor, outer: Tensor, past: Past | None
    ) -> tuple[Tensor, Past]:
        """Read frames after `past`.

        Args:
            hidden: (B, T, H), the LSTM's output at these frames.
            frames: (B, T, K).
            outer: (B, T, 2), their highest and lowest notes, as `outer_notes` gives them.
            past: what the last call returned; None = the start of a tune.

        Returns:
            What the heads found for each frame, (B, T, H); and the past with these frames in it.
        """
        length = hidden.shape[1]
        now = functional.pad(outer, (1, 0))[:, :, : self.views]  # (B, T, V), the first is key 0
        if past is None:
            past = Past(self.key(hidden[:, :0]), frames[:, :0], now[:, :0])
        anchors = torch.cat([past.anchors, now], dim=1)  # (B, S, V)
        frames = torch.cat([past.frames, frames], dim=1)  # (B, S, K)
        recent = self.compare(frames, now)
        query = self.query(hidden) + recent
        keys = torch.cat([past.keys, self.key(hidden) + recent], dim=1)  # (B, S, V * A * D)
        # The newest frame has no successor yet: its place is the empty slot's.
        moments = functional.pad(keys[:, :-1], (0, 0, 0, 1))
        followed = functional.pad(frames[:, 1:], (0, 0, 0, 1))
        scores = self.by_head(query) @ self.by_head(moments).transpose(2, 3)  # (B, V * A, T, S)
        scores = scores / math.sqrt(query.shape[2] // self.heads)
        weights = (scores + self.lag_bias(length, keys.shape[1])).softmax(dim=3)
        means = []
        for view, attention in enumerate(weights.chunk(self.views, dim=1)):
            there = seen_from(anchors[:, :, view], followed)  # (B, S, K)
            mean = (attention.flatten(1, 2) @ there).unflatten(1, (-1, length))  # (B, A, T, K)
            means.append(seen_from(-now[:, None, :, view], mean))
        found = torch.cat(means, dim=1).transpose(1, 2).flatten(2)  # (B, T, V * A * K)
        kept = max(self.span, self.match - 1)
        past = Past(keys[:, -kept:], frames[:, -kept:], anchors[:, -kept:])
        return self.output(self.dropout(found)), past

    def compare(self, frames: Tensor, now: Tensor) -> Tensor:
        """Return what the heads make of the frames up to each of the newest T directly.

        Args:
            frames: (B, S, K), the newest T last.
            now: (B, T, V), where each view of those is from: of the frames before them too.

        Returns:
            (B, T, V * A * D).
        """
        window = now.shape[1] + self.match - 1
        heard = functional.pad(frames, (0, 0, window, 0))[:, -window:]  # silence before the tune
        heard = heard.unfold(1, self.match, 1).transpose(2, 3)  # (B, T, match, K)
        made = [
            layer(self.dropout(seen_from(now[:, :, None, view], heard).flatten(2)))
            for view, layer in enumerate(self.recent)
        ]
        return torch.cat(made, dim=2)

    def by_head(self, vectors: Tensor) -> Tensor:
        """Return (B, T, V * A * D) as (B, V * A, T, D)."""
        return vectors.unflatten(2, (self.heads, -1)).transpose(1, 2)

    def lag_bias(self, length: int, size: int) -> Tensor:
        """Return the bias of the newest `length` queries on each of the S = `size` places.

        (V * A, T, S); -inf where the moment is not past or beyond the memory, 0 for the empty slot.
        """
        bias = self.lag[:, : size - 1].flip(1)  # lags falling to 1, as the places come
        beyond = max(size - 1 - self.span, 0)
        bias = functional.pad(bias, (beyond, length), value=-torch.inf)
        # The newest query sees it from the start; each one before is a place further on.
        bias = bias.unfold(1, size, 1).flip(1)
        return functional.pad(bias[..., :-1], (0, 1))
