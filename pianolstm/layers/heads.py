"""Output heads: the LSTM's output -> a distribution over frames.

A head computes the exact, normalised NLL of a frame, and samples a frame. Letters are those of
model.py: P pitches, H the size of the LSTM's output, L `latent_size`, F any number of frames. S
counts choices: all choices of all F frames in one list.

Sources: NADE, a joint distribution as a chain of conditionals (Larochelle and Murray 2011); gated
units (Memisevic and Hinton 2010, "Learning to represent spatial transformations with factored
higher-order Boltzmann machines").
"""

import math
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from pianolstm.layers.relative_pitch import to_relative
from pianolstm.layers.voice_leading import VoiceLeading, Voices
from pianolstm.rolls import PITCHES

MIN_TEMPERATURE = 1e-4  # below it, sampling is greedy
UNIFORMS_PER_FRAME = PITCHES + 1  # random numbers that sampling one frame may use


class SamplingParams(NamedTuple):
    """How a frame is sampled; the defaults sample from the model's own distribution."""

    temperature: float = 1.0  # divides the logits of the highest note; 0 = greedy
    chord_temperature: float = 1.0  # divides the logits of the notes below it
    top_p: float = 1.0  # nucleus sampling (`nucleus`)


MODEL_DISTRIBUTION = SamplingParams()
GREEDY = SamplingParams(temperature=0, chord_temperature=0)

# Samples frames: LSTM outputs (F, H), uniform random numbers (F, P + 1) in [0, 1) and, optionally,
# the classes allowed for the first choice, (F, P + 1) bool -> (F, P) of 0 and 1. All randomness is
# in the argument, so that a row is sampled alike whatever the other rows are.
Sampler = Callable[..., Tensor]


