"""The heads are exact distributions over whole frames, and sample from them.

They are held against `Slow`, which works in plain Python floats, one note after another. Most tests
use K = 4 to 8 keys, so that all 2^K frames can be listed.
"""

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chi2
from torch import Tensor

from heads import BernoulliHead, Choices, ChordHead
from helpers import draw_frames

H, L = 5, 3
HEADS = ["bernoulli", "chord"]


def make_head(kind: str, keys: int, seed: int = 0, scale: float = 1.0) -> Any:
    """Return a head in float64 whose every weight is drawn from a normal distribution."""
    generator = torch.Generator().manual_seed(seed)
    head = BernoulliHead(H, keys) if kind == "bernoulli" else ChordHead(H, L, keys)
    head = head.double()
    for weights in head.parameters():
        weights.data = scale * torch.randn(weights.shape, generator=generator, dtype=weights.dtype)
    return head


def draw_hidden(rows: int, seed: int = 1) -> Tensor:
    return torch.randn(rows, H, generator=torch.Generator().manual_seed(seed)).double()


def every_frame(keys: int) -> Tensor:
    """Return all 2^K frames, (2^K, K)."""
    return torch.tensor(list(itertools.product([0.0, 1.0], repeat=keys)), dtype=torch.float64)


# ---- the slow way --------------------------------------------------------------------------------


def affine(weights: dict[str, Any], name: str, values: list[float]) -> list[float]:
    """Return W v + b, b = 0 where there is none, in plain Python."""
    rows = weights[f"{name}.weight"]
    bias = weights.get(f"{name}.bias", [0.0] * len(rows))
    return [
        sum(w * v for w, v in zip(row, values, strict=True)) + b
        for row, b in zip(rows, bias, strict=True)
    ]


@dataclass
class Slow:
    """A head again, note by note, in plain Python; temperature divides the logits."""

    weights: dict[str, Any]

    @classmethod
    def of(cls, head: Any) -> "Slow":
        return cls({name: tensor.tolist() for name, tensor in head.state_dict().items()})

    def choices(self, hidden: list[float], chosen: list[float], below: int) -> list[float]:
        """Return the logits of classes 0 (stop) to `below` - 1 of the chord head."""
        logits = affine(self.weights, "logits", hidden)
        if not any(chosen):
            return logits[:below]
        keys, lowest = len(chosen), below - 1
        context = affine(self.weights, "context", hidden)
        above = [chosen[(lowest + step) % keys] for step in range(keys)]  # from the lowest note
        units = affine(self.weights, "chosen", [*chosen, *above])
        units = [unit * (1 + scale) for unit, scale in zip(units, context, strict=True)]
        votes = affine(self.weights, "completion", units)
        steps = affine(self.weights, "below", hidden)
        for choice in range(below):
            logits[choice] += votes[choice]
            if choice:
                step = (choice - 1 - lowest) % keys
                logits[choice] += steps[step] + votes[keys + 1 + step]
        return logits[:below]

    def nll(self, hidden: list[float], frame: list[float], temperature: float = 1.0) -> float:
        if "completion.weight" not in self.weights:
            logits = affine(self.weights, "logits", hidden)
            # -log sigmoid(z) where the key sounds, -log sigmoid(-z) where it does not.
            signed = [
                z / temperature if cell else -z / temperature
                for z, cell in zip(logits, frame, strict=True)
            ]
            return sum(math.log1p(math.exp(-z)) for z in signed)
        total, below, chosen = 0.0, len(frame) + 1, [0.0] * len(frame)
        notes = [key + 1 for key, cell in enumerate(frame) if cell]
        for choice in [*reversed(notes), 0]:
            logits = [z / temperature for z in self.choices(hidden, chosen, below)]
            total += math.log(sum(math.exp(z) for z in logits)) - logits[choice]
            if choice:
                chosen[choice - 1] = 1.0
            below = choice
        return total

    def likeliest(self, hidden: list[float], keys: int, highest: int | None = None) -> list[float]:
        """Return the frame of the likeliest choice each time, below a highest key if there is."""
        if "completion.weight" not in self.weights:
            return [float(z > 0) for z in affine(self.weights, "logits", hidden)]
        below, chosen = keys + 1, [0.0] * keys
        if highest is not None:
            below, chosen[highest] = highest + 1, 1.0
        while below > 0:
            logits = self.choices(hidden, chosen, below)
            below = max(range(below), key=logits.__getitem__)
            if below:
                chosen[below - 1] = 1.0
        return chosen


