"""The models: PianoLSTM, and AttentivePianoLSTM with attention over the piece's own past.

A model reads frames x_1..x_t and gives the distribution of the next one, all 88 pitches of it:
log p(x) = sum over t of log p(x_t | x_1..x_{t-1}), exact and normalised. One letter per axis, in
all files: N pieces, B batch, T frames, P = 88 pitches, E embedding, H hidden, L latent.

Source: recurrent networks with a distribution over whole frames, RNN-NADE (Boulanger-Lewandowski,
Bengio and Vincent 2012, arXiv:1206.6392).
"""

from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from pianolstm.checkpoint import (
    Metadata,
    check_metadata,
    find_weights,
    read_weights,
    write_weights,
)
from pianolstm.files import InputError, one_line
from pianolstm.layers.attention import HistoryAttention, KVCache
from pianolstm.layers.copy_mixture import Candidates, CopyCache, CopyHead
from pianolstm.layers.dropout import dropout
from pianolstm.layers.heads import (
    UNIFORMS_PER_FRAME,
    BernoulliHead,
    ChordHead,
    EndHead,
    Head,
)
from pianolstm.layers.lstm import LSTM
from pianolstm.layers.metrical_position import MetreState, MetricalPosition
from pianolstm.layers.relative_pitch import RelativePitch, outer_pitches
from pianolstm.rolls import PITCHES
from settings import ADAPTABLE, ModelSettings

OCTAVE = 12  # semitones
STORED = (
    torch.float32,
    torch.float16,
)  # types of numbers in weights files; all are computed in float32


class State(NamedTuple):
    """The state of an LSTM between two frames."""

    hidden: Tensor  # (layers, B, H)
    cell: Tensor  # (layers, B, H)

    def first_rows(self, rows: int) -> "State":
        """Return the state of the first pieces of the batch, detached from the graph."""
        return State(*(tensor[:, :rows].detach().contiguous() for tensor in self))


