"""The heads: the LSTM's output -> a distribution over frames. Mathematics only, as model.py.

A head gives the exact and normalised NLL of a frame, and draws one. Letters are those of model.py,
and S is the choices made one after another in all F frames.

Sources: NADE for a frame as a chain of choices (Larochelle and Murray 2011); gated units (Memisevic
and Hinton 2010, "Learning to represent spatial transformations with factored higher-order Boltzmann
machines").
"""

from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from settings import K

COLDEST = 1e-4  # below this temperature nothing but the likeliest is ever drawn
DRAWS = K + 1  # random numbers that a frame needs at most


class Choices(NamedTuple):
    """How freely a frame is drawn; as it stands, from the model's own distribution."""

    temperature: float = 1.0  # divides the logits of the highest note; 0 = the likeliest
    chord_temperature: float = 1.0  # divides those of the notes below it
    top_p: float = 1.0  # only the likeliest classes that have this much together (`nucleus`)
    max_notes: int = K  # of a frame


FREELY = Choices()
LIKELIEST = Choices(temperature=0, chord_temperature=0)


# Draws frames: (F, H), (F, K + 1) uniform in [0, 1) and, where the first choice is not free, the
# classes it is made from, (F, K + 1) bool -> (F, K) of 0 and 1. The noise is all the chance there
# is: a row is drawn alike in any company.
Sampler = Callable[..., Tensor]


class Head(nn.Module):
    """What turns the LSTM's output into a distribution over frames."""

    def nll(self, hidden: Tensor, frames: Tensor) -> Tensor:
        """Return -log p(frame | hidden) in nats: (F, H) and (F, K) of 0 and 1 -> (F,)."""
        raise NotImplementedError

    def sampler(self, choices: Choices = FREELY) -> Sampler:
        """Return what draws frames as the weights are now; what can be prepared is."""
        raise NotImplementedError

    def set_marginals(self, marginals: Tensor) -> None:
        """Start from independent keys that sound with these probabilities, (K,) in (0, 1)."""
        raise NotImplementedError

    def sample(
        self,
        hidden: Tensor,
        noise: Tensor,
        choices: Choices = FREELY,
        highest: Tensor | None = None,
    ) -> Tensor:
        """Draw a frame for each row, as a `Sampler` does."""
        return self.sampler(choices)(hidden, noise, highest)


class BernoulliHead(Head):
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

    def sampler(self, choices: Choices = FREELY) -> Sampler:
        """Return what draws frames; any key may be the highest, so all have the one temperature.

        Of more notes than are allowed the likeliest stay.
        """
        temperature, keys = choices.temperature, self.logits.out_features

        def draw_keys(hidden: Tensor, noise: Tensor, highest: Tensor | None = None) -> Tensor:
            if highest is not None:
                raise ValueError("independent keys have no highest note to choose first")
            logits = self.logits(hidden)  # (F, K)
            if temperature < COLDEST:
                drawn = logits > 0
            else:
                on = torch.sigmoid(logits if temperature == 1 else logits / temperature)
                drawn = noise[:, :keys] < on
                if choices.top_p < 1:
                    # The nucleus of two: the less likely is left out where the other is enough.
                    drawn = drawn.where(torch.maximum(on, 1 - on) < choices.top_p, logits > 0)
            drawn = drawn.to(hidden.dtype)
            if choices.max_notes < keys:
                order = (logits + torch.log(drawn)).argsort(dim=1, descending=True)
                drawn = drawn * (order.argsort(dim=1) < choices.max_notes)
            return drawn

        return draw_keys

    def set_marginals(self, marginals: Tensor) -> None:
        """Start from keys that sound with these probabilities, (K,) in (0, 1)."""
        with torch.no_grad():
            self.logits.bias.copy_(torch.logit(marginals))


class Joined(NamedTuple):
    """The weights of a chord head side by side, so that few products do its work.

    Two columns behind the steps are always 0 and -inf, for classes that no interval has a say of
    and for those that are shut.
    """

    ask: Tensor  # (2 K + 3 + L, H), of logits, below, the two and context
    bias: Tensor  # (2 K + 3 + L,), 1 more for the context
    keys: Tensor  # (K, L), of the notes chosen
    steps: Tensor  # (K, L), of the same as intervals from the lowest
    completion: Tensor  # (L, 2 K + 3), of votes, steps and the two

    def split(self, said: Tensor) -> tuple[Tensor, Tensor]:
        """Return what is asked, (S, 2 K + 3), and the context, (S, L), of what `ask` gives."""
        units, places = self.completion.shape
        asked, context = said.split((places, units), dim=1)
        return asked, context


