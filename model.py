"""PianoLSTM: embedding -> LSTM -> head. Mathematics only: no file, no device, no print.

The model reads frames x_1..x_t and gives the probability of the next one, all 88 keys of it:
log p(x) = sum over t of log p(x_t | x_1..x_{t-1}), exact and normalised with either head. Letters
are those of data.py: B batch, T frames, K keys, E embedding, H hidden, L latent; F is any number of
frames, wherever they come from.

Sources: RNN-NADE for an LSTM with a distribution of whole frames (Boulanger-Lewandowski, Bengio and
Vincent 2012, arXiv:1206.6392); NADE for a frame as a chain of choices (Larochelle and Murray 2011).
"""

from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from intervals import Intervals, outer_notes, seen_from
from memory import Memory, Past
from settings import K, ModelSettings

COLDEST = 1e-4  # below this temperature nothing but the likeliest is ever drawn
DRAWS = K + 1  # random numbers that a frame needs at most
OCTAVE = 12  # semitones; music moved by one is in the same key


class State(NamedTuple):
    """All that a model carries from one frame to the next."""

    hidden: Tensor  # (layers + upper_layers, B, H)
    cell: Tensor  # (layers + upper_layers, B, H)
    outer: Tensor  # (B, 2) int64, the highest and the lowest key last heard; 0 where not asked for
    past: Past | None  # None for a model without memory


class Choices(NamedTuple):
    """How freely a frame is drawn; as it stands, from the model's own distribution."""

    temperature: float = 1.0  # divides the logits of the highest note; 0 = the likeliest
    chord_temperature: float = 1.0  # divides those of the notes below it
    top_p: float = 1.0  # only the likeliest classes that have this much together (`nucleus`)
    max_notes: int = K  # of a frame


FREELY = Choices()
LIKELIEST = Choices(temperature=0, chord_temperature=0)


class Head(Protocol):
    """What turns the LSTM's output into a distribution over frames."""

    def nll(self, hidden: Tensor, frames: Tensor) -> Tensor:
        """Return -log p(frame | hidden) in nats: (F, H) and (F, K) of 0 and 1 -> (F,)."""

    def sample(self, hidden: Tensor, noise: Tensor, choices: Choices = FREELY) -> Tensor:
        """Draw a frame for each row: (F, H), (F, K + 1) uniform in [0, 1) -> (F, K) of 0 and 1.

        The noise is all the chance there is: a row is drawn alike in any company.
        """

    def set_marginals(self, marginals: Tensor) -> None:
        """Start from independent keys that sound with these probabilities, (K,) in (0, 1)."""


class BernoulliHead(nn.Module):
    """88 independent keys: p(frame) is the product of one Bernoulli probability a key.

    Exact and normalised, since each factor is. It can't say "one of these two notes, not both".
    """

    def __init__(self, hidden_size: int, keys: int = K) -> None:
        """Make the one layer, H -> K logits."""
        super().__init__()
        self.logits = nn.Linear(hidden_size, keys)

    def nll(self, hidden: Tensor, frames: Tensor) -> Tensor:
        """Return the binary cross-entropy summed over keys, in nats: (F, H), (F, K) -> (F,)."""
        logits = self.logits(hidden)
        return functional.binary_cross_entropy_with_logits(logits, frames, reduction="none").sum(
            dim=-1
        )

    def sample(self, hidden: Tensor, noise: Tensor, choices: Choices = FREELY) -> Tensor:
        """Draw a frame for each row, (F, H), (F, K + 1) uniform -> (F, K).

        Any key may be the highest, so all have the one temperature. Of more notes than are allowed
        the likeliest stay.
        """
        logits = self.logits(hidden)  # (F, K)
        on = torch.sigmoid(logits / max(choices.temperature, COLDEST))
        # The nucleus of two: the less likely one is left out where the other is enough.
        sure = torch.maximum(on, 1 - on) >= choices.top_p
        if choices.temperature < COLDEST:
            sure = torch.ones_like(sure)
        on = on.where(~sure, (logits > 0).to(on))
        drawn = (noise[:, : logits.shape[1]] < on).to(hidden.dtype)
        rank = (logits + torch.log(drawn)).argsort(dim=1, descending=True).argsort(dim=1)
        return drawn * (rank < choices.max_notes)

    def set_marginals(self, marginals: Tensor) -> None:
        """Start from keys that sound with these probabilities, (K,) in (0, 1)."""
        with torch.no_grad():
            self.logits.bias.copy_(torch.logit(marginals))


