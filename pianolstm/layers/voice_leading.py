"""Voice leading: logits of a frame's notes by their interval from notes of the frame before.

The notes of a frame are chosen from the highest down, and so are its voices: the second note mostly
continues the second note of the frame before, by a step or not at all. Letters are those of
model.py and heads.py.
"""

from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from pianolstm.layers.dropout import dropout

_REACH = 12  # semitones; the largest interval
_VOICES = 8  # from the highest down; lower ones share the logits of the last
_NO_VOICE, _SOME_VOICE = 2 * _REACH + 1, 2 * _REACH + 2  # columns of stop's logits, after intervals
_COLUMNS = 2 * _REACH + 3


class Voices(NamedTuple):
    """What voice leading knows of F frames, computed once for all their choices."""

    ordered: Tensor  # (F, _VOICES) int64, the classes of the frame read, from the highest; 0 = none
    below: Tensor  # (F, P + 1) int64, the highest class of the frame read up to each; 0 = none
    logits: Tensor  # (F, 2 * _COLUMNS)
    scale: Tensor  # (F, 1), 0 where dropout leaves voice leading out


class VoiceLeading(nn.Module):
    """Adds to a choice logits by interval from two notes of the frame that was read last.

    The k-th choice of a frame has two anchors: the k-th highest note of the frame before, and its
    highest note below the previous choice. Each pitch up to an octave from an anchor has the logit
    of its interval; stop has one logit if the anchor exists, and another if not.

    Args:
        hidden_size: H.
        dropout: probability, while training, that a frame is predicted without voice leading:
            otherwise small data sets are memorised by it.
    """

    def __init__(self, hidden_size: int, dropout: float) -> None:
        """Make the layers; at first they change no logit."""
        super().__init__()
        self.dropout = dropout
        self.proj = nn.Linear(hidden_size, 2 * _COLUMNS)
        nn.init.zeros_(self.proj.weight)
        nn.init.zeros_(self.proj.bias)
        self.voice_bias = nn.Parameter(torch.zeros(_VOICES, 2 * _COLUMNS))

    def prepare(self, hidden: Tensor, read: Tensor) -> Voices:
        """Return what the choices need: hidden (F, H), read (F, P) of 0 and 1."""
        classes = torch.arange(1, read.shape[1] + 1, device=read.device)
        notes = (read * classes).long()  # (F, P), the class of each note
        voices = min(_VOICES, read.shape[1])
        ordered = functional.pad(notes.topk(voices).values, (0, _VOICES - voices))
        below = functional.pad(notes.cummax(dim=1).values, (1, 0))
        scale = dropout(torch.ones_like(read[:, :1]), self.dropout, self.training) > 0
        return Voices(ordered, below, self.proj(hidden), scale.to(hidden.dtype))

    def forward(self, voices: Voices, frame: Tensor, number: Tensor, previous: Tensor) -> Tensor:
        """Return what is added to the logits of S choices, (S, P + 1).

        Args:
            voices: of the F frames.
            frame: (S,) int64, the frame of each choice.
            number: (S,) int64, how many notes of the frame were chosen before.
            previous: (S,) int64, the class of the previous choice; P + 1 for the first.
        """
        voice = number.clamp(max=_VOICES - 1)
        of_voice = voices.ordered.index_select(0, frame).gather(1, voice[:, None])
        before = (previous - 1).clamp(min=0)[:, None]
        anchors = torch.cat(
            [of_voice, voices.below.index_select(0, frame).gather(1, before)], dim=1
        )
        logits = voices.logits.index_select(0, frame) + self.voice_bias.index_select(0, voice)
        logits = logits * voices.scale.index_select(0, frame)
        pitches = voices.below.shape[1] - 1
        columns = _columns(pitches, frame.device).index_select(0, anchors.flatten())  # (2 S, P + 1)
        padded = functional.pad(logits.view(-1, _COLUMNS), (0, 1))  # the last is 0
        return padded.gather(1, columns).view(-1, 2, pitches + 1).sum(dim=1)


@cache
def _columns(pitches: int, device: torch.device) -> Tensor:
    """Return the column of each class's logit for each anchor, (P + 1, P + 1) int64."""
    with torch.inference_mode(False):
        classes = torch.arange(pitches + 1, device=device)
        interval = classes - classes[:, None]
        near = (interval.abs() <= _REACH) & (classes > 0) & (classes > 0)[:, None]
        columns = (interval + _REACH).where(near, _COLUMNS)
        columns[0, 0], columns[1:, 0] = _NO_VOICE, _SOME_VOICE
        return columns