class ChordHead(Head):
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

    def joined(self) -> Joined:
        """Return the weights side by side, as they are now."""
        keys, of_steps = self.chosen.weight.t().chunk(2)
        logits, below, context = self.logits, self.below, self.context
        two = below.bias.new_tensor([0.0, -torch.inf])
        return Joined(
            torch.cat([logits.weight, functional.pad(below.weight, (0, 0, 0, 2)), context.weight]),
            torch.cat([logits.bias, below.bias, two, context.bias + 1]),
            keys,
            of_steps,
            functional.pad(self.completion.weight.t(), (0, 2)),
        )

    def nll(self, hidden: Tensor, frames: Tensor) -> Tensor:
        """Return -log p in nats, (F, H), (F, K) of 0 and 1 -> (F,); all S choices at once."""
        chain = functional.pad(frames, (1, 0), value=1.0)  # (F, K+1): stop is always chosen, last
        frame, below_top = chain.flip(1).nonzero(as_tuple=True)  # (S,) each, in order of choice
        choice = frames.shape[1] - below_top  # (S,) the class chosen
        # The choice before, or for a frame's first a class above all.
        top = frames.shape[1] + 1
        previous = choice.roll(1).where(frame == frame.roll(1), top)
        previous[:1] = top
        rules, joined = chord_rules(frames.shape[1], frames.device), self.joined()
        # index_select, not [frame]: the gradient of that is summed in whatever order threads come.
        said = functional.linear(hidden, joined.ask, joined.bias)
        asked, context = joined.split(said.index_select(0, frame))  # (S, ...) each
        above = torch.arange(1, top, device=frames.device) >= previous[:, None]  # (S, K)
        chosen = frames.index_select(0, frame) * above
        logits = choice_logits(joined, rules, asked, context, chosen, previous)
        nll = functional.cross_entropy(logits, choice, reduction="none")  # (S,)
        return nll.new_zeros(len(frames)).index_add(0, frame, nll)

    def sampler(self, choices: Choices = FREELY) -> Sampler:
        """Return what draws frames, in a step for each note of the fullest."""
        joined, classes = self.joined(), self.logits.out_features

        def draw_chord(hidden: Tensor, noise: Tensor, highest: Tensor | None = None) -> Tensor:
            rules = chord_rules(classes - 1, hidden.device)
            asked, context = joined.split(functional.linear(hidden, joined.ask, joined.bias))
            chain = asked.new_zeros(len(hidden), classes)  # (F, K + 1)
            chosen = chain[:, 1:]
            logits = asked[:, :classes]  # before anything is chosen, the music alone is asked
            if highest is not None:
                logits = logits.masked_fill(~highest, -torch.inf)
            temperature = choices.temperature
            for step in range(classes):
                if step >= choices.max_notes:
                    logits[:, 1:] = -torch.inf
                chance = noise[:, step : step + 1]
                previous = draw(logits, chance, temperature, choices.top_p)  # (F, 1)
                if not previous.any():
                    break
                chain.scatter_(1, previous, 1.0)
                temperature = choices.chord_temperature
                logits = choice_logits(joined, rules, asked, context, chosen, previous.squeeze(1))
            return chosen

        return draw_chord

    def set_marginals(self, marginals: Tensor) -> None:
        """Start from independent keys that sound with these probabilities p, (K,) in (0, 1).

        Independent keys are a chain too: going down, the next note is k with probability p_k times
        that of silence between. Divided by that of "no more notes", which is stop's, it is
        p_k / prod_{i <= k} (1 - p_i), the same whatever came before: its logarithm is the bias.
        """
        with torch.no_grad():
            silence = torch.log1p(-marginals).cumsum(0)
            self.logits.bias.copy_(functional.pad(marginals.log() - silence, (1, 0)))


class ChordRules(NamedTuple):
    """What the choice before has to say of the next one: row 0 = stop, K + 1 = none before."""

    seen: Tensor  # (K + 2, K) int64, the key that stands at each interval from it
    told: Tensor  # (K + 2, K + 1) int64, that of each class; K = none, K + 1 = it can't follow


@cache
def chord_rules(keys: int, device: torch.device) -> ChordRules:
    """Return the tables for K = `keys`, on this device."""
    with torch.inference_mode(False):
        before = torch.arange(keys + 2, device=device)[:, None]
        classes = torch.arange(keys + 1, device=device)
        told = ((classes - before) % keys).where((classes > 0) & (before <= keys), keys)
        # What has stopped chooses that again.
        told = told.where((classes < before) | (before + classes == 0), keys + 1)
        return ChordRules((classes[:-1] + before - 1) % keys, told)


def choice_logits(
    joined: Joined,
    rules: ChordRules,
    asked: Tensor,
    context: Tensor,
    chosen: Tensor,
    previous: Tensor,
) -> Tensor:
    """Return the logits of the next choice, (S, K + 1), -inf for the classes that are shut.

    Args:
        joined: the head's weights.
        rules: of the order of choices.
        asked: (S, 2 K + 3), what the music so far asks for.
        context: (S, L), how much it cares for each unit.
        chosen: (S, K) of 0 and 1, the notes of the frame so far.
        previous: (S,) int64, the choice before; K + 1 for the first of a frame.
    """
    seen = chosen.gather(1, rules.seen.index_select(0, previous))  # from the lowest so far
    units = torch.addmm(chosen @ joined.keys, seen, joined.steps) * context  # (S, L)
    told = torch.addmm(asked, units, joined.completion)  # (S, 2 K + 3)
    base, below = told.split((chosen.shape[1] + 1, chosen.shape[1] + 2), dim=1)
    return base + below.gather(1, rules.told.index_select(0, previous))


def draw(logits: Tensor, noise: Tensor, temperature: float, top_p: float) -> Tensor:
    """Return a class for each row: logits (S, C), uniform noise (S, 1) in [0, 1) -> (S, 1) int64.

    It is the first class that the noise's share of the whole does not reach beyond.
    """
    if temperature < COLDEST:
        return logits.argmax(dim=1, keepdim=True)
    odds = torch.softmax(logits if temperature == 1 else logits / temperature, dim=1)
    if top_p < 1:
        odds = nucleus(odds, top_p)
    total = odds.cumsum(dim=1)
    return torch.searchsorted(total, noise * total[:, -1:], right=True)


def nucleus(odds: Tensor, top_p: float) -> Tensor:
    """Return the odds (S, C) with 0 for all but the fewest likeliest that have top_p of them.

    At least one stays (Holtzman et al. 2020, "The Curious Case of Neural Text Degeneration",
    arXiv:1904.09751).
    """
    ordered, places = odds.sort(dim=1, descending=True)
    before = ordered.cumsum(dim=1) - ordered
    kept = ordered * (before < top_p * odds.sum(dim=1, keepdim=True))
    return torch.zeros_like(odds).scatter(1, places, kept)
