"""Attention over the piece's own past.

Letters are those of model.py, and: V viewpoints, A attention heads of each, D size of a head,
S frames in the cache.

Sources: attention of an LSTM over its own past (Grave, Joulin and Usunier 2017, arXiv:1612.04426;
Merity et al. 2016, arXiv:1609.07843); a bias for each lag (Raffel et al. 2020, arXiv:1910.10683);
several viewpoints of one melody (Conklin and Witten 1995, "Multiple viewpoint systems for music
prediction", Journal of New Music Research 24).
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from pianolstm.layers.dropout import Dropout
from pianolstm.layers.relative_pitch import to_relative

_BLOCK = 64  # frames of the recent block before it is appended to the old one


class KVBlock(NamedTuple):
    """Keys and values of consecutive frames, oldest first."""

    keys: Tensor  # (B, V * A, S, D)
    values: Tensor  # (B, V, S, P), the frame that followed each key, relative to the key's anchor


class KVCache(NamedTuple):
    """What attention keeps of the frames so far.

    The value of a key is the frame that follows it, so the newest key has no value yet. Frames are
    first appended to the small recent block, so that appending copies little.
    """

    old: KVBlock
    recent: KVBlock
    pending_key: Tensor  # (B, V * A, 1, D), the newest key; S = 0 at the start of a piece
    pending_anchor: Tensor  # (B, 1, V) int64, the anchor of that key
    last_frames: Tensor  # (B, query_frames - 1, P), which enter the next queries and keys

    def first_rows(self, rows: int) -> "KVCache":
        """Return the cache of the first pieces of the batch, detached from the graph."""
        old, recent = (KVBlock(*(t[:rows].detach() for t in block)) for block in self[:2])
        return KVCache(old, recent, *(t[:rows].detach() for t in self[2:]))


class HistoryAttention(nn.Module):
    """Attention over the piece's own past: what followed where the music was like now?

    Pieces repeat whole sections, at lags that differ from piece to piece. At time t, with x_t
    known, each head compares a query with the keys of all earlier frames s < t in the cache, and
    returns the average of the frames x_{s+1} that followed them, weighted by the softmax of

        query_t . key_s / sqrt(D) + lag_bias[t - s]

    Queries and keys are projections of the LSTM's output and of the last `query_frames` frames, so
    that a repeat is recognised before the LSTM has learnt to distinguish positions. The learnt bias
    of each lag holds a style's habits, such as repeating after 16 or 64 frames. An additional
    position with logit 0 and an empty frame lets a head return nothing.

    Music also repeats on other degrees of the scale. So there are up to three viewpoints, each with
    heads of its own: absolute pitches, intervals from the highest note, and intervals from the
    lowest note. Each frame has an anchor per viewpoint (0, the highest pitch, the lowest pitch);
    frames are compared relative to their anchors, and a value is moved to the current anchor.

    Args:
        hidden_size: H.
        window: frames that attention reaches back to.
        viewpoints: V, 1 to 3.
        heads: A, attention heads of each viewpoint.
        head_dim: D.
        query_frames: most recent frames that enter queries and keys directly.
        dropout: dropout probability of those frames and of the output.
        pitches: P.
    """

    def __init__(
        self,
        hidden_size: int,
        window: int,
        viewpoints: int,
        heads: int,
        head_dim: int,
        query_frames: int,
        dropout: float,
        pitches: int,
    ) -> None:
        """Make the layers."""
        super().__init__()
        self.window, self.query_frames = window, query_frames
        self.viewpoints, self.heads, self.head_dim = viewpoints, viewpoints * heads, head_dim
        size = heads * head_dim
        self.query_proj = nn.Linear(hidden_size, viewpoints * size)
        self.key_proj = nn.Linear(hidden_size, viewpoints * size)
        self.frame_proj = nn.ModuleList(
            nn.Linear(query_frames * pitches, size, bias=False) for _ in range(viewpoints)
        )
        self.lag_bias = nn.Parameter(torch.zeros(self.heads, window))  # column 0 is lag 1
        self.dropout = Dropout(dropout)
        self.out_proj = nn.Linear(self.heads * pitches, hidden_size, bias=False)

    def forward(
        self, hidden: Tensor, frames: Tensor, outer: Tensor, cache: KVCache | None
    ) -> tuple[Tensor, KVCache]:
        """Attend from each frame to those before it.

        Args:
            hidden: (B, T, H), the LSTM's output at these frames.
            frames: (B, T, P).
            outer: (B, T, 2) int64, their highest and lowest pitch (`outer_pitches`).
            cache: what the last call returned; None = the start of a piece.

        Returns:
            The attention's output, (B, T, H), and the cache with these frames added.
        """
        anchors = functional.pad(outer, (1, 0))[:, :, : self.viewpoints]  # (B, T, V)
        cache = cache or self.empty_cache(frames)
        context = torch.cat([cache.last_frames, frames], dim=1)  # (B, query_frames - 1 + T, P)
        from_frames = self._project_frames(context, anchors)  # (B, T, V * A * D)
        new_keys = self._split_heads(self.key_proj(hidden) + from_frames)
        keys = torch.cat([cache.pending_key, new_keys], dim=2)
        key_anchors = torch.cat([cache.pending_anchor, anchors], dim=1)
        # Each frame is the value of the key before it. The first frame of a piece has none before.
        complete = keys.shape[2] - 1
        following = frames[:, None, frames.shape[1] - complete :].expand(
            -1, self.viewpoints, -1, -1
        )
        values = to_relative(following, key_anchors[:, :-1].transpose(1, 2))  # (B, V, T, P)
        recent = _append(cache.recent, KVBlock(keys[:, :, :-1], values))
        query = self._split_heads(self.query_proj(hidden) + from_frames)
        averaged = self.attend(query, cache.old, recent)  # (B, V, A, T, P)
        absolute = to_relative(averaged, -anchors.transpose(1, 2)[:, :, None])
        joined = absolute.flatten(1, 2).transpose(1, 2).flatten(2)  # (B, T, V * A * P)
        old = cache.old
        if recent.keys.shape[2] >= _BLOCK:
            old = KVBlock(*(t[:, :, -self.window :] for t in _append(old, recent)))
            recent = KVBlock(*(t[:, :, :0] for t in recent))
        cache = KVCache(
            old, recent, keys[:, :, -1:], key_anchors[:, -1:], context[:, frames.shape[1] :]
        )
        return self.out_proj(self.dropout(joined)), cache

    def empty_cache(self, frames: Tensor) -> KVCache:
        """Return the cache before the first of these frames, (B, T, P)."""
        rows, pitches = len(frames), frames.shape[2]
        no_keys = frames.new_zeros(rows, self.heads, 0, self.head_dim)
        empty = KVBlock(no_keys, frames.new_zeros(rows, self.viewpoints, 0, pitches))
        no_anchors = frames.new_zeros(rows, 0, self.viewpoints, dtype=torch.int64)
        silence = frames.new_zeros(rows, self.query_frames - 1, pitches)
        return KVCache(empty, empty, no_keys, no_anchors, silence)

    def attend(self, query: Tensor, *blocks: KVBlock) -> Tensor:
        """Return the values averaged by attention, relative to their own anchors.

        Args:
            query: (B, V * A, T, D), of the newest T frames.
            blocks: keys and values, oldest first; the last key of the last block has lag 1 to the
                newest query.

        Returns:
            (B, V, A, T, P).
        """
        nothing = query.new_zeros(*query.shape[:3], 1)  # the logit of the empty position
        logits = [query @ block.keys.transpose(2, 3) for block in blocks]
        scores = torch.cat([*logits, nothing], dim=3) / math.sqrt(self.head_dim)
        bias = self._lag_biases(query.shape[2], scores.shape[3])
        weights = (scores + bias).softmax(dim=3)  # (B, V * A, T, S + 1)
        weights = weights.unflatten(1, (self.viewpoints, -1)).flatten(2, 3)  # (B, V, A * T, S + 1)
        *shares, _ = weights.split([*(block.values.shape[2] for block in blocks), 1], dim=3)
        averaged = shares[0] @ blocks[0].values
        for share, block in zip(shares[1:], blocks[1:], strict=True):
            averaged = averaged + share @ block.values
        return averaged.unflatten(2, (-1, query.shape[2]))

    def _project_frames(self, context: Tensor, anchors: Tensor) -> Tensor:
        """Return what the last frames contribute to queries and keys, (B, T, V * A * D).

        Args:
            context: (B, query_frames - 1 + T, P), the T frames and those before them.
            anchors: (B, T, V), of the T frames; each also anchors the frames in its window.
        """
        windows = context.unfold(1, self.query_frames, 1).transpose(2, 3)  # (B, T, query_frames, P)
        projected = [
            layer(self.dropout(to_relative(windows, anchors[:, :, None, view]).flatten(2)))
            for view, layer in enumerate(self.frame_proj)
        ]
        return torch.cat(projected, dim=2)

    def _split_heads(self, vectors: Tensor) -> Tensor:
        """Return (B, T, V * A * D) as (B, V * A, T, D)."""
        return vectors.unflatten(2, (self.heads, -1)).transpose(1, 2)

    def _lag_biases(self, length: int, size: int) -> Tensor:
        """Return the bias of the newest queries for each key and for the empty position.

        It is -inf where a key is not in the past or beyond the window, and 0 at the empty position.
        With a window of 4, 2 queries and 5 keys (b3 is the bias of lag 3, x is -inf):

            key                 0   1   2   3   4  empty
            query before last   b4  b3  b2  b1  x   0
            last query          x   b4  b3  b2  b1  0

        Each row is a window onto  x b4 b3 b2 b1 x x , one place further left for each later query.

        Args:
            length: number of newest queries.
            size: number of keys, and 1 for the empty position.

        Returns:
            (V * A, length, size).
        """
        falling = self.lag_bias[:, : size - 1].flip(1)  # b4 b3 b2 b1
        beyond = max(size - 1 - self.window, 0)
        padded = functional.pad(falling, (beyond, length), value=-torch.inf)
        rows = padded.unfold(1, size, 1).flip(1)  # the last query sees it from the start
        return functional.pad(rows[..., :-1], (0, 1))


def _append(block: KVBlock, new: KVBlock) -> KVBlock:
    return KVBlock(
        torch.cat([block.keys, new.keys], dim=2), torch.cat([block.values, new.values], dim=2)
    )