class PianoLSTM(nn.Module):
    """Embedding -> LSTM -> head.

    Args:
        settings: the sizes. `latent_size` 0 gives independent Bernoulli outputs, else the chord
            head.
        pitches: P.
    """

    def __init__(self, settings: ModelSettings, pitches: int = PITCHES) -> None:
        """Make the layers, initialised from torch's global random generator."""
        super().__init__()
        self.settings = settings
        self.metadata: Metadata = {}  # of the weights file, once loaded
        self.embedding = nn.Linear(pitches, settings.embed_size)
        self.lstm = LSTM(
            settings.embed_size,
            settings.hidden_size,
            settings.layers,
            settings.dropout,
            settings.recurrent_dropout,
        )
        self.head = make_head(settings.hidden_size, settings.latent_size, pitches)
        self.end_head = EndHead(settings.hidden_size, pitches)

    def forward(
        self, frames: Tensor, state: Any = None, shift: Tensor | None = None
    ) -> tuple[Tensor, Any]:
        """Read frames after `state`.

        Args:
            frames: (B, T, P) of 0 and 1.
            state: what the last call returned; None = the start of a piece.
            shift: ignored; see `AttentivePianoLSTM`.

        Returns:
            The vector at each frame, (B, T, H), from which the head predicts the next frame and the
            end head whether there is one; and the state after the last frame.
        """
        if state is None:
            state = self.zero_state(frames, self.settings.layers)
        embedded = self.embedding(frames)  # (B, T, E)
        embedded = dropout(embedded, self.settings.embed_dropout, self.training)
        output, state = self.lstm(embedded, state)  # (B, T, H)
        output = dropout(output, self.settings.dropout, self.training)
        return output, State(*state)

    def zero_state(self, frames: Tensor, layers: int) -> State:
        """Return the state before the first of these frames, (B, T, P)."""
        zeros = frames.new_zeros(layers, len(frames), self.settings.hidden_size)
        return State(zeros, zeros)

    def save(self, path: Path, metadata: Metadata) -> None:
        """Write the weights, the model's settings, and metadata on the training."""
        settings = {"model": asdict(self.settings)}
        write_weights(path, self.state_dict(), settings | metadata)

    @classmethod
    def load(
        cls, where: str | Path | None = None, device: torch.device | str = "cpu"
    ) -> "PianoLSTM":
        """Return the model of a weights file or a run's folder, ready to sample and evaluate.

        Args:
            where: the file or folder; None = the newest run, or the pretrained model.
            device: where to put the weights.

        Raises:
            InputError: there is no such file, or it can't be read.
        """
        path = find_weights(None if where is None else str(where))
        tensors, metadata = read_weights(path)
        try:
            # On "meta", no memory is allocated before the file's tensors have matched its sizes.
            with torch.device("meta"):
                model = build_model(ModelSettings.from_dict(metadata["model"]))
            check_metadata(metadata)
            model.load_state_dict(tensors, assign=True)
            for name, tensor in tensors.items():
                if tensor.dtype not in STORED or not tensor.isfinite().all():
                    raise ValueError(f"{name} is not made of finite float32 or float16 numbers")
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise InputError(
                f"{path}: the settings do not match the weights ({one_line(error)})"
            ) from None
        model.metadata = metadata
        return model.float().to(device).eval()

    @torch.inference_mode()
    def pitch_probabilities(
        self, roll: Tensor, generator: torch.Generator, samples: int = 200
    ) -> Tensor:
        """Estimate the probability of each pitch in each frame, given the frames before it.

        The chord head has the probabilities of frames, not of pitches, so each frame is sampled
        many times.

        Args:
            roll: (T, 88).
            generator: random generator on the CPU.
            samples: samples of each frame; the standard error of p is sqrt(p (1 - p) / samples).

        Returns:
            (T + 1, 88): row t is the prediction of frame t.
        """
        device = next(self.parameters()).device
        silence = torch.zeros(1, PITCHES)  # a piece starts from silence
        frames = torch.cat([silence, roll.float()]).to(device)
        vectors, _ = self(frames[None])
        rows = vectors[0].repeat_interleave(samples, dim=0)  # ((T + 1) * samples, H)
        uniforms = torch.rand(len(rows), UNIFORMS_PER_FRAME, generator=generator).to(device)
        return self.head.sample(rows, uniforms).view(-1, samples, PITCHES).mean(dim=1).cpu()


class AttentiveState(NamedTuple):
    """The state of an AttentivePianoLSTM between two frames."""

    lower: State
    upper: State | None
    outer: Tensor  # (B, 2) int64, the latest highest and lowest pitch; 0 where they are not used
    metre: MetreState | None
    cache: KVCache | None
    copies: CopyCache | None

    def first_rows(self, rows: int) -> "AttentiveState":
        """Return the state of the first pieces of the batch, detached from the graph."""
        return AttentiveState(
            self.lower.first_rows(rows),
            self.upper and self.upper.first_rows(rows),
            self.outer[:rows],
            self.metre and self.metre.first_rows(rows),
            self.cache and self.cache.first_rows(rows),
            self.copies and self.copies.first_rows(rows),
        )