class ChordHead(nn.Module):
    """The notes of a frame one after another, from the highest down, until "stop".

    A frame of m notes is a chain of m + 1 choices from the classes 0 = stop, 1..K = the keys:

        K >= key_1 > key_2 > ... > key_m > 0 = stop

    Each choice is a softmax over the classes below the one before (stop is below every key), given
    the LSTM's output and, through `latent_size` units, the notes already chosen. As every frame is
    exactly one chain, the product of its softmax factors is an exact probability, and those of all
    2^K frames sum to 1. The chain is that of NADE (Larochelle and Murray 2011), with the keys in
    descending order and a factor for each note that sounds instead of one for each key.

    The notes chosen are read as keys and as intervals from the lowest of them, and call for keys
    and for intervals below it: a chord is the same thing on every degree. In the place of NADE's
    sigmoid units are linear ones, gated by the music so far, as the factored three-way units of
    Memisevic and Hinton (2010) are: each unit sums a weight over the notes chosen, the LSTM's
    output scales the unit, and the unit votes for the next note.
    """

    def __init__(self, hidden_size: int, latent_size: int, keys: int = K) -> None:
        """Make the layers; K + 1 classes."""
        super().__init__()
        self.logits = nn.Linear(hidden_size, keys + 1)  # what the music so far asks for
        self.below = nn.Linear(hidden_size, keys)  # what it asks for below the note before
        self.context = nn.Linear(hidden_size, latent_size)  # how much it cares for each unit
        self.chosen = nn.Linear(2 * keys, latent_size, bias=False)  # what is there of the chord
        self.completion = nn.Linear(latent_size, 2 * keys + 1, bias=False)  # what that calls for

    def ask(self, hidden: Tensor) -> Tensor:
        """Return all that the music so far has to say: (F, H) -> (F, (K + 1) + K + L)."""
        return torch.cat([self.logits(hidden), self.below(hidden), self.context(hidden)], dim=1)

    def choice_logits(self, asked: Tensor, chosen: Tensor, previous: Tensor) -> Tensor:
        """Return the logits of the next choice, (S, K + 1), -inf for the classes that are shut.

        Args:
            asked: (S, (K + 1) + K + L), the rows of `ask`.
            chosen: (S, K) of 0 and 1, the notes of the frame so far.
            previous: (S,) int64, the choice before; K + 1 for the first of a frame.
        """
        keys, classes = chosen.shape[1], torch.arange(chosen.shape[1] + 1, device=chosen.device)
        base, below, context = asked.tensor_split((keys + 1, 2 * keys + 1), dim=1)
        lowest = previous - 1  # (S,) the key of the choice before
        units = self.chosen(torch.cat([chosen, seen_from(lowest, chosen)], dim=1))  # (S, L)
        votes, steps = self.completion(units * (1 + context)).split((keys + 1, keys), dim=1)
        votes = votes + functional.pad(seen_from(-lowest, below + steps), (1, 0))  # (S, K + 1)
        logits = base + votes * (previous[:, None] <= keys)
        return logits.masked_fill(classes >= previous[:, None], -torch.inf)

    def nll(self, hidden: Tensor, frames: Tensor) -> Tensor:
        """Return -log p in nats, (F, H), (F, K) of 0 and 1 -> (F,); all S choices at once."""
        chain = functional.pad(frames, (1, 0), value=1.0)  # (F, K+1): stop is always chosen, last
        frame, below_top = chain.flip(1).nonzero(as_tuple=True)  # (S,) each, in order of choice
        choice = frames.shape[1] - below_top  # (S,) the class chosen
        # The choice before, or for a frame's first a class above all.
        top = frames.shape[1] + 1
        previous = choice.roll(1).where(frame == frame.roll(1), top)
        previous[:1] = top
        above = torch.arange(1, top, device=frames.device) >= previous[:, None]  # (S, K)
        # index_select, not [frame]: the gradient of that is summed in whatever order threads come.
        asked = self.ask(hidden).index_select(0, frame)
        logits = self.choice_logits(asked, frames[frame] * above, previous)
        nll = functional.cross_entropy(logits, choice, reduction="none")  # (S,)
        return nll.new_zeros(len(frames)).index_add(0, frame, nll)

    def sample(
        self,
        hidden: Tensor,
        noise: Tensor,
        choices: Choices = FREELY,
        highest: Tensor | None = None,
    ) -> Tensor:
        """Draw a frame for each row, in a step for each note of the fullest.

        Args:
            hidden: (F, H).
            noise: (F, K + 1) uniform in [0, 1), one for each choice.
            choices: how freely.
            highest: (F, K + 1) bool, the classes that the first choice is made from; None = all.

        Returns:
            (F, K) of 0 and 1.
        """
        asked, classes = self.ask(hidden), self.logits.out_features
        chain = asked.new_zeros(len(hidden), classes)  # (F, K + 1)
        previous = torch.full((len(hidden),), classes, device=asked.device)
        temperature = choices.temperature
        for step in range(classes):
            logits = self.choice_logits(asked, chain[:, 1:], previous)
            logits[:, 0].masked_fill_(previous == 0, 0.0)  # what has stopped chooses that again
            if step == 0 and highest is not None:
                logits = logits.masked_fill(~highest, -torch.inf)
            if step >= choices.max_notes:
                logits[:, 1:] = -torch.inf
            previous = draw(logits, noise[:, step], temperature, choices.top_p)  # (F,)
            chain.scatter_(1, previous[:, None], 1.0)
            temperature = choices.chord_temperature
            if not bool(previous.any()):
                break
        return chain[:, 1:]

    def set_marginals(self, marginals: Tensor) -> None:
        """Start from independent keys that sound with these probabilities p, (K,) in (0, 1).

        Independent keys are a chain too: going down, the next note is k with probability p_k times
        that of silence between. Divided by that of "no more notes", which is stop's, it is
        p_k / prod_{i <= k} (1 - p_i), the same whatever came before: its logarithm is the bias.
        """
        with torch.no_grad():
            silence = torch.log1p(-marginals).cumsum(0)
            self.logits.bias.copy_(functional.pad(marginals.log() - silence, (1, 0)))


