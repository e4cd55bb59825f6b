"""The average over keys: a mixture of what one model predicts in twelve transpositions.

A model that has learned transposed pieces, and is told the interval of each, predicts a piece a
little differently in every key. Their mixture is better than each, as an ensemble is better than
its members, and nothing is trained for it. Letters are those of model.py, and: K transpositions.

The mixture is exact and normalised. Each component is a distribution over all frames, because
transposition is cyclic: a note that leaves the keyboard at one end comes in at the other, so that
every frame is exactly one transposed frame. The weights of a frame depend on the frames before it
alone, and sum to 1:

    p(x_t | past) = sum over k of w_k p(x_t moved by k | past moved by k, told k)
    w_k is proportional to prior_k p(past moved by k, told k) ^ EVIDENCE_EXPONENT

A transposition in which a note has left the keyboard has weight 0 from the next frame on; the
piece's own key, k = 0, never has. The prior is how often training transposes by k.

Sources: averaging over transpositions is test-time augmentation (Krizhevsky et al. 2012, "ImageNet
classification with deep convolutional neural networks"); tempered posterior weights (Vovk 1998, "A
game of prediction with expert advice"; Grünwald 2012, "The safe Bayesian").
"""

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from pianolstm.files import InputError
from pianolstm.layers.heads import (
    MIN_TEMPERATURE,
    MODEL_DISTRIBUTION,
    EndHead,
    Head,
    Sampler,
    SamplingParams,
    sample_categorical,
)
from pianolstm.layers.relative_pitch import to_relative

SHIFTS = tuple(range(-5, 7))  # semitones, those of training (`data.random_transpose`)
# Chosen on the validation splits of Nottingham and JSB Chorales (docs/log.md): 0 = the prior alone,
# 1 = Bayes' rule, which soon trusts a single key.
EVIDENCE_EXPONENT = 0.1


class KeyedModel(Protocol):
    """A model that is told how its input is transposed, such as an `AttentivePianoLSTM`."""

    head: Head
    end_head: EndHead

    def __call__(
        self, frames: Tensor, state: Any = None, shift: Tensor | None = None
    ) -> tuple[Tensor, Any]:
        """Read frames, (B, T, P), after `state`; return vectors, (B, T, H), and the new state."""

    def parameters(self) -> Iterator[nn.Parameter]:
        """Yield the weights."""


class KeyAverageState(NamedTuple):
    """The state of a KeyAverage between two frames."""

    inner: Any  # the model's, of B * K rows
    vectors: Tensor  # (B, K, H), the model's at the last frame
    scores: Tensor  # (B, K), the logarithms of the weights, up to a constant

    def first_rows(self, rows: int) -> "KeyAverageState":
        """Return the state of the first pieces of the batch, detached from the graph."""
        inner = self.inner.first_rows(rows * self.scores.shape[1])
        return KeyAverageState(inner, self.vectors[:rows], self.scores[:rows])


class KeyAverage(nn.Module):
    """A model averaged over keys. It reads, predicts and is sampled from like the model itself.

    Its vector of a frame is that of each transposition, then the logarithms of their weights:
    (B, T, K * H + K).

    Args:
        model: in evaluation mode.
        transpose_prob: the probability with which training transposed a piece.
        shifts: the K transpositions in semitones; 0 is among them.
        exponent: of the evidence.
    """

    def __init__(
        self,
        model: KeyedModel,
        transpose_prob: float,
        shifts: Sequence[int] = SHIFTS,
        exponent: float = EVIDENCE_EXPONENT,
    ) -> None:
        """Wrap the model; its weights are shared."""
        super().__init__()
        self.model, self.shifts, self.exponent = model, tuple(shifts), exponent
        self.head: Head = MixtureHead(model.head, self.shifts)
        self.end_head = OwnKeyEndHead(model.end_head, self.shifts)
        moved = transpose_prob / len(self.shifts)
        self.log_prior = [math.log(moved + (shift == 0) * (1 - transpose_prob)) for shift in shifts]

    @property
    def metadata(self) -> dict[str, Any]:
        """The metadata of the model."""
        metadata: dict[str, Any] = getattr(self.model, "metadata", {})
        return metadata

    def forward(
        self, frames: Tensor, state: KeyAverageState | None = None
    ) -> tuple[Tensor, KeyAverageState]:
        """Read frames after `state`.

        Args:
            frames: (B, T, P) of 0 and 1; the first frame of a piece is the silence before it.
            state: what the last call returned; None = the start of a piece.

        Returns:
            The vector at each frame, (B, T, K * H + K), and the state after the last frame.
        """
        rows = len(frames)
        moved = _to_keys(frames, self.shifts)  # (B, T, K, P)
        shift = torch.tensor(self.shifts, device=frames.device).repeat(rows)
        inputs = moved.transpose(1, 2).flatten(0, 1)  # (B * K, T, P)
        vectors, inner = self.model(inputs, None if state is None else state.inner, shift)
        vectors = vectors.unflatten(0, (rows, -1)).transpose(1, 2)  # (B, T, K, H)
        if state is None:  # nothing has predicted the first frame, the silence before the piece
            scores = vectors.new_tensor(self.log_prior).expand(rows, -1)
            predicting, predicted = vectors[:, :-1], moved[:, 1:]
        else:
            scores = state.scores
            predicting, predicted = torch.cat([state.vectors[:, None], vectors[:, :-1]], 1), moved
        nll = self.model.head.nll(predicting.flatten(0, 2), predicted.flatten(0, 2))
        evidence = -self.exponent * nll.view(predicted.shape[:3])  # (B, T or T - 1, K)
        none = evidence.new_zeros(rows, frames.shape[1] - evidence.shape[1], evidence.shape[2])
        scores = scores[:, None] + torch.cat([none, evidence], dim=1).cumsum(dim=1)
        left = _off_keyboard(frames, self.shifts).cummax(dim=1).values
        log_weights = scores.masked_fill(left > 0, -torch.inf).log_softmax(dim=2)  # (B, T, K)
        joined = torch.cat([vectors.flatten(2), log_weights], dim=2)
        return joined, KeyAverageState(inner, vectors[:, -1], log_weights[:, -1])