class AttentivePianoLSTM(PianoLSTM):
    """Embedding -> LSTM -> attention over the past -> upper LSTM -> relative pitch -> head.

    Each part beyond PianoLSTM is left out where its setting is 0 or False (`attention_window`,
    `upper_layers`, `relative_pitch`, `metrical_position`, `voice_leading`, `copy_candidates`,
    `transpose_prob`).

    Args:
        settings: the sizes.
        pitches: P.
    """

    def __init__(self, settings: ModelSettings, pitches: int = PITCHES) -> None:
        """Make the layers in the order of `forward`, from torch's global random generator."""
        nn.Module.__init__(self)  # not PianoLSTM's, which would make the head too early
        self.settings = settings
        self.metadata = {}
        embed_size, hidden_size = settings.embed_size, settings.hidden_size
        self.embedding = nn.Linear(pitches, embed_size)
        self.transposition = (
            nn.Linear(OCTAVE, embed_size, bias=False) if settings.transpose_prob else None
        )
        if self.transposition is not None:
            nn.init.zeros_(self.transposition.weight)
        self.metrical_position = (
            MetricalPosition(embed_size) if settings.metrical_position else None
        )
        dropouts = settings.dropout, settings.recurrent_dropout
        self.lstm = LSTM(embed_size, hidden_size, settings.layers, *dropouts)
        self.attention = (
            HistoryAttention(
                hidden_size,
                settings.attention_window,
                settings.viewpoints,
                settings.attention_heads,
                settings.head_dim,
                settings.query_frames,
                settings.attention_dropout,
                pitches,
            )
            if settings.attention_window
            else None
        )
        self.upper_lstm = (
            LSTM(hidden_size + embed_size, hidden_size, settings.upper_layers, *dropouts)
            if settings.upper_layers
            else None
        )
        self.relative_pitch = (
            RelativePitch(embed_size, hidden_size, settings.attention_dropout, pitches)
            if settings.relative_pitch
            else None
        )
        # Independent Bernoulli outputs have neither voices nor candidates.
        chords = settings.latent_size > 0
        self._leads_voices = settings.voice_leading and chords
        count = settings.copy_candidates if chords else 0
        self.candidates = Candidates(hidden_size, count, pitches) if count else None
        size = hidden_size + (pitches if settings.relative_pitch else 0)
        self.head = make_head(
            size,
            settings.latent_size,
            pitches,
            settings.attention_dropout if self._leads_voices else None,
            count,
        )
        self.end_head = EndHead(size, pitches)

    def forward(
        self, frames: Tensor, state: AttentiveState | None = None, shift: Tensor | None = None
    ) -> tuple[Tensor, AttentiveState]:
        """Read frames after `state`.

        Args:
            frames: (B, T, P) of 0 and 1.
            state: what the last call returned; None = the start of a piece.
            shift: (B,) int64, the semitones that each piece was transposed by; None = 0.

        Returns:
            The vector at each frame, (B, T, H), from which the head predicts the next frame and the
            end head whether there is one, P longer with relative pitch and, of the frame itself,
            with voice leading, and K * P + K + 1 with K candidates; and the state after the last
            frame.
        """
        if state is None:
            state = self._initial_state(frames)
        outer = state.outer[:, None]  # (B, 1, 2)
        uses_outer = (self.attention, self.relative_pitch, self.metrical_position)
        if any(part is not None for part in uses_outer):
            outer = outer_pitches(frames, state.outer)  # (B, T, 2)
        embedded, metre = self._embed(frames, shift, state, outer)  # (B, T, E)
        output, lower = self.lstm(embedded, state.lower)
        vectors, cache = self._dropout(output), None  # (B, T, H)
        if self.attention is not None:
            attended, cache = self.attention(output, frames, outer, state.cache)
            vectors = vectors + attended
        upper = None
        if self.upper_lstm is not None:
            inputs = torch.cat([vectors, embedded], dim=2)
            output, upper = self.upper_lstm(inputs, state.upper)
            vectors = vectors + self._dropout(output)
        columns, copies = [vectors], None
        if self.relative_pitch is not None:
            columns.append(self.relative_pitch.pitch_logits(vectors, frames, outer))
        if self._leads_voices:
            columns.append(frames)
        if self.candidates is not None:
            proposed, copies = self.candidates(vectors, frames, state.copies)
            columns.append(proposed)
        vectors = torch.cat(columns, dim=2) if len(columns) > 1 else vectors
        return vectors, AttentiveState(
            State(*lower), upper and State(*upper), outer[:, -1], metre, cache, copies
        )

    def _initial_state(self, frames: Tensor) -> AttentiveState:
        settings = self.settings
        return AttentiveState(
            self.zero_state(frames, settings.layers),
            self.zero_state(frames, settings.upper_layers) if settings.upper_layers else None,
            torch.zeros(len(frames), 2, dtype=torch.int64, device=frames.device),
            MetricalPosition.initial_state(frames) if settings.metrical_position else None,
            None,
            None,
        )

    def _dropout(self, output: Tensor) -> Tensor:
        return dropout(output, self.settings.dropout, self.training)

    def _embed(
        self, frames: Tensor, shift: Tensor | None, state: AttentiveState, outer: Tensor
    ) -> tuple[Tensor, MetreState | None]:
        """Return the LSTM's input: pitches, intervals, transposition and metrical position.

        Args:
            frames: (B, T, P).
            shift: (B,) semitones.
            state: before the first frame.
            outer: (B, T, 2), highest and lowest pitch of each frame.

        Returns:
            (B, T, E), and the state of the metrical position.
        """
        embedded = self.embedding(frames)
        if self.transposition is not None:
            shift = frames.new_zeros(len(frames), dtype=torch.int64) if shift is None else shift
            # Music an octave away is in the same key.
            interval = functional.one_hot(shift % OCTAVE, OCTAVE).to(frames.dtype)  # (B, 12)
            embedded = embedded + self.transposition(interval)[:, None]
        before = torch.cat([state.outer[:, None], outer[:, :-1]], dim=1)  # (B, T, 2)
        if self.relative_pitch is not None:
            embedded = embedded + self.relative_pitch.embed(frames, before)
        metre = state.metre
        if self.metrical_position is not None:
            changes = outer[:, :, 1] != before[:, :, 1]  # of the lowest pitch
            position, metre = self.metrical_position(changes, metre)
            embedded = embedded + position
        return dropout(embedded, self.settings.embed_dropout, self.training), metre