def draw(logits: Tensor, noise: Tensor, temperature: float, top_p: float) -> Tensor:
    """Return a class for each row: logits (S, C), uniform noise (S,) in [0, 1) -> (S,) int64.

    It is the first class that the noise's share of the whole does not reach beyond.
    """
    if temperature < COLDEST:
        return logits.argmax(dim=1)
    odds = torch.softmax(logits / temperature, dim=1)
    if top_p < 1:
        odds = nucleus(odds, top_p)
    total = odds.cumsum(dim=1)
    return (total > noise[:, None] * total[:, -1:]).byte().argmax(dim=1)


def nucleus(odds: Tensor, top_p: float) -> Tensor:
    """Return the odds (S, C) with 0 for all but the fewest likeliest that have top_p of them.

    At least one stays (Holtzman et al. 2020, "The Curious Case of Neural Text Degeneration",
    arXiv:1904.09751).
    """
    ordered, places = odds.sort(dim=1, descending=True)
    before = ordered.cumsum(dim=1) - ordered
    kept = ordered * (before < top_p * odds.sum(dim=1, keepdim=True))
    return torch.zeros_like(odds).scatter(1, places, kept)


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
        self.lstm = make_lstm(embed_size, hidden_size, settings.layers, settings.dropout)
        self.memory = Memory(settings, keys) if settings.memory else None
        self.upper = (
            make_lstm(
                hidden_size + embed_size, hidden_size, settings.upper_layers, settings.dropout
            )
            if settings.upper_layers
            else None
        )
        self.input_dropout = nn.Dropout(settings.input_dropout)
        self.dropout = nn.Dropout(settings.dropout)
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
        embedded = self.input_dropout(embedded)
        below = self.settings.layers
        heard, carried = self.lstm(embedded, (state.hidden[:below], state.cell[:below]))
        vectors, past = self.dropout(heard), None  # (B, T, H)
        if self.memory is not None:
            found, past = self.memory(heard, frames, outer, state.past)
            vectors = vectors + found
        if self.upper is not None:
            above = torch.cat([vectors, embedded], dim=2)
            heard, upper = self.upper(above, (state.hidden[below:], state.cell[below:]))
            vectors = vectors + self.dropout(heard)
            carried = [torch.cat(parts) for parts in zip(carried, upper, strict=True)]
        if self.intervals is not None:
            vectors = torch.cat([vectors, self.intervals.votes(vectors, frames, outer)], dim=2)
        hidden, cell = carried
        return vectors, State(hidden, cell, outer[:, -1], past)

    def embed(self, frames: Tensor, shift: Tensor | None) -> Tensor:
        """Return what the LSTM reads, frames and key: (B, T, K), semitones (B,) -> (B, T, E)."""
        embedded = self.embedding(frames)
        if self.key is None:
            return embedded
        shift = frames.new_zeros(len(frames), dtype=torch.int64) if shift is None else shift
        key = functional.one_hot(shift % OCTAVE, OCTAVE).to(frames.dtype)  # (B, 12)
        return embedded + self.key(key)[:, None]


def make_lstm(input_size: int, hidden_size: int, layers: int, dropout: float) -> nn.LSTM:
    """Return an LSTM that reads (B, T, input) and drops outputs between its layers."""
    dropout = dropout if layers > 1 else 0.0
    return nn.LSTM(input_size, hidden_size, layers, batch_first=True, dropout=dropout)


def first_rows(state: State | None, rows: int) -> State | None:
    """Return the state of a batch's first `rows` tunes, cut off from the gradient behind it."""
    if state is None:
        return None
    hidden, cell = (tensor[:, :rows].detach().contiguous() for tensor in state[:2])
    past = state.past and Past(*(tensor[:rows].detach() for tensor in state.past))
    return State(hidden, cell, state.outer[:rows], past)
