"""The output heads are exact distributions over whole frames, and sample from them.

The tests compare them with reference.py, mostly for so few pitches that all 2^P frames can be
listed.
"""

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chi2
from torch import Tensor

import reference
from helpers import random_frames
from pianolstm.layers.copy_mixture import CopyHead
from pianolstm.layers.heads import GREEDY, BernoulliHead, ChordHead, SamplingParams

HIDDEN_SIZE, LATENT_SIZE = 5, 3
PLAIN = ["Bernoulli", "chord", "voice leading"]
HEADS = [*PLAIN, "copies", "copies, voice leading"]


def make_head(kind: str, pitches: int, seed: int = 0, scale: float = 1.0) -> Any:
    """Return a head in float64 whose every weight is sampled from a normal distribution."""
    generator = torch.Generator().manual_seed(seed)
    head: Any = (
        BernoulliHead(HIDDEN_SIZE, pitches)
        if kind == "Bernoulli"
        # With voice leading, some of the vector is the frame read last.
        else ChordHead(HIDDEN_SIZE, LATENT_SIZE, pitches, 0.5 if "voice" in kind else None).eval()
    )
    if "copies" in kind:
        head = CopyHead(head, 2, pitches).eval()
    for weights in head.double().parameters():
        weights.data = scale * torch.randn(weights.shape, generator=generator, dtype=weights.dtype)
    return head


def random_vectors(rows: int, seed: int = 1, head: Any = None) -> Tensor:
    """Return vectors, (rows, H); for a head with voice leading a frame follows: (rows, H + P).

    For a mixture, so do two candidates and the log-weights. Every third row has but one candidate,
    and every third none.
    """
    if isinstance(head, CopyHead):
        own = random_vectors(rows, seed, head.head)
        generator = torch.Generator().manual_seed(seed + 1)
        exists = torch.arange(2) < 2 - torch.arange(rows)[:, None] % 3
        copies = torch.rand(rows, 2, head.pitches, generator=generator) < 0.4
        logits = torch.randn(rows, 2, generator=generator, dtype=torch.float64)
        logits = torch.nn.functional.pad(logits.masked_fill(~exists, -torch.inf), (1, 0))
        copies = (copies & exists[:, :, None]).flatten(1).double()
        return torch.cat([own, copies, logits.log_softmax(dim=1)], dim=1)
    generator = torch.Generator().manual_seed(seed)
    vectors = torch.randn(rows, HIDDEN_SIZE, generator=generator, dtype=torch.float64)
    if getattr(head, "voice_leading", None) is None:
        return vectors
    read = torch.rand(rows, head.base.out_features - 1, generator=generator) < 0.4
    return torch.cat([vectors, read.double()], dim=1)


def random_uniforms(rows: int, seed: int = 6) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(rows, 89, generator=generator, dtype=torch.float64)


def every_frame(pitches: int) -> Tensor:
    """Return all 2^P frames, (2^P, P)."""
    return torch.tensor(list(itertools.product([0.0, 1.0], repeat=pitches)), dtype=torch.float64)


# ---- probabilities -------------------------------------------------------------------------------


@pytest.mark.parametrize("pitches", [1, 8])
@pytest.mark.parametrize("kind", HEADS)
def test_the_probabilities_of_all_frames_sum_to_one(kind: str, pitches: int) -> None:
    head, frames = make_head(kind, pitches), every_frame(pitches)
    for vector in random_vectors(4, head=head):
        nll = head.nll(vector.expand(len(frames), -1), frames)
        assert torch.exp(-nll).sum().item() == pytest.approx(1, abs=1e-12)


def assert_equals_reference(head: Any, frames: Tensor, seed: int = 1) -> None:
    vectors, weights = random_vectors(len(frames), seed, head), reference.weights_of(head)
    pairs = zip(vectors.numpy(), frames.numpy(), strict=True)
    expected = [reference.nll(weights, vector, frame) for vector, frame in pairs]
    np.testing.assert_allclose(head.nll(vectors, frames).detach(), expected, rtol=1e-10)


