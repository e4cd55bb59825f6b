"""Sampling: what is drawn, from what chance, freely or with a part that is given."""

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from heads import DRAWS, LIKELIEST, BernoulliHead, Choices, ChordHead, Sampler
from helpers import K, roll_from, steps_of
from helpers_train import play_model
from model import FEW
from sampling import BLOCK, above, below, expected, freely, generators_of, sample

LATENTS = [0, 4]  # the Bernoulli head, the chord head


# ---- tunes ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("latent", LATENTS)
def test_same_seed_samples_the_same_tunes(latent: int) -> None:
    model = play_model(latent)
    first = sample(model, 30, generators_of(1, 3))
    torch.rand(5)
    assert torch.equal(sample(model, 30, generators_of(1, 3)), first)
    # 90 frames of about 3 notes drawn from 88: by chance the same less than once in 10^100 times.
    assert not torch.equal(sample(model, 30, generators_of(2, 3)), first)
    assert not torch.equal(first[0], first[1])


@pytest.mark.parametrize("latent", LATENTS)
def test_a_tune_is_the_same_in_any_company(latent: int) -> None:
    model, frames = play_model(latent, density=0.1), BLOCK + 6
    many = generators_of(3, FEW + 1)
    together = sample(model, frames, many)
    for i in (0, 4, FEW):
        alone = sample(model, frames, generators_of(3, len(many))[i : i + 1])
        assert torch.equal(alone[0], together[i])
    assert torch.equal(sample(model, 20, generators_of(3, 2)), together[:2, :20])


def test_no_two_tunes_of_any_two_seeds_share_their_chance() -> None:
    draws = [g.initial_seed() for seed in range(40) for g in generators_of(seed, 40)]
    assert len(set(draws)) == 1600
    assert all(0 <= draw < 2**63 for draw in draws)


def test_sampling_is_pure() -> None:
    model = play_model()
    weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    chance, primer = torch.get_rng_state(), torch.ones(3, K, dtype=torch.bool)
    threads = torch.get_num_threads()
    sample(model, 10, generators_of(1, 2), primer=primer)
    assert torch.equal(torch.get_rng_state(), chance)
    assert torch.get_num_threads() == threads
    assert primer.all()
    assert all(torch.equal(tensor, weights[n]) for n, tensor in model.state_dict().items())
    assert all(tensor.grad is None for tensor in model.parameters())


@pytest.mark.parametrize(("tunes", "frames"), [(1, 1), (1, 7), (3, 5)])
def test_sample_is_a_bool_roll_for_each_tune(tunes: int, frames: int) -> None:
    for primer in (None, torch.zeros(0, K), torch.ones(4, K)):
        drawn = sample(play_model(), frames, generators_of(1, tunes), primer=primer)
        assert drawn.shape == (tunes, frames, K)
        assert drawn.dtype == torch.bool
        assert drawn.device.type == "cpu"


@torch.no_grad()
@pytest.mark.parametrize("choices", [Choices(), LIKELIEST, Choices(0.7, 1.2, 0.9, 2)])
@pytest.mark.parametrize("latent", LATENTS)
def test_sampling_is_stepping_by_hand_through_primer_and_tune(
    latent: int, choices: Choices
) -> None:
    model, frames = play_model(latent, density=0.3), BLOCK + 3
    primer = torch.rand(5, K, generator=torch.Generator().manual_seed(5)) < 0.1
    draw_frame = freely(model.head, choices)
    drawn = sample(model, frames, generators_of(4, 2), draw_frame, primer=primer)
    generators, state, expected = generators_of(4, 2), None, []
    for frame in [torch.zeros(K), *primer.float()]:  # silence first, one frame after another
        hidden, state = model(frame.expand(2, 1, K), state)
    for t in range(frames):
        if t % BLOCK == 0:
            noise = torch.stack([torch.rand(BLOCK, DRAWS, generator=g) for g in generators])
        frame = model.head.sample(hidden[:, -1], noise[:, t % BLOCK], choices)
        hidden, state = model(frame[:, None], state)
        expected.append(frame > 0)
    assert torch.equal(drawn, torch.stack(expected, dim=1))
    assert drawn.any()


