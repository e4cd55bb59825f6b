"""Relative pitch: frames as intervals from the outer notes, and logits indexed by interval.

A piece often continues as it did before on another degree of the scale, or in another key. Such
passages share no absolute pitches, but as intervals from the highest or lowest note they are equal.
Letters are those of model.py.

Source: models of music predict better with intervals beside absolute pitches (Lattner, Grachten
and Widmer 2018, arXiv:1806.08236).
"""

from functools import cache

import torch
from torch import Tensor, nn
from torch.nn import functional

from pianolstm.layers.dropout import Dropout

_REACH = 12  # semitones; the largest interval of `near_proj`


class RelativePitch(nn.Module):
    """Encodes frames as intervals, and predicts logits by interval.

    Input: each frame as intervals from the highest and from the lowest note of the frame before.
    Output: a logit for each pitch, the sum of three parts: one indexed by its interval from the
    current highest note, one by that from the lowest, and one by that from each current note up to
    an octave away.

    Args:
        embed_size: E.
        hidden_size: H.
        dropout: dropout probability of the input intervals.
        pitches: P.
    """

    def __init__(self, embed_size: int, hidden_size: int, dropout: float, pitches: int) -> None:
        """Make the layers."""
        super().__init__()
        self.input_proj = nn.Linear(2 * pitches, embed_size, bias=False)
        self.dropout = Dropout(dropout)
        self.outer_proj = nn.Linear(hidden_size, 2 * pitches)
        self.near_proj = nn.Linear(hidden_size, 2 * _REACH + 1)

    def embed(self, frames: Tensor, previous_outer: Tensor) -> Tensor:
        """Return the embedding of frames as intervals, (B, T, E).

        Args:
            frames: (B, T, P) of 0 and 1.
            previous_outer: (B, T, 2) int64, highest and lowest pitch before each frame.
        """
        # (B, T, 2, P)
        relative = to_relative(frames[:, :, None].expand(-1, -1, 2, -1), previous_outer)
        return self.input_proj(self.dropout(relative.flatten(2)))

    def pitch_logits(self, vectors: Tensor, frames: Tensor, outer: Tensor) -> Tensor:
        """Return the logit of each pitch in the next frame, (B, T, P).

        Args:
            vectors: (B, T, H).
            frames: (B, T, P) of 0 and 1, the current frames.
            outer: (B, T, 2) int64, their highest and lowest pitch.
        """
        by_interval = self.outer_proj(vectors).unflatten(2, (2, -1))  # (B, T, 2, P)
        from_outer = to_relative(by_interval, -outer).sum(dim=2)
        # For each pitch, the current notes from an octave below to an octave above it.
        # Each frame is filtered by weights of its own: one group of channels per frame.
        filters = self.near_proj(vectors).view(-1, 1, 2 * _REACH + 1)
        padded = functional.pad(frames, (_REACH, _REACH)).view(1, len(filters), -1)
        from_notes = functional.conv1d(padded, filters, groups=len(filters))
        return from_outer + from_notes.view_as(from_outer)


def outer_pitches(frames: Tensor, previous: Tensor) -> Tensor:
    """Return the highest and lowest pitch of each frame; a silent frame repeats those before it.

    Args:
        frames: (B, T, P) of 0 and 1.
        previous: (B, 2) int64, those before the first frame; 0 before the first note of a piece.

    Returns:
        (B, T, 2) int64, columns of the roll.
    """
    order = torch.arange(1, frames.shape[2] + 1, device=frames.device)
    outer = torch.stack([(frames * order).argmax(dim=2), frames.argmax(dim=2)], dim=2)
    outer = torch.cat([previous[:, None], outer], dim=1)
    # Index of the latest frame with a note, counted from 1; 0 stands for `previous`.
    index = torch.arange(1, outer.shape[1], device=frames.device)
    latest = torch.where(frames.any(dim=2), index, 0).cummax(dim=1).values  # (B, T)
    return outer.gather(1, latest[:, :, None].expand(-1, -1, 2))


def to_relative(frames: Tensor, anchors: Tensor) -> Tensor:
    """Return frames with pitch p moved to column p - anchor, cyclically.

    With three pitches and the anchor 2, the columns (0, 1, 2) become (2, 0, 1): column 0 is the
    anchor itself. The negative anchor undoes it.

    Args:
        frames: (..., P).
        anchors: (...) int64.

    Returns:
        (..., P).
    """
    pitches = frames.shape[-1]
    sources = _rotations(pitches, frames.device).index_select(0, (anchors % pitches).flatten())
    return frames.gather(-1, sources.view(*anchors.shape, pitches).expand_as(frames))


@cache
def _rotations(pitches: int, device: torch.device) -> Tensor:
    """Return the source column of each column for each anchor, (P, P) int64."""
    with torch.inference_mode(False):
        columns = torch.arange(pitches, device=device)
        return (columns[:, None] + columns) % pitches