@given(
    kind=st.sampled_from(HEADS),
    cells=st.lists(st.lists(st.booleans(), min_size=5, max_size=5), max_size=6),
    seed=st.integers(0, 1000),
)
def test_the_nll_of_any_frames_equals_the_reference(
    kind: str, cells: list[list[bool]], seed: int
) -> None:
    frames = torch.tensor(cells, dtype=torch.float64).view(-1, 5)
    assert_equals_reference(make_head(kind, 5, seed), frames, seed)


@pytest.mark.parametrize("kind", HEADS)
def test_the_nll_of_88_pitches_equals_the_reference(kind: str) -> None:
    silence, cluster = torch.zeros(1, 88).double(), torch.ones(1, 88).double()
    frames = torch.cat([random_frames(20, 88), silence, cluster])
    assert_equals_reference(make_head(kind, 88, scale=0.7), frames)


def test_the_chord_nll_of_two_pitches_is_that_worked_out_by_hand() -> None:
    head = ChordHead(1, 1, pitches=2).double()
    weights = {  # classes: stop, low pitch, high pitch; low is at the interval -1 = 1 from high
        "base.weight": [[0.0], [0.0], [0.0]],
        "base.bias": [0.0, math.log(2), math.log(3)],
        "below.weight": [[0.0], [0.0]],
        "below.bias": [0.0, math.log(7)],
        "context.weight": [[1.0]],
        "context.bias": [0.0],
        "chosen_proj.weight": [[1.0, 1.0, 0.5, 0.0]],  # either pitch, and the interval 0
        "unit_proj.weight": [[0.0], [math.log(5)], [0.0], [0.0], [math.log(11)]],
    }
    head.load_state_dict(
        {name: torch.tensor(value, dtype=torch.float64) for name, value in weights.items()}
    )
    vector = torch.tensor([[1.0]]).double()  # the gate is 1 + context = 2, so a note gives 3
    low = 2 * 5**3 * 7 * 11**3  # the odds of low after high, to 1 for stop
    for frame, probability in [
        ([0.0, 0.0], 1 / 6),  # stop, of 1 + 2 + 3
        ([1.0, 0.0], 2 / 6),  # low; then only stop can follow
        ([0.0, 1.0], 3 / 6 * 1 / (1 + low)),  # high; then stop
        ([1.0, 1.0], 3 / 6 * low / (1 + low)),  # high; then low
    ]:
        nll = head.nll(vector, torch.tensor([frame]).double())
        assert nll.item() == pytest.approx(-math.log(probability), abs=1e-12)


@pytest.mark.parametrize("kind", PLAIN)
def test_a_head_set_to_a_unigram_has_independent_pitches_of_these_probabilities(kind: str) -> None:
    p = [0.5, 0.01, 0.99, 0.3, 1e-6, 0.75]
    head, frames = make_head(kind, 6), every_frame(6)
    for name, weights in head.named_parameters():
        if name.startswith(("below.", "voice_leading.")) or name in (
            "logits.weight",
            "base.weight",
            "unit_proj.weight",
        ):
            weights.data.zero_()  # so that neither the LSTM nor chosen notes matter
    head.set_unigram(torch.tensor(p, dtype=torch.float64))
    expected = [
        -sum(math.log(q if cell else 1 - q) for q, cell in zip(p, frame, strict=True))
        for frame in frames.tolist()
    ]
    nll = head.nll(random_vectors(len(frames), head=head), frames)
    assert nll.tolist() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("kind", HEADS)
def test_empty_and_full_frames_have_a_finite_nll_and_gradient(kind: str) -> None:
    head = make_head(kind, 88, scale=100).float()
    nll = head.nll(
        random_vectors(3, head=head).float(), torch.tensor([[0.0], [1.0], [0.0]]).expand(3, 88)
    )
    nll.sum().backward()
    assert torch.isfinite(nll).all()
    assert all(torch.isfinite(weights.grad).all() for weights in head.parameters())


# ---- sampling ------------------------------------------------------------------------------------