# ---- the heads are exact distributions -----------------------------------------------------------


@pytest.mark.parametrize("keys", [1, 6, 7, 8])
@pytest.mark.parametrize("kind", HEADS)
def test_probabilities_of_all_frames_sum_to_one(kind: str, keys: int) -> None:
    head, frames = make_head(kind, keys), every_frame(keys)
    for hidden in draw_hidden(4):
        nll = head.nll(hidden.expand(len(frames), H), frames)
        assert torch.exp(-nll).sum().item() == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("keys", [1, 5, 88])
@pytest.mark.parametrize("kind", HEADS)
def test_nll_is_that_of_a_slow_sum_note_by_note(kind: str, keys: int) -> None:
    head = make_head(kind, keys, scale=0.7)
    frames = torch.cat(
        [draw_frames(20, keys), torch.zeros(1, keys).double(), torch.ones(1, keys).double()]
    )
    hidden = draw_hidden(len(frames))
    slow = Slow.of(head)
    expected = [slow.nll(h, x) for h, x in zip(hidden.tolist(), frames.tolist(), strict=True)]
    assert head.nll(hidden, frames).tolist() == pytest.approx(expected, rel=1e-10)


def test_chord_nll_of_two_keys_worked_out_by_hand() -> None:
    head = ChordHead(1, 1, keys=2).double()
    hand = {  # classes: stop, low key, high key; the low one is a step of -1 = 1 from the high
        "logits.weight": [[0.0], [0.0], [0.0]],
        "logits.bias": [0.0, math.log(2), math.log(3)],
        "below.weight": [[0.0], [0.0]],
        "below.bias": [0.0, math.log(7)],
        "context.weight": [[1.0]],
        "context.bias": [0.0],
        "chosen.weight": [[1.0, 1.0, 0.5, 0.0]],  # a note in either key, and itself from itself
        "completion.weight": [[0.0], [math.log(5)], [0.0], [0.0], [math.log(11)]],
    }
    head.load_state_dict(
        {name: torch.tensor(value, dtype=torch.float64) for name, value in hand.items()}
    )
    hidden = torch.tensor([[1.0]]).double()  # 1 + context = 2, so a note chosen makes the unit 3
    low = 2 * 5**3 * 7 * 11**3  # what low asks for after high, to 1 of stop
    for frame, probability in [
        ([0.0, 0.0], 1 / 6),  # stop, of 1 + 2 + 3
        ([1.0, 0.0], 2 / 6),  # low; then stop alone is open
        ([0.0, 1.0], 3 / 6 * 1 / (1 + low)),  # high; then stop
        ([1.0, 1.0], 3 / 6 * low / (1 + low)),  # high; then low
    ]:
        nll = head.nll(hidden, torch.tensor([frame]).double())
        assert nll.item() == pytest.approx(-math.log(probability), abs=1e-12)


@pytest.mark.parametrize("kind", HEADS)
def test_marginals_without_weights_are_independent_keys(kind: str) -> None:
    keys = 6
    head, frames = make_head(kind, keys), every_frame(keys)
    for name, weights in head.named_parameters():
        # Whatever the LSTM says and the notes chosen are: neither has a say.
        silent = name.startswith("below.") or name in ("logits.weight", "completion.weight")
        weights.data *= 0 if silent else 1
    p = [0.5, 0.01, 0.99, 0.3, 1e-6, 0.75]
    head.set_marginals(torch.tensor(p, dtype=torch.float64))
    expected = [
        -sum(math.log(q if cell else 1 - q) for q, cell in zip(p, frame, strict=True))
        for frame in frames.tolist()
    ]
    nll = head.nll(draw_hidden(len(frames)), frames)
    assert nll.tolist() == pytest.approx(expected, rel=1e-9)