class Head(nn.Module):
    """A distribution over frames given the LSTM's output."""

    def nll(self, hidden: Tensor, frames: Tensor) -> Tensor:
        """Return -log p(frame | hidden) in nats, (F,).

        Args:
            hidden: (F, H).
            frames: (F, P) of 0 and 1.
        """
        raise NotImplementedError

    def note_nll(self, hidden: Tensor, frames: Tensor) -> Tensor:
        """Return the NLL of each note, and of all that is silent, in nats, (F, P + 1).

        Column 0 is of silence and 1..P are of the pitches, 0 where a pitch does not sound. A row
        sums to the frame's NLL.

        Args:
            hidden: (F, H).
            frames: (F, P) of 0 and 1.
        """
        raise NotImplementedError

    def nll_and_divergence(
        self, hidden: Tensor, frames: Tensor, shift: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return the NLLs of two views of N frames, and how far the predictions of both differ.

        Args:
            hidden: (2, N, H).
            frames: (2, N, P); the second are the first, transposed.
            shift: (N,) int64, by so many semitones.

        Returns:
            The NLLs, (2, N) in nats, and the mean of the two Kullback-Leibler divergences, summed
            over the choices of a frame, each given the true choices before it, (N,) in nats.
        """
        raise NotImplementedError

    def sampler(self, params: SamplingParams = MODEL_DISTRIBUTION) -> Sampler:
        """Return a function that samples frames with the current weights."""
        raise NotImplementedError

    def set_unigram(self, probabilities: Tensor) -> None:
        """Set the biases so that pitches are independent with these probabilities, (P,) in (0, 1).

        Training starts from this distribution.
        """
        raise NotImplementedError

    def sample(
        self,
        hidden: Tensor,
        uniforms: Tensor,
        params: SamplingParams = MODEL_DISTRIBUTION,
        allowed: Tensor | None = None,
    ) -> Tensor:
        """Sample a frame for each row, as a `Sampler` does."""
        return self.sampler(params)(hidden, uniforms, allowed)


class AutoregressiveHead(Head):
    """A head that chooses the notes of a frame one after another, from the highest down.

    So the highest note has a distribution of its own. The `allowed` classes of a `Sampler` are
    those that it may have.
    """

    def first_logits(self, hidden: Tensor) -> Tensor:
        """Return the logits of the highest note, column 0 of none: (F, H) -> (F, P + 1)."""
        raise NotImplementedError


class FrameModel(Protocol):
    """A model with a head, such as a `PianoLSTM`: it reads frames, its head predicts the next."""

    head: Head

    def __call__(self, frames: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        """Read frames, (B, T, P), after `state`; return vectors, (B, T, H), and the new state."""

    def parameters(self) -> Iterator[nn.Parameter]:
        """Yield the weights."""


class BernoulliHead(Head):
    """Independent Bernoulli outputs: p(frame) is the product of one probability per pitch.

    Exact and normalised, since each factor is. It can't represent "one of these two, not both".

    Args:
        hidden_size: H.
        pitches: P.
    """

    def __init__(self, hidden_size: int, pitches: int = PITCHES) -> None:
        """Make the one layer."""
        super().__init__()
        self.logits = nn.Linear(hidden_size, pitches)

    def nll(self, hidden: Tensor, frames: Tensor) -> Tensor:
        """Return the binary cross-entropy summed over pitches, in nats: (F, H), (F, P) -> (F,)."""
        logits = self.logits(hidden)
        return functional.binary_cross_entropy_with_logits(logits, frames, reduction="none").sum(
            dim=-1
        )

    def nll_and_divergence(
        self, hidden: Tensor, frames: Tensor, shift: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return NLLs, (2, N), and the divergence of the pitches' probabilities, (N,)."""
        logits = self.logits(hidden)  # (2, N, P)
        nll = functional.binary_cross_entropy_with_logits(logits, frames, reduction="none")
        first, second = logits[0], to_relative(logits[1], shift)
        divergence = (first.sigmoid() - second.sigmoid()) * (first - second)
        return nll.sum(dim=-1), divergence.sum(dim=-1) / 2

    def note_nll(self, hidden: Tensor, frames: Tensor) -> Tensor:
        """Return the NLL of each note; column 0 sums those of the silent pitches: (F, P + 1)."""
        logits = self.logits(hidden)
        nll = functional.binary_cross_entropy_with_logits(logits, frames, reduction="none")
        return torch.cat([(nll * (1 - frames)).sum(dim=1, keepdim=True), nll * frames], dim=1)

    def sampler(self, params: SamplingParams = MODEL_DISTRIBUTION) -> Sampler:
        """Return a function that samples frames; `chord_temperature` is not used."""
        temperature, pitches = params.temperature, self.logits.out_features

        def sample_pitches(
            hidden: Tensor, uniforms: Tensor, allowed: Tensor | None = None
        ) -> Tensor:
            if allowed is not None:
                raise ValueError("independent Bernoulli outputs have no first choice")
            logits = self.logits(hidden)  # (F, P)
            if temperature < MIN_TEMPERATURE:
                frames = logits > 0
            else:
                on = torch.sigmoid(logits if temperature == 1 else logits / temperature)
                frames = uniforms[:, :pitches] < on
                if params.top_p < 1:
                    # The nucleus of two classes: the likelier alone where it has top_p.
                    sure = torch.sigmoid(logits.abs()) >= params.top_p
                    frames = frames.where(~sure, logits > 0)
            return frames.to(hidden.dtype)

        return sample_pitches

    def set_unigram(self, probabilities: Tensor) -> None:
        """Set the biases so that pitches have these probabilities, (P,) in (0, 1)."""
        with torch.no_grad():
            self.logits.bias.copy_(torch.logit(probabilities))


class ChordHead(AutoregressiveHead):
    """The notes of a frame one after another, from the highest down, until "stop".

    A frame of m notes is a chain of m + 1 choices among the classes 0 = stop, 1..P = the pitches:

        P >= pitch_1 > pitch_2 > ... > pitch_m > 0 = stop

    Each choice is a softmax over the classes below the previous one (stop is below every pitch),
    given the LSTM's output and, through L hidden units, the notes already chosen. Every frame is
    exactly one chain, so the product of its softmax factors is an exact probability, and those of
    all 2^P frames sum to 1. This is NADE (Larochelle and Murray 2011) with the pitches in
    descending order, and one factor per sounding note instead of one per pitch.

    The chosen notes enter both as absolute pitches and as intervals from the lowest of them, and
    the output has logits for both, so that a chord type is learnt once for all roots. The hidden
    units are linear and gated by the LSTM's output (Memisevic and Hinton 2010):

        units  = (chosen_proj [absolute, relative]) * (1 + context(hidden))
        logits = base(hidden) + unit_proj(units) + intervals below the previous note likewise

    Args:
        hidden_size: H.
        latent_size: L.
        pitches: P.
        voice_leading: dropout probability of the logits of voice leading; None = the head has none.
            If it has, the frame that was read last follows the LSTM's output: (F, H + P).
    """

    def __init__(
        self,
        hidden_size: int,
        latent_size: int,
        pitches: int = PITCHES,
        voice_leading: float | None = None,
    ) -> None:
        """Make the layers."""
        super().__init__()
        self.base = nn.Linear(hidden_size, pitches + 1)  # logits of classes
        self.below = nn.Linear(hidden_size, pitches)  # logits of intervals from the previous note
        self.context = nn.Linear(hidden_size, latent_size)  # the gate of each unit, less 1
        self.chosen_proj = nn.Linear(2 * pitches, latent_size, bias=False)  # notes -> units
        self.unit_proj = nn.Linear(latent_size, 2 * pitches + 1, bias=False)  # units -> logits
        self.voice_leading = (
            None if voice_leading is None else VoiceLeading(hidden_size, voice_leading)
        )

    def first_logits(self, hidden: Tensor) -> Tensor:
        """Return the logits of the highest note, column 0 of none: (F, H) -> (F, P + 1)."""
        hidden, voices = self._prepare(hidden)
        logits = self.base(hidden)
        if self.voice_leading is None or voices is None:
            return logits
        frame = torch.arange(len(hidden), device=hidden.device)
        first = frame.new_full((len(hidden),), logits.shape[1])
        return logits + self.voice_leading(voices, frame, first * 0, first)

    def nll(self, hidden: Tensor, frames: Tensor) -> Tensor:
        """Return -log p of frames in nats, all S choices at once: (F, H), (F, P) -> (F,).

        One frame C4 E4 G4 of columns 39, 43 and 46 is these four choices:

            choice     previous   chosen
            47 (G4)    89 (none)  {}
            44 (E4)    47         {G4}
            40 (C4)    44         {G4, E4}
             0 (stop)  40         {G4, E4, C4}
        """
        frame, _, nll = self._choice_nll(hidden, frames)
        return nll.new_zeros(len(frames)).index_add(0, frame, nll)

    def note_nll(self, hidden: Tensor, frames: Tensor) -> Tensor:
        """Return the NLL of each choice, (F, P + 1): a note's given those above it.

        Column 0 is of "stop", given all notes of the frame.
        """
        frame, choice, nll = self._choice_nll(hidden, frames)
        return nll.new_zeros(len(frames), frames.shape[1] + 1).index_put((frame, choice), nll)

    def _choice_nll(self, hidden: Tensor, frames: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the frame, the class and the NLL of each choice of frames, (S,) each."""
        frame, choice, logits = self._choices(hidden, frames)
        return frame, choice, functional.cross_entropy(logits, choice, reduction="none")

    def nll_and_divergence(
        self, hidden: Tensor, frames: Tensor, shift: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return NLLs, (2, N), and the divergence of the choices' probabilities, (N,)."""
        count = len(shift)
        frame, choice, logits = self._choices(hidden.flatten(0, 1), frames.flatten(0, 1))
        nll = functional.cross_entropy(logits, choice, reduction="none")  # (S,)
        nll = nll.new_zeros(2 * count).index_add(0, frame, nll).view(2, count)
        # Both views have the same numbers of notes, so their choices correspond, in order.
        frame = frame[: len(frame) // 2]
        first, second = logits.to(torch.promote_types(logits.dtype, torch.float32)).chunk(2)
        pitches = to_relative(second[:, 1:], shift.index_select(0, frame))
        second = torch.cat([second[:, :1], pitches], dim=1)
        possible = ~first.isneginf() & ~second.isneginf()
        difference = (first.log_softmax(dim=1) - second.log_softmax(dim=1)).where(possible, 0)
        divergence = ((first.softmax(dim=1) - second.softmax(dim=1)) * difference).sum(dim=1) / 2
        return nll, divergence.new_zeros(count).index_add(0, frame, divergence)

    def _choices(self, hidden: Tensor, frames: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the frame and the class of each choice, (S,), and its logits, (S, P + 1)."""
        hidden, voices = self._prepare(hidden)
        pitches = frames.shape[1]
        first = pitches + 1  # the previous class of a frame's first choice: above all others
        with_stop = functional.pad(frames, (1, 0), value=1.0)  # (F, P + 1): stop ends every chain
        frame, from_top = with_stop.flip(1).nonzero(as_tuple=True)  # (S,) each, in chain order
        choice = pitches - from_top  # (S,) the class
        starts = frame != frame.roll(1)  # (S,) the first choice of a frame
        starts[:1] = True
        previous = choice.roll(1).where(~starts, first)
        indices, weights = _gather_indices(pitches, frames.device), self._fused_weights()
        order = torch.arange(len(frame), device=frames.device)
        number = order - order.where(starts, 0).cummax(dim=0).values  # (S,) notes chosen so far
        # index_select instead of [frame]: its gradient is summed in a fixed order.
        base, gates = (
            part.index_select(0, frame)  # (S, ...)
            for part in weights.split(functional.linear(hidden, weights.in_proj, weights.in_bias))
        )
        units = self._chain_units(choice, previous, number) * gates
        # In place, because copying `base` takes as long as the product.
        logits = base.addmm_(units.to(base.dtype), weights.unit_proj.to(base.dtype))
        logits = _mask_and_add_intervals(logits, indices, previous)
        if self.voice_leading is not None and voices is not None:
            logits = logits + self.voice_leading(voices, frame, number, previous)
        return frame, choice, logits

    def _chain_units(self, choice: Tensor, previous: Tensor, number: Tensor) -> Tensor:
        """Return the units of each choice of whole chains, not gated, (S, L).

        A choice has few notes above it: adding up their weights is faster than a product.

        Args:
            choice: (S,) int64, the class.
            previous: (S,) int64, the previous choice; P + 1 for the first of a frame.
            number: (S,) int64, notes chosen so far: the choices just before in the list.
        """
        weights = self.chosen_proj.weight.t().contiguous()  # (2 P, L)
        pitches = len(weights) // 2
        starts = number.cumsum(0) - number  # (S,) where the notes of each choice start
        # A pair is a choice and one of the notes above it, 1 to `number` places before.
        order = torch.arange(len(choice), device=choice.device)
        later = order.repeat_interleave(number)  # (pairs,)
        back = torch.arange(1, len(later) + 1, device=choice.device) - starts.index_select(0, later)
        note = choice.index_select(0, later - back)
        interval = (note - previous.index_select(0, later)) % pitches
        inputs = torch.stack([note - 1, pitches + interval], dim=1).flatten()
        return functional.embedding_bag(inputs, weights, 2 * starts, mode="sum")

    def _prepare(self, hidden: Tensor) -> tuple[Tensor, Voices | None]:
        """Return the LSTM's output alone, (F, H), and what voice leading needs."""
        if self.voice_leading is None:
            return hidden, None
        pitches = self.base.out_features - 1
        hidden, read = hidden.split((hidden.shape[1] - pitches, pitches), dim=1)
        return hidden, self.voice_leading.prepare(hidden, read)

    def sampler(self, params: SamplingParams = MODEL_DISTRIBUTION) -> Sampler:
        """Return a function that samples frames, in one step per note of the fullest frame."""
        weights, classes = self._fused_weights(), self.base.out_features

        def sample_chords(
            hidden: Tensor, uniforms: Tensor, allowed: Tensor | None = None
        ) -> Tensor:
            indices = _gather_indices(classes - 1, hidden.device)
            hidden, voices = self._prepare(hidden)
            frame = torch.arange(len(hidden), device=hidden.device)
            base, gates = weights.split(functional.linear(hidden, weights.in_proj, weights.in_bias))
            chosen = base.new_zeros(len(hidden), classes)  # (F, P + 1)
            logits = base[:, :classes]  # no notes yet: the hidden units are 0
            if self.voice_leading is not None and voices is not None:
                first = frame.new_full((len(hidden),), classes)
                logits = logits + self.voice_leading(voices, frame, first * 0, first)
            if allowed is not None:
                logits = logits.masked_fill(~allowed, -torch.inf)
            temperature = params.temperature
            for note in range(classes):
                uniform = uniforms[:, note : note + 1]
                previous = sample_categorical(logits, uniform, temperature, params.top_p)  # (F, 1)
                if not previous.count_nonzero():  # takes half the time of any()
                    break
                chosen.scatter_(1, previous, 1.0)
                temperature = params.chord_temperature
                previous = previous.squeeze(1)
                relative = chosen.gather(1, indices.relative.index_select(0, previous))
                units = torch.addmm(chosen @ weights.absolute, relative, weights.relative) * gates
                logits = torch.addmm(base, units, weights.unit_proj)
                logits = _mask_and_add_intervals(logits, indices, previous)
                if self.voice_leading is not None and voices is not None:
                    number = torch.full_like(frame, note + 1)
                    logits = logits + self.voice_leading(voices, frame, number, previous)
            return chosen[:, 1:]

        return sample_chords

    def set_unigram(self, probabilities: Tensor) -> None:
        """Set the biases so that pitches are independent with these probabilities, (P,) in (0, 1).

        Independent pitches are a chain too: the next note downwards is k with probability p_k times
        that of silence between. Divided by the probability of no further note, which is stop's,
        this is p_k / prod_{i <= k} (1 - p_i), whatever came before; its logarithm is the bias.
        """
        with torch.no_grad():
            log_silence = torch.log1p(-probabilities).cumsum(0)
            self.base.bias.copy_(functional.pad(probabilities.log() - log_silence, (1, 0)))

    def _fused_weights(self) -> "_FusedWeights":
        """Return the current weights concatenated, so that few matrix products are needed."""
        absolute, relative = self.chosen_proj.weight.t().chunk(2)
        base, below, context = self.base, self.below, self.context
        padding = below.bias.new_tensor([0.0, -torch.inf])
        below_weight = functional.pad(below.weight, (0, 0, 0, 2))
        return _FusedWeights(
            torch.cat([base.weight, below_weight, context.weight]),
            torch.cat([base.bias, below.bias, padding, context.bias + 1]),
            functional.pad(absolute, (0, 0, 1, 0)),
            relative,
            functional.pad(self.unit_proj.weight.t(), (0, 2)),
        )


class _FusedWeights(NamedTuple):
    """The weights of a chord head, concatenated.

    Two columns follow those of `below`, with logits 0 and -inf. They serve classes to which no
    interval logit applies, and classes that can't follow the previous choice.
    """

    in_proj: Tensor  # (2 P + 3 + L, H), of base, below, the two and context
    in_bias: Tensor  # (2 P + 3 + L,), context's increased by 1
    absolute: Tensor  # (P + 1, L), from chosen classes to units; 0 for stop
    relative: Tensor  # (P, L), from chosen notes as intervals to units
    unit_proj: Tensor  # (L, 2 P + 3)

    def split(self, projected: Tensor) -> tuple[Tensor, Tensor]:
        """Split the output of `in_proj` into logits, (S, 2 P + 3), and gates, (S, L)."""
        units, logits = self.unit_proj.shape
        base, gates = projected.split((logits, units), dim=1)
        return base, gates


class _GatherIndices(NamedTuple):
    """Indices that depend on the previous choice; row 0 is stop, row P + 1 is none."""

    relative: Tensor  # (P + 2, P) int64, the class at each interval from the previous note
    logits: Tensor  # (P + 2, P + 1) int64, the interval logit of each class; P = none, P + 1 = -inf


@cache
def _gather_indices(pitches: int, device: torch.device) -> _GatherIndices:
    with torch.inference_mode(False):
        previous = torch.arange(pitches + 2, device=device)[:, None]
        classes = torch.arange(pitches + 1, device=device)
        interval = (classes - previous) % pitches
        logits = interval.where((classes > 0) & (previous <= pitches), pitches)
        # Only lower classes can follow. After stop, stop is chosen again.
        logits = logits.where((classes < previous) | (previous + classes == 0), pitches + 1)
        return _GatherIndices((classes[:-1] + previous - 1) % pitches + 1, logits)


def _mask_and_add_intervals(logits: Tensor, indices: _GatherIndices, previous: Tensor) -> Tensor:
    """Return the logits of the next choice, (S, P + 1), -inf for classes that can't follow.

    Args:
        logits: (S, 2 P + 3), of classes and of intervals.
        indices: of the order of choices.
        previous: (S,) int64, the previous choice; P + 1 for the first of a frame.
    """
    pitches = logits.shape[1] // 2 - 1
    # Not Tensor.split, which takes three times as long in Python; in place, to allocate once less.
    by_class, by_interval = torch.split_with_sizes(logits, (pitches + 1, pitches + 2), dim=1)
    return by_interval.gather(1, indices.logits.index_select(0, previous)).add_(by_class)


class EndHead(nn.Module):
    """The probability that a frame is the last one of its piece.

    Two linear layers with rectified hidden units read the model's vector and the frame itself. No
    gradient flows back into the model, so learning where pieces end leaves the NLL of frames as it
    is.

    Args:
        size: size of the model's vector.
        pitches: P.
        hidden_size: number of hidden units.
    """

    def __init__(self, size: int, pitches: int = PITCHES, hidden_size: int = 32) -> None:
        """Make the layers."""
        super().__init__()
        self.size = size
        self.hidden = nn.Linear(size + pitches, hidden_size)
        self.logit = nn.Linear(hidden_size, 1)

    def forward(self, vectors: Tensor, frames: Tensor) -> Tensor:
        """Return the logit that each frame is the last, (...).

        Args:
            vectors: (..., size) or more, the model's vectors after it has read the frames.
            frames: (..., P) of 0 and 1.
        """
        inputs = torch.cat([vectors[..., : self.size].detach(), frames], dim=-1)
        return self.logit(functional.relu(self.hidden(inputs)))[..., 0]

    def set_rate(self, rate: float) -> None:
        """Set the bias so that a frame is the last with this probability; training starts here."""
        with torch.no_grad():
            self.logit.bias.fill_(math.log(rate / (1 - rate)))


def sample_categorical(
    logits: Tensor, uniforms: Tensor, temperature: float, top_p: float
) -> Tensor:
    """Sample a class for each row by inverting the cumulative distribution.

    Args:
        logits: (S, C).
        uniforms: (S, 1) in [0, 1).
        temperature: divides the logits; below `MIN_TEMPERATURE` the most probable class is taken.
        top_p: only the `nucleus` is sampled from, which doesn't depend on the temperature; 1 = all
            classes. So a high temperature makes rare choices likelier, but not improbable ones.

    Returns:
        (S, 1) int64.
    """
    if temperature < MIN_TEMPERATURE:
        return logits.argmax(dim=1, keepdim=True)
    probabilities = torch.softmax(logits if temperature == 1 else logits / temperature, dim=1)
    if top_p < 1:
        own = probabilities if temperature == 1 else torch.softmax(logits, dim=1)
        probabilities = probabilities * nucleus(own, top_p)
    cumulative = probabilities.cumsum(dim=1)
    return torch.searchsorted(cumulative, uniforms * cumulative[:, -1:], right=True)


def nucleus(probabilities: Tensor, top_p: float) -> Tensor:
    """Return which classes are in the nucleus, (S, C) bool, by their probabilities, (S, C).

    The nucleus is the fewest most probable classes with a total of at least `top_p`; it has at
    least one (Holtzman et al. 2020, arXiv:1904.09751).
    """
    ordered, classes = probabilities.sort(dim=1, descending=True)
    preceding = ordered.cumsum(dim=1) - ordered
    kept = preceding < top_p * probabilities.sum(dim=1, keepdim=True)
    return torch.zeros_like(kept).scatter(1, classes, kept)