def p_value(samples: Tensor, probabilities: np.ndarray) -> float:
    """Return the p-value of Pearson's chi-square test for samples of all 2^P frames.

    Frames expected fewer than five times count as one, as the approximation needs.

    Args:
        samples: (n, P).
        probabilities: (2^P,), in the order of `every_frame`.
    """
    powers = 2 ** torch.arange(samples.shape[1] - 1, -1, -1)
    observed = np.bincount((samples.long() @ powers).numpy(), minlength=len(probabilities))
    expected = probabilities * len(samples)
    rare = expected < 5
    observed = np.append(observed[~rare], observed[rare].sum())
    expected = np.append(expected[~rare], expected[rare].sum())
    assert not observed[expected == 0].any(), "a frame outside the nucleus was sampled"
    observed, expected = observed[expected > 0], expected[expected > 0]
    if len(expected) == 1:
        return 1.0
    return float(chi2.sf(((observed - expected) ** 2 / expected).sum(), len(expected) - 1))


def expected_probabilities(head: Any, vector: np.ndarray, params: SamplingParams) -> np.ndarray:
    """Return the probability of sampling each frame, (2^P,), in the order of `every_frame`.

    `temperature` is also that of a mixture's weights, up to 1; `top_p` is of its head alone.
    """
    if isinstance(head, CopyHead):
        inner = reference.weights_of(head.head)
        own, candidates, log_weights = reference.split_mixture(inner, vector)
        odds = np.exp(log_weights / min(params.temperature, 1))
        mixture = odds[0] * expected_probabilities(head.head, own, params)
        for copy, weight in zip(candidates, odds[1:], strict=True):
            mixture += weight * (every_frame(head.pitches).numpy() == copy).all(axis=1)
        return mixture / odds.sum()

    def adjust(logits: np.ndarray, number: int) -> np.ndarray:
        chord = isinstance(head, ChordHead) and number > 0
        odds = np.exp(logits / (params.chord_temperature if chord else params.temperature))
        own = np.exp(logits)  # the nucleus is that of the model, whatever the temperature
        order = np.argsort(-own)
        preceding = own[order].cumsum() - own[order]
        odds[order[preceding >= params.top_p * own.sum()]] = 0
        return odds

    pitches = head.below.out_features if isinstance(head, ChordHead) else head.logits.out_features
    weights, frames = reference.weights_of(head), every_frame(pitches).numpy()
    return np.array([reference.probability(weights, vector, frame, adjust) for frame in frames])


@pytest.mark.parametrize(
    "params",
    [
        SamplingParams(),
        SamplingParams(2.5, 2.5),
        SamplingParams(0.6, 1.5),
        SamplingParams(top_p=0.05),
        SamplingParams(top_p=0.5),
        SamplingParams(1.5, 0.7, top_p=0.9),
        SamplingParams(3.0, 3.0, top_p=0.6),
    ],
    ids=str,
)
@pytest.mark.parametrize("kind", HEADS)
def test_samples_follow_the_distribution_that_temperatures_and_top_p_give(
    kind: str, params: SamplingParams
) -> None:
    head = make_head(kind, 4, seed=4, scale=0.6)
    vector = random_vectors(1, 5, head)
    samples = head.sample(vector.expand(20_000, -1), random_uniforms(20_000), params)
    expected = expected_probabilities(head, vector[0].numpy(), params)
    assert expected.sum() == pytest.approx(1)
    # With another seed, a right sampler would fail here once in 10,000 times.
    assert p_value(samples, expected) > 1e-4


@pytest.mark.parametrize("kind", HEADS)
def test_the_chi_square_test_above_detects_a_wrong_temperature(kind: str) -> None:
    head = make_head(kind, 4, seed=4, scale=0.6)
    vector = random_vectors(1, 5, head)
    samples = head.sample(vector.expand(20_000, -1), random_uniforms(20_000))
    wrong = expected_probabilities(head, vector[0].numpy(), SamplingParams(1.3, 1.3))
    assert p_value(samples, wrong) < 1e-9


