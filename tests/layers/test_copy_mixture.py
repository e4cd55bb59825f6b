"""Candidates are the frames that followed the longest matches; the mixture with them is exact.

test_heads.py has what the mixture shares with the other heads, and reference.py the formulas.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from helpers import random_frames
from helpers_train import make_model
from pianolstm.layers import copy_mixture
from pianolstm.layers.copy_mixture import Candidates, CopyHead
from pianolstm.layers.heads import GREEDY, UNIFORMS_PER_FRAME, ChordHead, SamplingParams
from pianolstm.layers.key_average import KeyAverage

HIDDEN_SIZE, PITCHES = 5, 4
EVERY_FRAME = torch.tensor(list(product([0.0, 1.0], repeat=PITCHES))).double()  # (16, P)
LONGEST = 32  # frames, of the lengths that are told apart

Frame = tuple[float, ...]


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).double()


def make_layer(count: int = 2, pitches: int = PITCHES) -> Candidates:
    """Return a layer in float64 in which the vector and all lengths matter."""
    layer = Candidates(HIDDEN_SIZE, count, pitches).double()
    for seed, weights in enumerate(layer.parameters()):
        weights.data = normal(*weights.shape, seed=seed)
    return layer


def read(layer: Candidates, frames: Tensor, lengths: Sequence[int] = ()) -> tuple[Tensor, Tensor]:
    """Return the candidates, (B, T, K, P), and the log-weights of frames read in such chunks."""
    vectors, cache, parts = normal(*frames.shape[:2], HIDDEN_SIZE, seed=9), None, []
    sizes = list(lengths) or [frames.shape[1]]
    for chunk, vector in zip(frames.split(sizes, 1), vectors.split(sizes, 1), strict=True):
        columns, cache = layer(vector, chunk, cache)
        parts.append(columns)
    proposed, log_weights = torch.cat(parts, dim=1).split(
        [layer.count * layer.pitches, layer.count + 1], dim=2
    )
    return proposed.unflatten(2, (layer.count, -1)), log_weights


def piece_of(motifs: Sequence[int], seed: int = 2) -> Tensor:
    """Return a piece, (1, T, P), of motifs by number: three of five frames each, and silence."""
    frames = random_frames(15, PITCHES, 0.5, seed)
    motif = [*frames.split(5), torch.zeros(1, PITCHES).double()]
    return torch.cat([motif[number] for number in motifs])[None]


# ---- the candidates ------------------------------------------------------------------------------


def continuations(past: Sequence[Frame], window: int) -> Iterator[tuple[int, Frame]]:
    """Yield what followed the latest frames before, for the longest match first, with its length.

    Of matches as long, the latest comes first.
    """
    now = len(past) - 1
    for length in range(min(LONGEST, now), 0, -1):
        latest = past[now + 1 - length :]
        for end in range(now - 1, max(now - window, length - 1) - 1, -1):
            if past[end + 1 - length : end + 1] == latest:
                yield length, past[end + 1]


def search(past: Sequence[Frame], count: int, window: int) -> list[tuple[int, Frame]]:
    """Return length and frame of each candidate, without those that do not exist."""
    found: dict[Frame, int] = {}
    for length, frame in continuations(past, window):
        found.setdefault(frame, length)
    return [(length, frame) for frame, length in found.items()][:count]


def assert_equals_search(
    layer: Candidates, frames: Tensor, window: int = copy_mixture.WINDOW
) -> int:
    """Assert that the layer finds what the search does; return the length of the longest match."""
    proposed, log_weights = read(layer, frames)
    vectors, longest = normal(*frames.shape[:2], HIDDEN_SIZE, seed=9), 0
    by_length = layer.from_lengths.weight.view(layer.count, layer.count, LONGEST + 1)
    for piece, roll in enumerate(frames.tolist()):
        rows = [tuple(frame) for frame in roll]
        for t in range(len(rows)):
            expected = search(rows[: t + 1], layer.count, window)
            exist = len(expected)
            lengths = [length for length, _ in expected] + [0] * (layer.count - exist)
            longest = max(longest, *lengths)
            wanted = [frame for _, frame in expected]
            assert [tuple(frame) for frame in proposed[piece, t, :exist].tolist()] == wanted
            assert not proposed[piece, t, exist:].any()
            logits = layer.from_vector(vectors[piece, t])
            for k, length in enumerate(lengths):
                logits = logits + by_length[:, k, length]
            logits = torch.cat([torch.zeros(1).double(), logits[:exist]])
            torch.testing.assert_close(log_weights[piece, t, : exist + 1], logits.log_softmax(0))
            assert log_weights[piece, t, exist + 1 :].isneginf().all()
    return longest


@torch.no_grad()
@given(
    st.integers(1, 4), st.lists(st.integers(0, 3), min_size=1, max_size=9), st.integers(0, 2**16)
)
def test_candidates_are_those_of_a_search_by_hand(count: int, motifs: list[int], seed: int) -> None:
    pieces = torch.cat([piece_of(motifs, seed), piece_of(motifs[::-1], seed)])
    assert_equals_search(make_layer(count), pieces)


@torch.no_grad()
@given(st.lists(st.booleans(), min_size=1, max_size=60))
def test_candidates_of_two_frames_alone_are_those_of_a_search_by_hand(notes: list[bool]) -> None:
    frames = torch.zeros(1, len(notes), PITCHES).double()  # many matches overlap and tie
    frames[0, :, 1] = torch.tensor(notes).double()
    assert_equals_search(make_layer(3), frames)


@torch.no_grad()
def test_the_longest_match_comes_first_then_one_that_went_on_otherwise() -> None:
    notes = "abcd xbce ybcd zabc"
    roll = torch.eye(10).double()[["abcdexyz ".index(note) for note in notes]]
    [proposed], [log_weights] = read(make_layer(3, 10), roll[None])
    # abc was followed by d; bc by d again, which is no other frame, and by e.
    assert ["abcdexyz "[int(frame.argmax())] for frame in proposed[-1, :2]] == ["d", "e"]
    assert not proposed[-1, 2].any() and log_weights[-1, 3] == -torch.inf


@torch.no_grad()
def test_of_matches_as_long_the_latest_is_taken() -> None:
    roll = torch.eye(4).double()[[0, 1, 0, 2, 0, 3, 0]]
    [proposed], _ = read(make_layer(2, 4), roll[None])
    assert proposed[-1].argmax(dim=1).tolist() == [3, 2]


@torch.no_grad()
def test_matches_longer_than_32_frames_count_as_32() -> None:
    motif = random_frames(36, PITCHES, 0.5)
    end = torch.stack([EVERY_FRAME[1], EVERY_FRAME[2]])
    # First 36 frames and `end[0]`, then the last 34 of them and `end[1]`, then all 36 again.
    frames = torch.cat([motif, end[:1], motif[2:], end[1:], motif])[None]
    layer = make_layer()
    assert assert_equals_search(layer, frames) == LONGEST
    [proposed], _ = read(layer, frames)
    assert torch.equal(proposed[-1], end.flip(0)), "both are as long, so the later one is first"


@torch.no_grad()
@pytest.mark.parametrize("window", [1, 5, 7])
def test_matches_are_looked_for_in_the_latest_frames_alone(
    window: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(copy_mixture, "WINDOW", window)
    frames = torch.cat([piece_of([0, 0, 3, 0, 1, 3, 3, 1]), piece_of([3, 2, 3, 2, 0, 1, 1, 3])])
    layer = make_layer()
    assert assert_equals_search(layer, frames, window) >= (5 if window > 4 else 1)
    for lengths in ([1] * 28, [6, 15, 7]):
        for found, whole in zip(read(layer, frames, lengths), read(layer, frames), strict=True):
            torch.testing.assert_close(found, whole)


@torch.no_grad()
def test_nothing_is_proposed_at_the_start_and_without_a_match() -> None:
    frames = EVERY_FRAME[None, 1:13]  # no frame twice
    proposed, log_weights = read(make_layer(), frames)
    assert not proposed.any()
    assert (log_weights[..., 0] == 0).all()
    assert log_weights[..., 1:].isneginf().all()
    silence = read(make_layer(), torch.zeros(1, 2, PITCHES).double())[1]
    assert silence[0, 0].tolist() == [0, -torch.inf, -torch.inf]
    assert silence[0, 1, 1].isfinite(), "silence after silence is a match"


@torch.no_grad()
@given(
    st.lists(st.integers(0, 3), min_size=1, max_size=6),
    st.lists(st.integers(1, 7), min_size=30, max_size=30),
)
def test_chunks_of_any_lengths_give_the_same(motifs: list[int], lengths: list[int]) -> None:
    pieces = torch.cat([piece_of(motifs), piece_of(motifs[::-1])])
    whole, sizes = read(make_layer(), pieces), []
    while sum(sizes) < pieces.shape[1]:
        sizes.append(min(lengths[len(sizes)], pieces.shape[1] - sum(sizes)))
    for chunks in (sizes, [1] * pieces.shape[1]):
        for found, expected in zip(read(make_layer(), pieces, chunks), whole, strict=True):
            torch.testing.assert_close(found, expected)


@torch.no_grad()
def test_pieces_of_unequal_length_go_on_in_the_first_rows_as_each_does_alone() -> None:
    pieces = [piece_of(motifs)[0] for motifs in ([0, 1, 0, 1, 0], [1, 1, 1], [2, 3, 2])]
    layer = make_layer()
    padded = torch.nn.utils.rnn.pad_sequence(pieces, batch_first=True)
    vectors, cache = normal(3, 25, HIDDEN_SIZE), None
    for start, end, rows in [(0, 4, 3), (4, 11, 3), (11, 15, 2), (15, 25, 1)]:
        cache = cache and cache.first_rows(rows)
        columns, cache = layer(vectors[:rows, start:end], padded[:rows, start:end], cache)
        for row in range(rows):
            known = pieces[row][:end]
            alone, _ = layer(vectors[row : row + 1, : len(known)], known[None], None)
            length = max(len(known) - start, 0)
            torch.testing.assert_close(columns[row, :length], alone[0, start:])


@torch.no_grad()
@pytest.mark.parametrize("t", [0, 7, 15, 19])
def test_a_frame_changes_no_candidates_of_itself_or_of_earlier_frames(t: int) -> None:
    frames = piece_of([0, 1, 0, 1])
    changed = frames.clone()
    changed[0, t] = 1 - changed[0, t]
    before, after = (read(make_layer(), piece) for piece in (frames, changed))
    assert torch.equal(before[0][:, :t], after[0][:, :t])
    assert torch.equal(before[1][:, :t], after[1][:, :t])
    assert not torch.equal(before[1][:, t:], after[1][:, t:])


@torch.no_grad()
@pytest.mark.parametrize("semitones", [1, 3])
def test_transposed_frames_have_transposed_candidates_of_the_same_weights(semitones: int) -> None:
    frames = piece_of([0, 1, 0, 0, 1, 2])
    proposed, log_weights = read(make_layer(), frames)
    moved, same = read(make_layer(), frames.roll(semitones, dims=2))
    assert torch.equal(moved, proposed.roll(semitones, dims=3))
    assert torch.equal(same, log_weights)


@torch.no_grad()
@pytest.mark.parametrize("pitches", [61, 62, 63, 88, 124, 125])
def test_frames_of_any_number_of_pitches_are_told_apart_and_given_back(pitches: int) -> None:
    generator = torch.Generator().manual_seed(1)
    frames = random_frames(6, pitches, 0.5)
    twins = frames.clone()  # each differs in one pitch
    twins[torch.arange(6), torch.randperm(pitches, generator=generator)[:6]] += 1
    twins[0, -1] += 1
    twins = twins % 2
    [proposed], [log_weights] = read(make_layer(1, pitches), torch.cat([frames, twins])[None])
    assert log_weights[:, 1].isneginf().all()
    [proposed], _ = read(make_layer(1, pitches), torch.cat([frames, twins, frames])[None])
    assert torch.equal(proposed[12:, 0], torch.cat([frames[1:], twins[:1]]))


def test_the_weights_learn_from_the_nll_and_the_candidates_have_no_gradient() -> None:
    layer, head, frames = make_layer(), make_head(), piece_of([0, 1, 0, 1, 0])
    vectors = normal(1, 25, HIDDEN_SIZE).requires_grad_()
    columns, _ = layer(vectors, frames, None)
    head.nll(torch.cat([vectors, columns], 2)[0, :-1], frames[0, 1:]).sum().backward()
    for weights in (*layer.parameters(), *head.parameters(), vectors):
        assert weights.grad is not None
        assert weights.grad.isfinite().all() and weights.grad.any()
    assert layer.from_vector.bias.grad is not None
    assert layer.from_vector.bias.grad[0] < 0, "true candidates get more weight"


def test_a_new_layer_gives_a_candidate_a_twentieth_whatever_the_match() -> None:
    _, log_weights = read(Candidates(HIDDEN_SIZE, 1, PITCHES).double(), piece_of([0, 0, 3, 0, 3]))
    weights = log_weights[..., 1].exp()
    assert sorted(set(weights.flatten().tolist())) == pytest.approx([0, 1 / (1 + np.exp(3))])


# ---- the mixture ---------------------------------------------------------------------------------


def make_head(voice_leading: bool = False) -> CopyHead:
    """Return a mixture of a chord head whose every weight matters and two candidates."""
    inner = ChordHead(HIDDEN_SIZE, 3, PITCHES, 0.5 if voice_leading else None)
    for seed, weights in enumerate(inner.parameters()):
        weights.data = normal(*weights.shape, seed=seed) * 0.7
    return CopyHead(inner, 2, PITCHES).double().eval()


def make_vector(head: CopyHead, copies: Sequence[Frame], weights: Sequence[float]) -> Tensor:
    """Return a vector, (1, ...), with these candidates and weights of theirs."""
    pitches = PITCHES if head.head.voice_leading is not None else 0
    own = torch.cat([normal(1, HIDDEN_SIZE, seed=5)[0], EVERY_FRAME[6, :pitches]])
    padded = [*weights, *[0.0] * (head.count - len(weights))]
    rows = torch.zeros(head.count, PITCHES).double()
    for row, copy in enumerate(copies):
        rows[row] = torch.tensor(copy)
    logs = torch.tensor([1 - sum(weights), *padded]).double().log()
    return torch.cat([own, rows.flatten(), logs])[None]


# Two candidates that begin alike, silence and a frame of all notes, one alone, none.
CASES: dict[str, tuple[list[Frame], list[float]]] = {
    "begin alike": ([(0, 1, 0, 1), (1, 0, 0, 1)], [0.5, 0.2]),
    "silence and all": ([(0, 0, 0, 0), (1, 1, 1, 1)], [0.3, 0.4]),
    "one alone": ([(0, 1, 1, 0)], [0.6]),
    "none": ([], []),
}
cases = pytest.mark.parametrize("case", CASES.values(), ids=CASES)
voices = pytest.mark.parametrize("voice_leading", [False, True], ids=["chord", "voice leading"])


def probabilities(head: Any, vector: Tensor) -> Tensor:
    """Return the probability of every frame, (16,)."""
    return torch.exp(-head.nll(vector.expand(len(EVERY_FRAME), -1), EVERY_FRAME))


def by_hand(head: CopyHead, vector: Tensor, temperature: float = 1.0) -> Tensor:
    """Return the probability of every frame when the first choices have this temperature, (16,)."""
    own, copies, logs = vector[0].split([vector.shape[1] - 2 * PITCHES - 3, 2 * PITCHES, 3])
    inner = probabilities(head.head, own[None])
    highest = highest_of(EVERY_FRAME)
    first = torch.zeros(PITCHES + 1).double().index_add(0, highest, inner)
    tempered = first ** (1 / temperature)
    inner = inner / first[highest] * (tempered / tempered.sum())[highest]
    weights = logs.exp() ** (1 / min(temperature, 1))
    weights = weights / weights.sum()
    mixture = weights[0] * inner
    for weight, copy in zip(weights[1:], copies.view(2, PITCHES), strict=True):
        mixture = mixture + weight * (copy == EVERY_FRAME).all(dim=1)
    return mixture


def highest_of(frames: Tensor) -> Tensor:
    """Return the class of the highest note of each frame, 0 = none."""
    return torch.tensor(
        [max((p + 1 for p in range(PITCHES) if row[p]), default=0) for row in frames]
    )


@torch.no_grad()
def test_after_any_past_the_probabilities_of_all_frames_sum_to_one() -> None:
    model = make_model(
        pitches=PITCHES, copy_candidates=2, voice_leading=True, relative_pitch=True
    ).double()
    vectors, _ = model.eval()(piece_of([3, 0, 1, 0, 1, 3, 3, 0, 0]))
    for vector in vectors[0]:
        assert float(probabilities(model.head, vector[None]).sum()) == pytest.approx(1, abs=1e-9)


@torch.no_grad()
@cases
@voices
def test_the_probability_of_a_frame_is_that_of_the_mixture(case: Any, voice_leading: bool) -> None:
    head = make_head(voice_leading)
    vector = make_vector(head, *case)
    torch.testing.assert_close(probabilities(head, vector), by_hand(head, vector))
    assert float(by_hand(head, vector).sum()) == pytest.approx(1)


@torch.no_grad()
@cases
@voices
def test_the_nll_of_a_note_is_that_of_its_probability_given_the_notes_above(
    case: Any, voice_leading: bool
) -> None:
    head = make_head(voice_leading)
    vector = make_vector(head, *case)
    found = head.note_nll(vector.expand(len(EVERY_FRAME), -1), EVERY_FRAME)
    p = probabilities(head, vector)
    for row, frame in enumerate(EVERY_FRAME):
        expected, given_above = torch.zeros(PITCHES + 1).double(), p.sum()
        for column in range(PITCHES, -1, -1):  # a choice says of all pitches above it what they are
            if column == 0 or frame[column - 1]:
                start = max(column - 1, 0)
                alike = (EVERY_FRAME[:, start:] == frame[start:]).all(dim=1)
                expected[column] = torch.log(given_above / p[alike].sum())
                given_above = p[alike].sum()
        torch.testing.assert_close(found[row], expected)
    torch.testing.assert_close(found.sum(dim=1), -p.log())


@torch.no_grad()
@cases
@voices
def test_the_first_logits_are_those_of_the_highest_note(case: Any, voice_leading: bool) -> None:
    head = make_head(voice_leading)
    vector = make_vector(head, *case)
    p = probabilities(head, vector)
    expected = torch.zeros(PITCHES + 1).double().index_add(0, highest_of(EVERY_FRAME), p)
    torch.testing.assert_close(head.first_logits(vector)[0].exp(), expected)


def assert_frequencies(
    sampler: Callable[..., Tensor], vector: Tensor, p: Tensor, **rest: Any
) -> None:
    """Assert that frames are sampled as often as these probabilities say, (16,)."""
    count = 20_000
    uniforms = torch.rand(count, UNIFORMS_PER_FRAME, generator=torch.Generator().manual_seed(3))
    frames = sampler(vector.expand(count, -1), uniforms.double(), **rest)
    shares = (frames[:, None] == EVERY_FRAME).all(dim=2).double().mean(dim=0)
    assert (shares[p == 0] == 0).all()
    # About 500 numbers in all: a false alarm for one seed in a thousand.
    assert ((shares - p).abs() <= 4.8 * (p * (1 - p) / count).sqrt() + 1e-12).all()


@torch.no_grad()
@cases
@pytest.mark.parametrize("temperature", [1.0, 0.5, 1.7])
@pytest.mark.parametrize("classes", [None, [4], [0, 1, 2], [3], [0, 1, 2, 3, 4]], ids=str)
def test_frames_are_sampled_as_often_as_they_are_probable_given_an_allowed_highest_note(
    case: Any, temperature: float, classes: list[int] | None
) -> None:
    head = make_head()
    vector = make_vector(head, *case)
    p, allowed = by_hand(head, vector, temperature), None
    if classes is not None:
        p = p * torch.isin(highest_of(EVERY_FRAME), torch.tensor(classes))
        allowed = torch.isin(torch.arange(PITCHES + 1), torch.tensor(classes)).expand(20_000, -1)
    sampler = head.sampler(SamplingParams(temperature=temperature))
    assert_frequencies(sampler, vector, p / p.sum(), allowed=allowed)


@torch.no_grad()
@cases
@pytest.mark.parametrize("classes", [[0, 1, 2, 3, 4], [4], [0, 1, 2]], ids=str)
def test_greedy_takes_the_most_probable_of_the_heads_frame_and_the_candidates(
    case: Any, classes: list[int]
) -> None:
    head = make_head()
    taken = set()
    for factor in (0.001, 0.3, 1.0):
        copies, weights = case
        vector = make_vector(head, copies, [factor * weight for weight in weights])
        allowed = torch.isin(torch.arange(PITCHES + 1), torch.tensor(classes))[None]
        uniforms = torch.full((1, UNIFORMS_PER_FRAME), 0.999).double()
        fresh = head.head.sample(vector[:, :HIDDEN_SIZE], uniforms, GREEDY, allowed)
        proposed = [torch.tensor(copy).double() for copy in copies]
        frames = torch.stack([fresh[0], *proposed])
        frames = frames[torch.isin(highest_of(frames), torch.tensor(classes))]
        nll = head.nll(vector.expand(len(frames), -1), frames)
        found = head.sample(vector, uniforms, GREEDY, allowed)
        assert torch.equal(found[0], frames[nll.argmin()])
        taken.add(tuple(found[0].tolist()))
    assert len(taken) == 2 or len(frames.unique(dim=0)) == 1, "the test needs both"


@torch.no_grad()
def test_without_a_match_greedy_is_that_of_the_head_though_silence_is_more_probable() -> None:
    head = make_head()
    for weights in head.head.parameters():
        weights.zero_()
    # Silence has 0.4, the highest pitch 0.6; then each of eight frames has an eighth of that.
    head.head.base.bias.copy_(torch.tensor([0.4, 1e-9, 1e-9, 1e-9, 0.6]).log())
    head.head.below.bias.copy_(torch.tensor([0.0, 19.2, 20.0, 20.4]))
    vector = make_vector(head, [], [])
    uniforms = torch.full((1, UNIFORMS_PER_FRAME), 0.5).double()
    silence = torch.zeros(1, PITCHES).double()
    found = head.sample(vector, uniforms, GREEDY)
    assert float(head.nll(vector, silence)) < float(head.nll(vector, found))
    assert torch.equal(found, head.head.sample(vector[:, :HIDDEN_SIZE], uniforms, GREEDY))
    assert found.any()


# ---- in the model --------------------------------------------------------------------------------


@torch.no_grad()
def test_independent_outputs_have_no_candidates() -> None:
    with_candidates = make_model(latent_size=0, copy_candidates=2)
    assert not any("candidates" in name for name in with_candidates.state_dict())


@torch.no_grad()
def test_all_keys_of_an_average_propose_the_same_music_with_the_same_lengths() -> None:
    model = make_model(pitches=PITCHES, copy_candidates=2, transpose_prob=0.5).double().eval()
    model.get_parameter("candidates.from_vector.weight").zero_()  # so that lengths alone matter
    vectors, _ = KeyAverage(model, 0.9, shifts=(-1, 0, 1))(piece_of([3, 0, 1, 0, 1]))
    of_keys = vectors[0, :, :-3].unflatten(1, (3, -1))  # (T, keys, ...)
    copies, log_weights = of_keys[..., -2 * PITCHES - 3 :].split([2 * PITCHES, 3], dim=2)
    copies = copies.unflatten(2, (2, PITCHES))
    assert copies.any()
    for key, semitones in enumerate((-1, 0, 1)):
        assert torch.equal(copies[:, key], copies[:, 1].roll(semitones, dims=2))
        assert torch.equal(log_weights[:, key], log_weights[:, 1])