@settings(deadline=None, derandomize=True, max_examples=30)
@given(
    kind=st.sampled_from(HEADS),
    cells=st.lists(st.lists(st.booleans(), min_size=5, max_size=5), min_size=1, max_size=6),
    seed=st.integers(0, 1000),
)
def test_nll_of_a_frame_does_not_depend_on_its_neighbours(
    kind: str, cells: list[list[bool]], seed: int
) -> None:
    head, frames = make_head(kind, 5, seed), torch.tensor(cells).double()
    hidden = draw_hidden(len(frames), seed)
    together = head.nll(hidden, frames)
    alone = torch.cat([head.nll(hidden[i : i + 1], frames[i : i + 1]) for i in range(len(frames))])
    assert torch.allclose(together, alone, rtol=0, atol=1e-12)
    assert (together > 0).all()


@pytest.mark.parametrize("scale", [1.0, 100.0])
@pytest.mark.parametrize("kind", HEADS)
def test_empty_and_full_frames_have_finite_loss_and_gradient(kind: str, scale: float) -> None:
    head = make_head(kind, 88, scale=scale).float()
    frames = torch.stack([torch.zeros(88), torch.ones(88), torch.zeros(88)])
    nll = head.nll(draw_hidden(3).float(), frames)
    nll.sum().backward()
    assert torch.isfinite(nll).all()
    for name, weights in head.named_parameters():
        assert torch.isfinite(weights.grad).all(), name


@pytest.mark.parametrize("kind", HEADS)
def test_gradients_of_the_heads_are_right(kind: str) -> None:
    head = make_head(kind, 4)
    frames = every_frame(4)[[0, 3, 9, 15]]

    def nll(hidden: Tensor, *weights: Tensor) -> Tensor:
        named = dict(zip(dict(head.named_parameters()), weights, strict=True))
        return torch.func.functional_call(CallNll(head), prefixed(named), (hidden, frames))

    inputs = [draw_hidden(4), *(weights.detach() for weights in head.parameters())]
    assert torch.autograd.gradcheck(nll, [tensor.clone().requires_grad_() for tensor in inputs])


class CallNll(torch.nn.Module):
    """Calls a head's `nll`, which torch.func needs to be a module's call."""

    def __init__(self, head: Any) -> None:
        super().__init__()
        self.head = head

    def forward(self, hidden: Tensor, frames: Tensor) -> Tensor:
        return self.head.nll(hidden, frames)


def prefixed(named: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"head.{name}": tensor for name, tensor in named.items()}


# ---- sampling ------------------------------------------------------------------------------------


def noise_of(rows: int, seed: int = 6) -> Tensor:
    return torch.rand(rows, 89, generator=torch.Generator().manual_seed(seed)).double()


def at(temperature: float) -> Choices:
    return Choices(temperature, temperature)


def surprise(draws: Tensor, probabilities: np.ndarray) -> float:
    """Return the p-value of Pearson's chi-square for draws, (n, K), of all 2^K frames.

    Frames expected fewer than five times are counted as one, as the approximation asks for.
    """
    powers = 2 ** torch.arange(draws.shape[1] - 1, -1, -1)
    observed = np.bincount((draws.long() @ powers).numpy(), minlength=len(probabilities))
    expected = probabilities * len(draws)
    rare = expected < 5
    observed = np.append(observed[~rare], observed[rare].sum())
    expected = np.append(expected[~rare], expected[rare].sum())
    observed, expected = observed[expected > 0], expected[expected > 0]
    return float(chi2.sf(((observed - expected) ** 2 / expected).sum(), len(expected) - 1))


@pytest.mark.parametrize("temperature", [1.0, 2.5, 0.6])
@pytest.mark.parametrize("kind", HEADS)
def test_samples_follow_the_distribution(kind: str, temperature: float) -> None:
    keys, draws = 4, 20_000
    head = make_head(kind, keys, seed=4, scale=0.6)
    hidden, slow = draw_hidden(1, seed=5), Slow.of(make_head(kind, keys, seed=4, scale=0.6))
    frames = every_frame(keys).tolist()

    def odds(temperature: float) -> np.ndarray:
        return np.exp([-slow.nll(hidden[0].tolist(), frame, temperature) for frame in frames])

    drawn = head.sample(hidden.expand(draws, H), noise_of(draws), at(temperature))
    assert drawn.shape == (draws, keys)
    assert set(drawn.unique().tolist()) == {0.0, 1.0}
    # With another seed, a right sampler would fail here once in 10,000 times.
    assert surprise(drawn, odds(temperature)) > 1e-4
    assert surprise(drawn, odds(temperature * 1.2)) < 1e-9, "the test could not tell"