@pytest.mark.parametrize("temperature", [0, 1e-300, 1e-12, 1e-5])
@pytest.mark.parametrize(
    ("kind", "pitches"),
    [("Bernoulli", 6), ("chord", 6), ("chord", 88), ("copies", 6), ("copies, voice leading", 88)],
)
def test_temperature_zero_or_near_zero_takes_the_most_probable_choice(
    kind: str, pitches: int, temperature: float
) -> None:
    head = make_head(kind, pitches)
    vectors = random_vectors(12, head=head)
    weights = reference.weights_of(head)
    expected = np.array([reference.greedy(weights, vector) for vector in vectors.numpy()])
    params = GREEDY if temperature == 0 else SamplingParams(temperature, temperature)
    np.testing.assert_array_equal(head.sample(vectors, random_uniforms(12), params), expected)
    assert len({frame.tobytes() for frame in expected}) > 1, "the test needs different frames"


def test_chord_temperature_zero_takes_the_most_probable_notes_below_the_highest() -> None:
    head, vectors = make_head("chord", 8), random_vectors(200)
    samples = head.sample(vectors, random_uniforms(200), SamplingParams(chord_temperature=0))
    weights, highest = reference.weights_of(head), set()
    for vector, frame in zip(vectors.numpy(), samples.numpy(), strict=True):
        if frame.any():
            highest.add(top := int(np.flatnonzero(frame)[-1]))
            np.testing.assert_array_equal(frame, reference.greedy(weights, vector, [top]))
    assert len(highest) > 3, "the highest note is sampled"


@pytest.mark.parametrize("kind", HEADS)
def test_a_sample_depends_only_on_its_own_vector_and_uniform_numbers(kind: str) -> None:
    head = make_head(kind, 8, scale=0.3)
    vectors, before = random_vectors(50, head=head), torch.get_rng_state()
    samples = head.sample(vectors, random_uniforms(50, seed=1))
    assert torch.equal(torch.get_rng_state(), before)
    part = head.sample(vectors[7:9], random_uniforms(50, seed=1)[7:9])
    assert torch.equal(part, samples[7:9])
    # 50 frames of 8 pitches, none of them certain: equal by chance less than once in 10^20 times.
    assert not torch.equal(head.sample(vectors, random_uniforms(50, seed=2)), samples)


@pytest.mark.parametrize("uniform", [0.0, 1 - 2**-24])
@pytest.mark.parametrize("kind", HEADS)
def test_uniform_numbers_at_their_limits_give_frames_that_are_possible(
    kind: str, uniform: float
) -> None:
    head = make_head(kind, 8).float()
    vectors = random_vectors(50, head=head).float()
    samples = head.sample(vectors, torch.full((50, 9), uniform))
    assert set(samples.unique().tolist()) <= {0.0, 1.0}
    assert head.nll(vectors, samples).isfinite().all()


def test_the_highest_note_of_a_chord_is_sampled_from_the_allowed_classes() -> None:
    head, vectors = make_head("chord", 8), random_vectors(90)
    allowed = torch.zeros(90, 9, dtype=torch.bool)
    allowed[:30, 5] = allowed[30:60, 0] = allowed[60:, :4] = True  # 0 = silence, 5 = pitch 4
    samples = head.sample(vectors, random_uniforms(90), allowed=allowed)
    assert (samples[:30, 4] == 1).all()
    assert not samples[:30, 5:].any()
    assert not samples[30:60].any()
    assert not samples[60:, 3:].any()
    assert samples[60:].any()


def test_a_class_that_is_not_allowed_is_not_sampled_by_the_uniform_number_0_either() -> None:
    head, vectors = make_head("chord", 8), random_vectors(20)
    allowed = torch.zeros(20, 9, dtype=torch.bool)
    allowed[:, 5] = True
    assert (head.sample(vectors, torch.zeros(20, 89).double(), allowed=allowed)[:, 4] == 1).all()


def test_independent_outputs_refuse_allowed_classes() -> None:
    allowed = torch.ones(1, 9, dtype=torch.bool)
    with pytest.raises(ValueError, match="first choice"):
        make_head("Bernoulli", 8).sample(random_vectors(1), random_uniforms(1), allowed=allowed)


@pytest.mark.parametrize("kind", HEADS)
def test_no_rows_give_no_nlls_and_no_samples(kind: str) -> None:
    head = make_head(kind, 6)
    assert head.nll(random_vectors(0, head=head), torch.zeros(0, 6).double()).shape == (0,)
    assert head.sample(random_vectors(0, head=head), random_uniforms(0)).shape == (0, 6)


