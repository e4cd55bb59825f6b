"""PianoLSTM: embedding -> LSTM -> head. Mathematics only: no file, no device, no print.

The model reads frames x_1..x_t and gives the probability of the next one, all 88 keys of it:
log p(x) = sum over t of log p(x_t | x_1..x_{t-1}), exact and normalised with either head. Letters
are those of data.py: B batch, T frames, K keys, E embedding, H hidden, L latent; F is any number of
frames, wherever they come from.

Source: RNN-NADE for an LSTM with a distribution of whole frames (Boulanger-Lewandowski, Bengio and
Vincent 2012, arXiv:1206.6392).
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from heads import BernoulliHead, ChordHead, Head
from intervals import Intervals, outer_notes
from memory import Memory, Past
from settings import K, ModelSettings

FEW = 16  # tunes, up to which one frame of them is quicker read without oneDNN
OCTAVE = 12  # semitones; music moved by one is in the same key


class State(NamedTuple):
    """All that a model carries from one frame to the next."""

    hidden: Tensor  # (layers + upper_layers, B, H)
    cell: Tensor  # (layers + upper_layers, B, H)
    outer: Tensor  # (B, 2) int64, the highest and the lowest key last heard; 0 where not asked for
    past: Past | None  # None for a model without memory


class PianoLSTM(nn.Module):
    """Embedding of the frame -> LSTM (-> memory -> LSTM -> intervals) -> head.

    Args:
        settings: the sizes; what is 0 there is left out. `latent_size` 0 gives the Bernoulli head,
            else the chord head. `memory`, `upper_layers`, `intervals` and `transpose` are 0 in the
            plain recipe.
        keys: K, 88 but in tests.
    """

    def __init__(self, settings: ModelSettings, keys: int = K) -> None:
        """Make the layers, freshly initialised from torch's global generator."""
        super().__init__()
        self.settings = settings
        embed_size, hidden_size = settings.embed_size, settings.hidden_size
        self.embedding = nn.Linear(keys, embed_size)
        self.key = nn.Linear(OCTAVE, embed_size, bias=False) if settings.transpose else None
        if self.key is not None:
            nn.init.zeros_(self.key.weight)
        self.lstm = LSTM(embed_size, hidden_size, settings.layers, settings.dropout)
        self.memory = Memory(settings, keys) if settings.memory else None
        self.upper = (
            LSTM(hidden_size + embed_size, hidden_size, settings.upper_layers, settings.dropout)
            if settings.upper_layers
            else None
        )
        self.intervals = Intervals(settings, keys) if settings.intervals else None
        width = hidden_size + (keys if settings.intervals else 0)
        self.head: Head = (
            ChordHead(width, settings.latent_size, keys)
            if settings.latent_size
            else BernoulliHead(width, keys)
        )

    def forward(
        self, frames: Tensor, state: State | None = None, shift: Tensor | None = None
    ) -> tuple[Tensor, State]:
        """Read frames (B, T, K) after `state`; None = the start of a tune.

        Args:
            frames: of 0 and 1.
            state: what the last call returned.
            shift: (B,) int64, the semitones that each tune was moved by; None = none of them was.

        Returns:
            The vector at each frame, (B, T, H) or, with intervals, (B, T, H + K), from which the
            head predicts the frame that follows; and the state after the last one.
        """
        if state is None:
            layers = self.settings.layers + self.settings.upper_layers
            nothing = frames.new_zeros(layers, len(frames), self.settings.hidden_size)
            unheard = torch.zeros(len(frames), 2, dtype=torch.int64, device=frames.device)
            state = State(nothing, nothing, unheard, None)
        outer = state.outer[:, None]  # (B, 1, 2)
        embedded = self.embed(frames, shift)  # (B, T, E)
        if self.memory is not None or self.intervals is not None:
            outer = outer_notes(frames, state.outer)  # (B, T, 2)
        if self.intervals is not None:
            before = torch.cat([state.outer[:, None], outer[:, :-1]], dim=1)
            embedded = embedded + self.intervals.embed(frames, before)
        embedded = functional.dropout(embedded, self.settings.input_dropout, self.training)
        below = self.settings.layers
        heard, carried = self.lstm(embedded, (state.hidden[:below], state.cell[:below]))
        vectors, past = self.drop(heard), None  # (B, T, H)
        if self.memory is not None:
            found, past = self.memory(heard, frames, outer, state.past)
            vectors = vectors + found
        if self.upper is not None:
            above = torch.cat([vectors, embedded], dim=2)
            heard, upper = self.upper(above, (state.hidden[below:], state.cell[below:]))
            vectors = vectors + self.drop(heard)
            carried = [torch.cat(parts) for parts in zip(carried, upper, strict=True)]
        if self.intervals is not None:
            vectors = torch.cat([vectors, self.intervals.votes(vectors, frames, outer)], dim=2)
        hidden, cell = carried
        return vectors, State(hidden, cell, outer[:, -1], past)

    def drop(self, heard: Tensor) -> Tensor:
        """Drop a share of an LSTM's outputs while training."""
        return functional.dropout(heard, self.settings.dropout, self.training)

    def embed(self, frames: Tensor, shift: Tensor | None) -> Tensor:
        """Return what the LSTM reads, frames and key: (B, T, K), semitones (B,) -> (B, T, E)."""
        embedded = self.embedding(frames)
        if self.key is None:
            return embedded
        shift = frames.new_zeros(len(frames), dtype=torch.int64) if shift is None else shift
        key = functional.one_hot(shift % OCTAVE, OCTAVE).to(frames.dtype)  # (B, 12)
        return embedded + self.key(key)[:, None]


class LSTM(nn.LSTM):
    """PyTorch's LSTM, reading (B, T, input), with a quicker way for a frame of a few tunes.

    oneDNN, which computes it on CPUs, arranges the weights anew at each call. That takes longer
    than a step of a few rows: a single tune is drawn two to four times as fast without.

    Args:
        input_size: of what is read.
        hidden_size: H.
        layers: one upon the other.
        dropout: share of the outputs dropped between them.
    """

    def __init__(self, input_size: int, hidden_size: int, layers: int, dropout: float) -> None:
        """Make the layers."""
        dropout = dropout if layers > 1 else 0.0
        super().__init__(input_size, hidden_size, layers, batch_first=True, dropout=dropout)

    def forward(  # type: ignore[override]
        self, inputs: Tensor, state: tuple[Tensor, Tensor] | None = None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Read (B, T, input) after hidden and cell, (layers, B, H) each; return (B, T, H), both."""
        rows, frames, _ = inputs.shape
        few = rows <= FEW and frames == 1 and inputs.device.type == "cpu"
        if self.training or state is None or not few:
            return super().forward(inputs, state)
        heard, hidden, cell = inputs[:, 0], [], []
        for weights, *before in zip(self.all_weights, *state, strict=True):
            heard, content = torch.lstm_cell(heard, before, *weights)
            hidden.append(heard)
            cell.append(content)
        return heard[:, None], (torch.stack(hidden), torch.stack(cell))


def first_rows(state: State | None, rows: int) -> State | None:
    """Return the state of a batch's first `rows` tunes, cut off from the gradient behind it."""
    if state is None:
        return None
    hidden, cell = (tensor[:, :rows].detach().contiguous() for tensor in state[:2])
    past = state.past and Past(*(tensor[:rows].detach() for tensor in state.past))
    return State(hidden, cell, state.outer[:rows], past)