def average_keys(model: KeyedModel, transpose_prob: float) -> KeyAverage:
    """Return a model averaged over keys, for --average_keys.

    Args:
        model: in evaluation mode.
        transpose_prob: the probability with which its training transposed a piece.

    Raises:
        InputError: it was not trained on transposed pieces.
    """
    if not transpose_prob:
        raise InputError(
            "--average_keys: this model was not trained on transposed pieces; train one with"
            " --transpose_prob or --preset best"
        )
    return KeyAverage(model, transpose_prob).eval()


class MixtureHead(Head):
    """The distribution over frames of a `KeyAverage`: a mixture of the head's distributions.

    Args:
        head: of the model.
        shifts: the K transpositions.
    """

    def __init__(self, head: Head, shifts: tuple[int, ...]) -> None:
        """Wrap the head."""
        super().__init__()
        self.head, self.shifts = head, shifts

    def nll(self, hidden: Tensor, frames: Tensor) -> Tensor:
        """Return -log p(frame) of the mixture in nats: (F, K * H + K), (F, P) -> (F,)."""
        vectors, log_weights = _split(hidden, len(self.shifts))
        moved = _to_keys(frames, self.shifts)  # (F, K, P)
        nll = self.head.nll(vectors.flatten(0, 1), moved.flatten(0, 1)).view(log_weights.shape)
        return -torch.logsumexp(log_weights - nll, dim=1)

    def sampler(self, params: SamplingParams = MODEL_DISTRIBUTION) -> Sampler:
        """Return a function that samples a transposition by its weight, then a frame from it.

        `params` apply to the frame. Greedily, the transposition of the largest weight is taken.
        """
        sample_moved = self.head.sampler(params)
        shifts = torch.tensor(self.shifts)
        greedy = params.temperature < MIN_TEMPERATURE

        def sample_mixture(
            hidden: Tensor, uniforms: Tensor, allowed: Tensor | None = None
        ) -> Tensor:
            if allowed is not None:
                raise ValueError("a mixture over keys has no first choice")
            vectors, log_weights = _split(hidden, len(self.shifts))
            key = sample_categorical(log_weights, uniforms[:, :1], 0.0 if greedy else 1.0, 1.0)
            # Where a uniform number lies between the bounds of its class is uniform again.
            weights = log_weights.exp()
            bounds = weights.cumsum(dim=1)
            weight, bound = weights.gather(1, key), bounds.gather(1, key)
            place = (uniforms[:, :1] * bounds[:, -1:] - bound + weight) / weight
            uniforms = torch.cat([place.clamp(0, 1 - 2**-24), uniforms[:, 1:]], dim=1)
            index = key[:, :, None].expand(-1, -1, vectors.shape[2])
            moved = sample_moved(vectors.gather(1, index)[:, 0], uniforms)
            return to_relative(moved, shifts.to(key.device)[key[:, 0]])

        return sample_mixture


class OwnKeyEndHead(nn.Module):
    """The probability that a frame is the last one of its piece, as the model has it untransposed.

    A piece ends on its tonic, which is certain in the key of the data alone: on validation, the
    mean over keys predicts ends worse (docs/log.md).

    Args:
        end_head: of the model.
        shifts: the K transpositions.
    """

    def __init__(self, end_head: EndHead, shifts: tuple[int, ...]) -> None:
        """Wrap the end head."""
        super().__init__()
        self.end_head, self.keys, self.own = end_head, len(shifts), shifts.index(0)

    def forward(self, vectors: Tensor, frames: Tensor) -> Tensor:
        """Return the logit that each frame is the last: (..., K * H + K), (..., P) -> (...)."""
        logits: Tensor = self.end_head(_split(vectors, self.keys)[0][..., self.own, :], frames)
        return logits


def _split(joined: Tensor, keys: int) -> tuple[Tensor, Tensor]:
    """Split (..., K * H + K) into vectors, (..., K, H), and log-weights, (..., K)."""
    vectors, log_weights = joined.split([joined.shape[-1] - keys, keys], dim=-1)
    return vectors.unflatten(-1, (keys, -1)), log_weights


def _to_keys(frames: Tensor, shifts: tuple[int, ...]) -> Tensor:
    """Return frames, (..., P), in each transposition, cyclically: (..., K, P)."""
    anchors = -torch.tensor(shifts, device=frames.device)
    every = frames[..., None, :].expand(*frames.shape[:-1], len(shifts), -1)
    return to_relative(every, anchors.expand(every.shape[:-1]))


def _off_keyboard(frames: Tensor, shifts: tuple[int, ...]) -> Tensor:
    """Return 1 where a note leaves the keyboard, else 0: (..., P) -> (..., K) int8."""
    pitches = frames.shape[-1]
    order = torch.arange(pitches, device=frames.device)
    shift = torch.tensor(shifts, device=frames.device)
    highest = (frames * order).amax(dim=-1, keepdim=True)
    lowest = pitches - 1 - (frames * order.flip(0)).amax(dim=-1, keepdim=True)
    return ((highest + shift >= pitches) | (lowest + shift < 0)).to(torch.int8)