# ---- two views -----------------------------------------------------------------------------------


@torch.no_grad()
@pytest.mark.parametrize("kind", HEADS)
def test_the_divergence_of_two_views_is_that_of_their_probabilities(kind: str) -> None:
    # That of a mixture is its head's.
    head, shift = make_head(kind, 6, scale=0.5), torch.tensor([2, -1, 0])
    frames = torch.zeros(3, 6, dtype=torch.float64)
    frames[0, 1] = frames[1, [2, 4]] = 1  # within the pitches in both views; the last is silent
    moved = torch.stack([f.roll(int(s)) for f, s in zip(frames, shift, strict=True)])
    views = random_vectors(6, head=head).view(2, 3, -1)
    nll, divergence = head.nll_and_divergence(views, torch.stack([frames, moved]), shift)
    for view, view_frames, values in zip(views, (frames, moved), nll, strict=True):
        torch.testing.assert_close(head.nll(view, view_frames), values)
    weights = reference.weights_of(head)
    if isinstance(head, CopyHead):
        weights = reference.part(weights, "head")
        views = views[..., : random_vectors(1, head=head.head).shape[1]]
    for row, semitones in enumerate(shift.tolist()):
        expected = 0.0
        pairs = zip(
            reference.choices(weights, views[0, row].numpy(), frames[row].numpy()),
            reference.choices(weights, views[1, row].numpy(), moved[row].numpy()),
            strict=True,
        )
        steps = [(list(first[0]), list(second[0])) for first, second in pairs]
        if kind == "Bernoulli":  # one choice a pitch, and pitch p is p + semitones in the other
            seconds = [second for _, second in steps]
            steps = [(first, seconds[(p + semitones) % 6]) for p, (first, _) in enumerate(steps)]
        for first, second in steps:
            p, q = (softmax(view, kind, s) for view, s in ((first, 0), (second, semitones)))
            expected += sum(
                (a - b) * math.log(a / b) / 2 for a, b in zip(p, q, strict=True) if a and b
            )
        assert float(divergence[row]) == pytest.approx(expected, rel=1e-9)


def softmax(logits: list[float], kind: str, semitones: int) -> list[float]:
    """Return the probabilities of a choice, of stop and pitches as they were before transposing."""
    odds = np.exp(logits)
    if kind == "Bernoulli":
        return list(odds / odds.sum())
    padded = np.zeros(7)
    padded[: len(odds)] = odds / odds.sum()
    return [padded[0], *np.roll(padded[1:], -semitones)]


@torch.no_grad()
@pytest.mark.parametrize("kind", HEADS[1:])
def test_the_logits_of_the_first_choice_are_those_of_the_highest_note(kind: str) -> None:
    head, frames = make_head(kind, 6), every_frame(6)
    highest = torch.where(frames.any(dim=1), 6 - frames.flip(1).argmax(dim=1), 0)
    for vector in random_vectors(3, head=head):
        nll = head.nll(vector.expand(len(frames), -1), frames)
        expected = torch.zeros(7).double().index_add(0, highest, torch.exp(-nll))
        logits = head.first_logits(vector[None])[0]
        torch.testing.assert_close(torch.softmax(logits, dim=0), expected)


@torch.no_grad()
def test_dropout_of_voice_leading_leaves_out_whole_frames_in_training_alone() -> None:
    head = make_head("voice leading", 6)
    vector = random_vectors(1, head=head).expand(400, -1)
    frames = every_frame(6)[37:38].expand(400, -1)
    with_voices = float(head.nll(vector[:1], frames[:1]))
    zero, head.voice_leading.dropout = head.voice_leading.dropout, 0.25
    nll = head.train().nll(vector, frames)
    without = head.eval()
    for weights in without.voice_leading.parameters():
        weights.zero_()
    plain = float(without.nll(vector[:1], frames[:1]))
    assert zero == 0.5 and plain != pytest.approx(with_voices)
    close = (nll - with_voices).abs() < 1e-9
    assert bool((close | ((nll - plain).abs() < 1e-9)).all())
    assert 0.65 < float(close.double().mean()) < 0.85