class Last(torch.nn.Module):
    """A model and head that hear the last frame alone."""

    def __init__(self) -> None:
        super().__init__()
        self.nothing = torch.nn.Parameter(torch.zeros(1))
        self.head: Any = self

    def forward(self, frames: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        return frames, state


class Upwards(Last):
    """A model that plays what it heard last, one key higher."""

    def sampler(self, choices: Choices) -> Sampler:
        assert choices == Choices()

        def draw_frames(hidden: Tensor, noise: Tensor) -> Tensor:
            assert noise.shape == (1, DRAWS)
            return hidden.roll(1, dims=-1)

        return draw_frames


def upwards(frames: int, primer: Tensor | None) -> list[list[int]]:
    drawn = sample(Upwards(), frames, generators_of(1, 1), primer=primer)  # type: ignore[arg-type]
    return steps_of(drawn[0].numpy())


def test_tune_goes_on_from_the_primer_which_is_not_in_it() -> None:
    primer = torch.from_numpy(roll_from({21}, {60, 64}))
    assert upwards(3, primer) == [[61, 65], [62, 66], [63, 67]]
    assert upwards(3, None) == [[], [], []]
    assert upwards(2, torch.zeros(0, K, dtype=torch.bool)) == [[], []]


def test_whole_primer_is_heard_not_only_its_end() -> None:
    model = play_model(latent=0, density=0.3)
    one = torch.from_numpy(roll_from({60}, {62}, {64}))
    other = torch.from_numpy(roll_from(set(range(21, 109)), {62}, {64}))
    # The chance is the same, so that only what the primers change can differ.
    drawn = [sample(model, 9, generators_of(1, 50), primer=heard) for heard in (one, other, None)]
    assert not torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])


def test_temperature_zero_leaves_nothing_to_chance() -> None:
    model = play_model(density=0.4)
    first, other = (
        sample(model, 20, generators_of(seed, 2), freely(model.head, LIKELIEST)) for seed in (1, 2)
    )
    assert torch.equal(first, other)
    assert torch.equal(first[0], first[1])
    assert first.any()


@pytest.mark.parametrize("max_hold", [0, 1, 3])
def test_progress_is_told_of_every_frame_once(max_hold: int) -> None:
    told: list[int] = []
    model = play_model(0, density=0.005)  # silent two times of three
    sample(model, 40, generators_of(1, 3), max_hold=max_hold, on_frames=told.append)
    assert sum(told) == 120
    assert len(told) > 2, "while it draws, not at the end"


# ---- where a tune is over ------------------------------------------------------------------------


class Settling(Last):
    """A model that plays the keys 1, 2, 3, 3, 3, ... after silence, and 70, 71, 72, 72 after 69."""

    def sampler(self, choices: Choices) -> Sampler:
        def draw_frames(hidden: Tensor, noise: Tensor) -> Tensor:
            last = hidden.argmax(dim=1)
            return torch.nn.functional.one_hot(last + (last % 69 < 3), K).float()

        return draw_frames


@pytest.mark.parametrize(
    ("max_hold", "expected"),
    [
        (0, [70, 71, 72, 72, 72, 72, 72, 72, 72, 72]),
        (2, [70, 71, 72, 72, 1, 2, 3, 3, 1, 2]),
        (4, [70, 71, 72, 72, 72, 72, 1, 2, 3, 3]),
        (7, [70, 71, 72, 72, 72, 72, 72, 72, 72, 1]),
        (8, [70, 71, 72, 72, 72, 72, 72, 72, 72, 72]),
    ],
)
def test_what_holds_for_too_long_is_over_and_another_tune_begins(
    max_hold: int, expected: list[int]
) -> None:
    primer = torch.eye(K)[[69]]
    model: Any = Settling()
    drawn = sample(model, 10, generators_of(1, 2), primer=primer, max_hold=max_hold)
    assert [drawn[row].int().argmax(dim=1).tolist() for row in range(2)] == [expected] * 2


@settings(max_examples=20)
@given(max_hold=st.integers(1, 8), frames=st.integers(1, 70), tunes=st.integers(1, 6))
def test_the_next_tune_is_the_same_in_any_company(max_hold: int, frames: int, tunes: int) -> None:
    model = play_model(0, density=0.005)
    together = sample(model, frames, generators_of(3, tunes), max_hold=max_hold)
    for i in {0, tunes - 1}:
        alone = sample(model, frames, generators_of(3, tunes)[i : i + 1], max_hold=max_hold)
        assert torch.equal(alone[0], together[i])
    longer = sample(model, frames + 5, generators_of(3, tunes), max_hold=max_hold)
    assert torch.equal(longer[:, :frames], together)


def test_the_next_tune_is_another() -> None:
    drawn = sample(play_model(0, density=0.05), 40, generators_of(3, 1), max_hold=1)[0]
    assert len({bytes(frame.numpy()) for frame in drawn}) > 30


# ---- a part that is given ------------------------------------------------------------------------


def test_below_a_melody_the_melody_is_the_highest_note_and_rests_stay_below_it() -> None:
    model = play_model(density=0.3)
    assert isinstance(model.head, ChordHead)
    melody = roll_from({72}, {60, 64}, set(), {108}, set(), {21}, set())
    drawn = sample(model, 7, generators_of(2, 40), below(melody, model.head)).numpy()
    for tune in drawn:
        highest = [max(notes, default=0) for notes in steps_of(tune)]
        assert highest[:2] == [72, 64]
        assert highest[2] < 64
        assert highest[3] == 108
        assert highest[4] < 108
        assert highest[5] == 21
        assert highest[6] < 21
    assert drawn[:, :2].sum() > 3 * 80, "something sounds below it"