@pytest.mark.parametrize("keys", [6, 88])
@pytest.mark.parametrize("kind", HEADS)
def test_temperature_zero_takes_the_likeliest_choice(kind: str, keys: int) -> None:
    head, hidden = make_head(kind, keys), draw_hidden(12)
    expected = [Slow.of(head).likeliest(h, keys) for h in hidden.tolist()]
    assert head.sample(hidden, noise_of(12), at(0)).tolist() == expected
    assert len({tuple(frame) for frame in expected}) > 1, "the test needs frames that differ"


@pytest.mark.parametrize(
    ("kind", "temperature"),
    [
        ("bernoulli", 1e-3),
        ("bernoulli", 1e-300),
        ("chord", 1e-3),
        ("chord", 1e-12),
        ("chord", 1e-300),
    ],
)
def test_temperature_near_zero_is_as_zero(kind: str, temperature: float) -> None:
    head, hidden = make_head(kind, 6).float(), draw_hidden(12).float()
    drawn = head.sample(hidden, noise_of(12), at(temperature))
    assert torch.equal(drawn, head.sample(hidden, noise_of(12), at(0)))


@pytest.mark.parametrize("kind", HEADS)
def test_the_noise_is_all_the_chance_there_is(kind: str) -> None:
    head, hidden = make_head(kind, 8, scale=0.3), draw_hidden(50)
    before = torch.get_rng_state()
    first = head.sample(hidden, noise_of(50, seed=1))
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(3)
    assert torch.equal(head.sample(hidden, noise_of(50, seed=1)), first)
    # A row is drawn alike in any company.
    assert torch.equal(head.sample(hidden[7:9], noise_of(50, seed=1)[7:9]), first[7:9])
    # 50 frames of 8 keys, none of them certain: by chance the same well below once in 10^20 times.
    assert not torch.equal(head.sample(hidden, noise_of(50, seed=2)), first)


@pytest.mark.parametrize("noise", [0.0, 1 - 2**-24])
@pytest.mark.parametrize("kind", HEADS)
def test_noise_at_its_ends_draws_frames_too(kind: str, noise: float) -> None:
    head, hidden = make_head(kind, 8), draw_hidden(50)
    drawn = head.float().sample(hidden.float(), torch.full((50, 9), noise))
    assert set(drawn.unique().tolist()) <= {0.0, 1.0}
    assert head.nll(hidden.float(), drawn).isfinite().all()


# ---- how freely ----------------------------------------------------------------------------------


def odds_of(kind: str, keys: int, weigh: Callable[[list[float]], list[float]]) -> np.ndarray:
    """Return the probability of every frame where each choice's odds are put through `weigh`."""
    slow, hidden = Slow.of(make_head(kind, keys)), draw_hidden(1)[0].tolist()

    def choose(logits: list[float], taken: int) -> float:
        odds = weigh([math.exp(z) for z in logits])
        return odds[taken] / sum(odds)

    made = []
    for frame in every_frame(keys).tolist():
        probability = 1.0
        if kind == "bernoulli":
            for z, cell in zip(affine(slow.weights, "logits", hidden), frame, strict=True):
                probability *= choose([0.0, z], int(cell))
        else:
            chosen, below_ = [0.0] * keys, keys + 1
            for choice in [*[k + 1 for k in reversed(range(keys)) if frame[k]], 0]:
                probability *= choose(slow.choices(hidden, chosen, below_), choice)
                if choice:
                    chosen[choice - 1] = 1.0
                below_ = choice
        made.append(probability)
    return np.array(made)


def nucleus_of(odds: list[float], top_p: float) -> list[float]:
    kept, total = 0.0, sum(odds)
    weighed = [0.0] * len(odds)
    for place in sorted(range(len(odds)), key=lambda i: -odds[i]):
        if kept >= top_p * total:
            break
        weighed[place] = odds[place]
        kept += odds[place]
    return weighed