def build_model(settings: ModelSettings) -> PianoLSTM:
    """Return the model that the settings describe, initialised from torch's global generator."""
    attentive = (
        settings.attention_window
        or settings.upper_layers
        or settings.relative_pitch
        or settings.metrical_position
        or settings.voice_leading
        or settings.copy_candidates
        or settings.transpose_prob
    )
    return AttentivePianoLSTM(settings) if attentive else PianoLSTM(settings)


def adapt(model: PianoLSTM, settings: ModelSettings) -> PianoLSTM:
    """Return a model that computes what a trained one does, to be trained under other settings.

    Dropout may differ, and so may `transpose_prob`: the new model has a transposition of weight 0
    where the old one has none, and where it is no longer wanted, its value for an interval of 0 is
    part of the embedding's bias.

    Args:
        model: the trained model; it stays as it is.
        settings: its own but for those of settings.ADAPTABLE.

    Raises:
        ValueError: another setting differs; the message names both values.
    """
    for name, value in asdict(settings).items():
        if name not in ADAPTABLE and value != (own := getattr(model.settings, name)):
            raise ValueError(f"{name} is {own}, not {value}")
    adapted = build_model(settings)
    weights = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
    transposition = weights.pop("transposition.weight", None)  # (E, 12)
    if settings.transpose_prob:
        none = torch.zeros(settings.embed_size, OCTAVE)
        weights["transposition.weight"] = none if transposition is None else transposition
    elif transposition is not None:
        weights["embedding.bias"] += transposition[:, 0]
    adapted.load_state_dict(weights)
    return adapted


def make_head(
    size: int,
    latent_size: int,
    pitches: int,
    voice_leading: float | None = None,
    candidates: int = 0,
) -> Head:
    """Return the chord head, or independent Bernoulli outputs for `latent_size` 0.

    Args:
        size: of the model's vectors, without what voice leading and candidates add to them.
        latent_size: hidden units of the chord head.
        pitches: P.
        voice_leading: its dropout probability; None = the head has none.
        candidates: K, of the mixture with copies.
    """
    if not latent_size:
        return BernoulliHead(size, pitches)
    head = ChordHead(size, latent_size, pitches, voice_leading)
    return CopyHead(head, candidates, pitches) if candidates else head
