"""The memory: attention over the tune's own past. Mathematics only, as model.py, which uses it.

Letters are those of model.py, and: V the views, A the heads of each, D the width of a head, S the
frames that the memory holds.

Sources: attention over an LSTM's own past (Grave, Joulin and Usunier 2017, arXiv:1612.04426; Merity
et al. 2016, arXiv:1609.07843); a bias for each lag (Raffel et al. 2020, arXiv:1910.10683).
"""

import math
from collections.abc import Sequence
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from intervals import seen_from
from settings import ModelSettings

BLOCK = 64  # moments that are gathered before they are put to the older ones


class Past(NamedTuple):
    """What the memory holds of the tunes so far, oldest first.

    A moment is complete when the frame that followed it is known. The latest ones are kept apart
    from the older, so that a step copies only those.
    """

    old_keys: Tensor  # (B, V * A, S, D), what led up to each moment, its own frame with it
    old_there: Tensor  # (B, V, S, K), the frame that followed, as seen from that moment
    keys: Tensor  # (B, V * A, S, D), the same of the latest moments
    there: Tensor  # (B, V, S, K)
    newest: Tensor  # (B, V * A, 1, D), the key of the moment whose next frame is not known yet
    anchors: Tensor  # (B, 1, V) int64, what each view of it is seen from
    heard: Tensor  # (B, match - 1, K), the last frames


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
        self.heads, self.head_size = settings.views * settings.heads, settings.head_size
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
        now = functional.pad(outer, (1, 0))[:, :, : self.views]  # (B, T, V), the first is key 0
        past = past or self.nothing(frames)
        heard = torch.cat([past.heard, frames], dim=1)  # (B, match - 1 + T, K)
        recent = self.compare(heard, now)
        newest = torch.cat([past.newest, self.by_head(self.key(hidden) + recent)], dim=2)
        anchors = torch.cat([past.anchors, now], dim=1)
        # A frame completes the moment before it. A tune's first frame has none before.
        complete = newest.shape[2] - 1
        followed = frames[:, None, frames.shape[1] - complete :].expand(-1, self.views, -1, -1)
        there = seen_from(anchors[:, :-1].transpose(1, 2), followed)  # (B, V, T, K)
        keys = torch.cat([past.keys, newest[:, :, :-1]], dim=2)
        there = torch.cat([past.there, there], dim=2)
        query = self.by_head(self.query(hidden) + recent)
        found = self.search(query, [past.old_keys, keys], [past.old_there, there])
        found = seen_from(-now.transpose(1, 2)[:, :, None], found)  # (B, V, A, T, K)
        found = found.flatten(1, 2).transpose(1, 2).flatten(2)  # (B, T, V * A * K)
        older = past.old_keys, past.old_there
        if keys.shape[2] >= BLOCK:
            older = (
                torch.cat([past.old_keys, keys], dim=2)[:, :, -self.span :],
                torch.cat([past.old_there, there], dim=2)[:, :, -self.span :],
            )
            keys, there = keys[:, :, :0], there[:, :, :0]
        heard = heard[:, frames.shape[1] :]
        past = Past(*older, keys, there, newest[:, :, -1:], anchors[:, -1:], heard)
        return self.output(self.dropout(found)), past

    def nothing(self, frames: Tensor) -> Past:
        """Return the past of tunes that begin with these frames, (B, T, K): silence."""
        rows, keys = len(frames), frames.shape[2]
        no_keys = frames.new_zeros(rows, self.heads, 0, self.head_size)
        no_frames = frames.new_zeros(rows, self.views, 0, keys)
        no_anchors = frames.new_zeros(rows, 0, self.views, dtype=torch.int64)
        heard = frames.new_zeros(rows, self.match - 1, keys)
        return Past(no_keys, no_frames, no_keys, no_frames, no_keys, no_anchors, heard)

    def search(self, query: Tensor, keys: Sequence[Tensor], there: Sequence[Tensor]) -> Tensor:
        """Return what followed where it sounded like now, as seen from there.

        Args:
            query: (B, V * A, T, D), of the newest T frames.
            keys: blocks (B, V * A, S, D), oldest first, the last of them up to lag 1.
            there: the same blocks of frames, (B, V, S, K).

        Returns:
            (B, V, A, T, K).
        """
        empty = query.new_zeros(*query.shape[:3], 1)  # scores
        scores = torch.cat([*(query @ block.transpose(2, 3) for block in keys), empty], dim=3)
        bias = self.lag_bias(query.shape[2], scores.shape[3])
        weights = (scores / math.sqrt(self.head_size) + bias).softmax(dim=3)
        weights = weights.unflatten(1, (self.views, -1)).flatten(2, 3)  # (B, V, A * T, S)
        sizes = [block.shape[2] for block in there]
        shares = weights.split([*sizes, 1], dim=3)[:-1]
        found = sum(share @ block for share, block in zip(shares, there, strict=True))
        return cast(Tensor, found).unflatten(2, (-1, query.shape[2]))

    def compare(self, heard: Tensor, now: Tensor) -> Tensor:
        """Return what the heads make of the frames up to each of T directly.

        Args:
            heard: (B, match - 1 + T, K), these T and the frames before them.
            now: (B, T, V), where each view of the T is from: of the frames before them too.

        Returns:
            (B, T, V * A * D).
        """
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