@torch.no_grad()
def test_below_a_melody_notes_are_drawn_from_the_exact_conditional() -> None:
    head, hidden = small_chord_head(), torch.randn(1, 5, generator=torch.Generator().manual_seed(3))
    melody = np.zeros((1, K), dtype=bool)
    melody[0, 3] = True  # of 6 keys that ever sound
    noise = torch.rand(20_000, DRAWS, generator=torch.Generator().manual_seed(4))
    drawn = below(melody, head)(hidden.expand(20_000, -1), noise, 0)
    frames = torch.zeros(8, K)
    frames[:, :3] = torch.tensor(list(itertools.product([0.0, 1.0], repeat=3)))
    frames[:, 3] = 1
    expected = torch.softmax(-head.nll(hidden.expand(8, -1), frames), dim=0)
    for frame, probability in zip(frames, expected.tolist(), strict=True):
        share = (drawn == frame).all(dim=1).float().mean().item()
        # 4.5 standard deviations: by chance once in 100,000 times.
        assert abs(share - probability) < 4.5 * (probability * (1 - probability) / 20_000) ** 0.5


def small_chord_head() -> ChordHead:
    """Return a head of 88 keys of which the lowest six ever sound."""
    torch.manual_seed(0)
    head = ChordHead(5, 3)
    with torch.no_grad():
        for weights in head.parameters():
            weights.normal_()
        head.logits.bias[7:] = -1e4
    return head


@torch.no_grad()
@pytest.mark.parametrize("kind", ["bernoulli", "chord"])
@pytest.mark.parametrize("keys", [[], [1, 2]])
def test_above_chords_the_note_is_drawn_from_the_exact_conditional(
    kind: str, keys: list[int]
) -> None:
    torch.manual_seed(0)
    head = small_chord_head() if kind == "chord" else BernoulliHead(5)
    hidden = torch.randn(1, 5, generator=torch.Generator().manual_seed(3))
    chords = np.zeros((1, K), dtype=bool)
    chords[0, keys] = True
    noise = torch.rand(2_000, DRAWS, generator=torch.Generator().manual_seed(4))
    drawn = above(chords, head)(hidden.expand(2_000, -1), noise, 0)
    frames = torch.from_numpy(chords).float().repeat(K + 1, 1)
    frames[torch.arange(K), torch.arange(K)] = 1  # the last is the chord by itself
    frames = torch.cat([frames[max(keys, default=-1) + 1 : K], frames[K:]])
    expected = torch.softmax(-head.nll(hidden.expand(len(frames), -1), frames), dim=0)
    assert (drawn[:, keys] == 1).all()
    for frame, probability in zip(frames, expected.tolist(), strict=True):
        share = (drawn == frame).all(dim=1).float().mean().item()
        deviation = (probability * (1 - probability) / 2_000) ** 0.5
        assert abs(share - probability) < 5 * deviation + 1e-3


@settings(max_examples=25, deadline=None)
@given(st.lists(st.sets(st.integers(21, 108), max_size=4), min_size=1, max_size=6))
def test_chords_given_are_kept_and_get_at_most_one_note_above(chords: list[set[int]]) -> None:
    model = play_model(density=0.3)
    given_roll = roll_from(*chords)
    drawn = sample(model, len(chords), generators_of(2, 3), above(given_roll, model.head)).numpy()
    for tune in drawn:
        for notes, chord in zip(steps_of(tune), chords, strict=True):
            added = set(notes) - chord
            assert chord <= set(notes)
            assert len(added) <= 1
            assert min(added, default=108) >= max(chord, default=0)


@pytest.mark.parametrize("latent", LATENTS)
def test_the_likeliest_note_above_chords_is_the_same_for_all_tunes(latent: int) -> None:
    model = play_model(latent, density=0.3)
    given_roll = roll_from({48, 52}, {50}, set(), {55})
    drawn = sample(model, 4, generators_of(2, 3), above(given_roll, model.head, LIKELIEST))
    assert torch.equal(drawn[0], drawn[1])


# ---- what is expected ----------------------------------------------------------------------------


@torch.no_grad()
def test_what_is_expected_of_each_key_is_its_probability() -> None:
    model = play_model(latent=0, density=0.2)  # independent keys: the head knows each probability
    roll = torch.from_numpy(roll_from({60, 64}, set(), {21, 108}))
    likely = expected(model, roll, torch.Generator().manual_seed(1), draws=4_000)
    hidden, _ = model(torch.cat([torch.zeros(1, K), roll.float()])[None])
    assert isinstance(model.head, BernoulliHead)
    exact = torch.sigmoid(model.head.logits(hidden[0]))
    assert likely.shape == (4, K)
    # 352 keys, each by chance further off than five standard deviations once in a million times.
    assert ((likely - exact).abs() <= 5 * (exact * (1 - exact) / 4_000).sqrt() + 1e-3).all()
