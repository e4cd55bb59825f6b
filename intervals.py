"""Music as intervals: seen from the outer notes of now. Mathematics only, as model.py.

What a tune does next it has often done before on another degree of the scale, or in another key.
In terms of keys these have nothing in common; counted from the highest or the lowest note they are
the same. Letters are those of model.py.

Source: that a model of music predicts better when it knows intervals as well as keys (Lattner,
Grachten and Widmer 2018, arXiv:1806.08236).
"""

from functools import cache

import torch
from torch import Tensor, nn
from torch.nn import functional

from settings import ModelSettings

REACH = 12  # semitones, an octave: how far a note's own step goes


class Intervals(nn.Module):
    """Steps heard, and steps told: what has moved by how far, and what shall.

    Read: each frame as intervals from the highest and from the lowest note of the one before. Told,
    in the end, is a value for each key: what stands at its distance from the highest note of now,
    and from the lowest; and for each note of now what stands at the distance from that.

    Args:
        settings: the sizes.
        keys: K.
    """

    def __init__(self, settings: ModelSettings, keys: int) -> None:
        """Make the layers."""
        super().__init__()
        self.heard = nn.Linear(2 * keys, settings.embed_size, bias=False)
        self.dropout = nn.Dropout(settings.view_dropout)
        self.steps = nn.Linear(settings.hidden_size, 2 * keys)
        self.moves = nn.Linear(settings.hidden_size, 2 * REACH + 1)

    def embed(self, frames: Tensor, before: Tensor) -> Tensor:
        """Read frames (B, T, K), the outer notes before each being (B, T, 2) -> (B, T, E)."""
        seen = seen_from(before, frames[:, :, None].expand(-1, -1, 2, -1))  # (B, T, 2, K)
        return self.heard(self.dropout(seen.flatten(2)))

    def votes(self, vectors: Tensor, frames: Tensor, outer: Tensor) -> Tensor:
        """Return what is told of each key, (B, T, K).

        Args:
            vectors: (B, T, H), what the model makes of the music so far.
            frames: (B, T, K) of 0 and 1, the last frame of it.
            outer: (B, T, 2) int64, the outer notes of that.
        """
        steps = self.steps(vectors).unflatten(2, (2, -1))  # (B, T, 2, K)
        near = functional.pad(frames, (REACH, REACH)).unfold(2, 2 * REACH + 1, 1)
        moves = near @ self.moves(vectors)[..., None]  # (B, T, K, 2R + 1) @ (B, T, 2R + 1, 1)
        return seen_from(-outer, steps).sum(dim=2) + moves[..., 0]


def outer_notes(frames: Tensor, before: Tensor) -> Tensor:
    """Return the highest and the lowest key of each frame; silence keeps those of before.

    Args:
        frames: (B, T, K) of 0 and 1.
        before: (B, 2) int64, those of the frame before; 0 before the first note.

    Returns:
        (B, T, 2) int64.
    """
    places = torch.arange(1, frames.shape[2] + 1, device=frames.device)
    outer = torch.stack([(frames * places).argmax(dim=2), frames.argmax(dim=2)], dim=2)
    outer = torch.cat([before[:, None], outer], dim=1)
    # At each time the newest that sounded, counted from 1, with 0 for what was before.
    times = torch.arange(1, outer.shape[1], device=frames.device)
    newest = torch.where(frames.any(dim=2), times, 0).cummax(dim=1).values  # (B, T)
    return outer.gather(1, newest[:, :, None].expand(-1, -1, 2))


def seen_from(anchors: Tensor, frames: Tensor) -> Tensor:
    """Return frames (..., K) with key k in the place of k - anchor; anchors (...) int64.

    What leaves at one end comes back in at the other, so that the negative anchors undo it.
    """
    keys = frames.shape[-1]
    sources = circle(keys, frames.device).index_select(0, (anchors % keys).flatten())
    return frames.gather(-1, sources.view(*anchors.shape, keys).expand_as(frames))


@cache
def circle(keys: int, device: torch.device) -> Tensor:
    """Return the key at each place counted upwards from each key, (K, K) int64."""
    with torch.inference_mode(False):
        places = torch.arange(keys, device=device)
        return (places[:, None] + places) % keys