@pytest.mark.parametrize("top_p", [0.05, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("kind", HEADS)
def test_top_p_draws_from_the_nucleus_of_each_choice(kind: str, top_p: float) -> None:
    keys, draws = 4, 20_000
    expected = odds_of(kind, keys, lambda odds: nucleus_of(odds, top_p))
    assert expected.sum() == pytest.approx(1)
    drawn = make_head(kind, keys).sample(
        draw_hidden(1).expand(draws, H), noise_of(draws), Choices(top_p=top_p)
    )
    powers = 2 ** torch.arange(keys - 1, -1, -1)
    assert (expected[(drawn.long() @ powers).numpy()] > 0).all()
    # With one frame left, the line above has said it all.
    assert (expected > 0).sum() == 1 or surprise(drawn, expected) > 1e-4


@pytest.mark.parametrize("most", [1, 2, 3])
def test_a_chord_of_as_many_notes_as_are_allowed_stops(most: int) -> None:
    head, hidden = make_head("chord", 8), draw_hidden(200)
    free = head.sample(hidden, noise_of(200))
    drawn = head.sample(hidden, noise_of(200), Choices(max_notes=most))
    assert free.sum(dim=1).max() > 3
    for whole, cut in zip(free, drawn, strict=True):  # the same, down to the last note allowed
        assert cut.nonzero()[:, 0].tolist() == whole.nonzero()[:, 0].tolist()[-most:]


@pytest.mark.parametrize("most", [1, 3])
def test_of_too_many_independent_notes_the_likeliest_stay(most: int) -> None:
    head, hidden = make_head("bernoulli", 8), draw_hidden(200)
    logits, free = head.logits(hidden), head.sample(hidden, noise_of(200))
    drawn = head.sample(hidden, noise_of(200), Choices(max_notes=most))
    assert free.sum(dim=1).max() > 3
    for scores, whole, cut in zip(logits, free, drawn, strict=True):
        order = sorted(whole.nonzero()[:, 0].tolist(), key=lambda k: -scores[k].item())
        assert set(cut.nonzero()[:, 0].tolist()) == set(order[:most])


def test_highest_note_and_the_rest_have_temperatures_of_their_own() -> None:
    head, hidden = make_head("chord", 8), draw_hidden(300)
    likeliest = head.sample(hidden, noise_of(300), at(0))
    top = Choices(temperature=0)
    drawn = head.sample(hidden, noise_of(300), top)
    sounding = likeliest.any(dim=1)
    highest = [frame.nonzero()[-1].item() for frame in likeliest[sounding]]
    assert [frame.nonzero()[-1].item() for frame in drawn[sounding]] == highest
    assert not torch.equal(drawn, likeliest)
    rest = head.sample(hidden, noise_of(300), Choices(chord_temperature=0))
    assert not torch.equal(rest, likeliest)
    slow = Slow.of(head)
    for h, frame in zip(hidden.tolist(), rest.tolist(), strict=True):
        if any(frame):
            assert frame == slow.likeliest(h, 8, highest=max(k for k in range(8) if frame[k]))


def test_highest_note_is_drawn_from_those_allowed() -> None:
    head, hidden = make_head("chord", 8), draw_hidden(90)
    allowed = torch.zeros(90, 9, dtype=torch.bool)
    allowed[:30, 5] = allowed[30:60, 0] = allowed[60:, :4] = True
    drawn = head.sample(hidden, noise_of(90), highest=allowed)
    assert (drawn[:30, 4] == 1).all()
    assert not drawn[:30, 5:].any()
    assert not drawn[30:60].any()
    assert not drawn[60:, 3:].any()
    assert drawn[60:].any()


@pytest.mark.parametrize(
    "kind",
    [
        "bernoulli",
        "chord",
    ],
)
def test_no_frames_are_no_work(kind: str) -> None:
    head = make_head(kind, 6)
    assert head.nll(draw_hidden(0), torch.zeros(0, 6).double()).shape == (0,)
    assert head.sample(draw_hidden(0), noise_of(0)).shape == (0, 6)
