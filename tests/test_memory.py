"""The memory: its read-out is that of a slow loop, it is bounded, and it learns to copy."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from data import RollDataset
from evaluation import evaluate
from helpers import draw_frames
from helpers_train import CPU, MEMORY, make_model, numpy_memory, rolls_of
from intervals import outer_notes
from memory import BLOCK, Memory
from model import PianoLSTM, first_rows
from settings import ModelSettings

H, K, VIEWS = 5, 6, 3


def make_memory(**sizes: Any) -> Memory:
    """Return a memory in float64 whose every weight is drawn from a normal distribution."""
    torch.manual_seed(1)
    memory = Memory(ModelSettings(hidden_size=H, **{**MEMORY, **sizes}), K).double()
    for weights in memory.parameters():
        torch.nn.init.normal_(weights)
    return memory


def draw_hidden(tunes: int, length: int) -> Tensor:
    generator = torch.Generator().manual_seed(7)
    return torch.randn(tunes, length, H, generator=generator, dtype=torch.float64)


def outer_of(frames: Tensor) -> Tensor:
    """Return the outer notes of whole tunes, (B, T, 2)."""
    return outer_notes(frames, torch.zeros(len(frames), 2, dtype=torch.int64))


def read_out(memory: Memory, hidden: Tensor, frames: Tensor, *cuts: int) -> Tensor:
    """Return what the memory finds, (B, T, H), the tunes read in pieces of these lengths."""
    pieces, past = [], None
    parts = [tensor.split([*cuts], 1) for tensor in (hidden, frames, outer_of(frames))]
    for heard, read, outer in zip(*parts, strict=True):
        found, past = memory(heard, read, outer, past)
        pieces.append(found)
    return torch.cat(pieces, dim=1)


# ---- what it finds -------------------------------------------------------------------------------


@torch.no_grad()
@pytest.mark.parametrize(("views", "heads"), [(1, 1), (1, 2), (2, 1), (3, 1), (3, 2)])
@pytest.mark.parametrize(
    ("span", "match"), [(1, 1), (1, 4), (3, 5), (7, 3), (18, 3), (19, 3), (20, 3), (50, 30)]
)
def test_read_out_is_that_of_a_float64_loop_in_numpy(
    span: int, match: int, views: int, heads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("memory.BLOCK", 6)  # so that there are older moments in so short a tune
    memory = make_memory(memory=span, match=match, views=views, heads=heads)
    hidden, frames = draw_hidden(2, 20), draw_frames(40, K).reshape(2, 20, K)
    frames[0, :2] = frames[1, 6:9] = 0  # silence, at the start and later
    weights = {f"memory.{name}": tensor.numpy() for name, tensor in memory.state_dict().items()}
    for pieces in ((20,), (1,) * 20, (7, 7, 6), (1, 19), (2, 18)):
        found = read_out(memory, hidden, frames, *pieces)
        assert found.shape == (2, 20, H)
        for tune in range(2):
            outputs, heard = list(hidden[tune].numpy()), list(frames[tune].numpy())
            for t in range(20):
                expected = numpy_memory(weights, outputs[: t + 1], heard[: t + 1])
                np.testing.assert_allclose(found[tune, t], expected, rtol=1e-10, atol=1e-12)


@torch.no_grad()
def test_what_followed_a_moment_is_found_by_hand() -> None:
    # Nothing is compared: the biases alone decide, and lag 2 is wanted by exp(1) to 1.
    memory = make_memory(memory=3, heads=1, match=1)
    for weights in memory.parameters():
        weights.zero_()
    memory.lag[:] = torch.tensor([0.0, 1.0, -torch.inf])
    frames = torch.eye(K, dtype=torch.float64)[None, :4]  # key t sounds at time t alone
    e = float(np.e)
    memory.output.weight[:, :K] = torch.eye(H, K)
    found, _ = memory(draw_hidden(1, 4), frames, outer_of(frames), None)
    assert found[0].tolist() == [
        pytest.approx([0, 0, 0, 0, 0]),  # nothing is past: the empty slot
        pytest.approx([0, 1 / 2, 0, 0, 0]),  # after lag 1 came the frame just read; or nothing
        pytest.approx([0, e / (e + 2), 1 / (e + 2), 0, 0]),
        pytest.approx([0, 0, e / (e + 2), 1 / (e + 2), 0]),
    ]
    for view in (1, 2):  # in terms of intervals a step up came every time, and it leads to t + 1
        memory.output.weight.zero_()
        memory.output.weight[:, view * K : (view + 1) * K] = torch.eye(H, K)
        found, _ = memory(draw_hidden(1, 4), frames, outer_of(frames), None)
        assert found[0].tolist() == [
            pytest.approx([0, 0, 0, 0, 0]),
            pytest.approx([0, 0, 1 / 2, 0, 0]),
            pytest.approx([0, 0, 0, (e + 1) / (e + 2), 0]),
            pytest.approx([0, 0, 0, 0, (e + 1) / (e + 2)]),
        ]


@torch.no_grad()
def test_a_figure_is_recognised_on_another_degree_by_its_intervals_alone() -> None:
    memory = make_memory(memory=20, match=3, heads=1, head_size=32)
    memory.key.weight.zero_()
    memory.query.weight.zero_()  # the frames alone are compared
    figure = torch.eye(K, dtype=torch.float64)[[0, 2, 1, 3]]
    frames = torch.cat([figure, figure.roll(2, dims=1)])[None]
    anchors = functional.pad(outer_of(frames), (1, 0))
    silence = functional.pad(frames, (0, 0, 2, 0))
    recent = memory.compare(silence, anchors)[0]
    by_key, *by_interval = recent.chunk(VIEWS, dim=1)  # (T, D) each
    for t in (2, 3):  # the moments whose last three frames are of the figure
        assert not torch.allclose(by_key[t], by_key[t + 4])
        for made in by_interval:
            assert torch.allclose(made[t], made[t + 4])


@torch.no_grad()
def test_without_past_the_memory_finds_nothing() -> None:
    frames = torch.ones(3, 1, K, dtype=torch.float64)
    found, _ = make_memory()(draw_hidden(3, 1), frames, outer_of(frames), None)
    assert not found.any()


@torch.no_grad()
def test_what_is_found_is_added_to_the_output_and_dropped_by_its_own_share_alone() -> None:
    model = make_model(dropout=0.5, **MEMORY).train()
    frames = draw_frames(24, 88).reshape(2, 12, 88).float()
    heard: list[Tensor] = []
    model.memory.register_forward_hook(  # type: ignore[union-attr]
        lambda _, inputs, outputs: heard.extend([inputs[0], outputs[0]])
    )
    torch.manual_seed(0)
    hidden, _ = model(frames)
    before, found = heard
    kept = hidden - found
    # Half of the output is dropped, and the rest doubled; the memory hears it whole.
    near = torch.isclose(kept, 2 * before, atol=1e-5) | torch.isclose(kept, kept * 0, atol=1e-5)
    assert near.all()
    assert 0.2 < torch.isclose(kept, kept * 0, atol=1e-5).float().mean() < 0.8
    assert (before != 0).all()
    evaluated, _ = model.eval()(frames)
    assert torch.allclose(evaluated, heard[2] + heard[3])


@torch.no_grad()
def test_view_dropout_drops_of_what_is_compared_and_of_what_is_found() -> None:
    memory = make_memory(view_dropout=0.75, memory=30, match=4, heads=3)
    frames = torch.ones(4, 50, K, dtype=torch.float64)  # in every view
    seen: list[Tensor] = []
    for layer in (*memory.recent, memory.output):
        layer.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0]))
    memory.train()(draw_hidden(4, 50), frames, outer_of(frames), None)
    *compared, found = seen
    for values in compared:
        values = values[:, 3:]  # silence is before
        assert ((values == 0) | (values == 4)).all()  # a quarter is kept, four times as large
        # 4,512 values: a share off by 0.04 is over 6 standard deviations.
        assert abs((values == 0).double().mean().item() - 0.75) < 0.04
    assert abs((found[:, 1:] == 0).double().mean().item() - 0.75) < 0.04
    seen.clear()
    memory.eval()(draw_hidden(4, 50), frames, outer_of(frames), None)
    *compared, found = seen
    assert all((values[:, 3:] == 1).all() for values in compared)
    assert (found[:, 1:] > 0).all()


def test_weights_of_a_query_sum_to_one_and_reach_no_further_than_the_memory() -> None:
    memory = make_memory(memory=4, heads=2)
    heads = VIEWS * 2
    for length, size in ((1, 1), (1, 9), (5, 5), (3, 8), (9, 9)):
        bias = memory.lag_bias(length, size)
        assert bias.shape == (heads, length, size)
        for row in range(length):
            newest = size - length + row  # the place of the query's own frame
            for place in range(size - 1):
                lag = newest - place
                expected = memory.lag[:, lag - 1] if 1 <= lag <= 4 else torch.tensor(-torch.inf)
                assert (bias[:, row, place] == expected).all()
            assert (bias[:, row, -1] == 0).all()


# ---- what it holds -------------------------------------------------------------------------------


@torch.no_grad()
@settings(max_examples=40)
@given(
    span=st.integers(1, 12),
    match=st.integers(1, 8),
    pieces=st.lists(st.integers(1, 15), min_size=1, max_size=6),
    block=st.integers(1, 20),
)
def test_cuts_change_nothing_however_short_the_memory(
    span: int, match: int, pieces: list[int], block: int
) -> None:
    memory, length = make_memory(memory=span, match=match), sum(pieces)
    hidden, frames = draw_hidden(2, length), draw_frames(2 * length, K).reshape(2, length, K)
    whole = read_out(memory, hidden, frames, length)
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr("memory.BLOCK", block)
        torch.testing.assert_close(read_out(memory, hidden, frames, *pieces), whole)


@torch.no_grad()
@pytest.mark.parametrize(("span", "match"), [(5, 3), (3, 6), (1, 1), (100, 3)])
@pytest.mark.parametrize("piece", [1, 17, 63, 64, 65, 300])
def test_the_past_is_bounded_and_is_the_newest(span: int, match: int, piece: int) -> None:
    memory = make_memory(memory=span, match=match)
    hidden, frames = draw_hidden(2, 300), draw_frames(600, K).reshape(2, 300, K)
    parts = [tensor.split(piece, 1) for tensor in (hidden, frames, outer_of(frames))]
    past, done = None, 0
    for heard, read, outer in zip(*parts, strict=True):
        _, past = memory(heard, read, outer, past)
        done += read.shape[1]
        old, new = past.old_keys.shape[2], past.keys.shape[2]
        assert min(done - 1, span) <= old + new < span + BLOCK
        assert new < BLOCK
        assert past.old_there.shape == (2, VIEWS, old, K)
        assert past.there.shape == (2, VIEWS, new, K)
        assert torch.equal(
            past.heard, functional.pad(frames, (0, 0, 50, 0))[:, done + 51 - match : done + 50]
        )
    followed = torch.cat([past.old_there, past.there], dim=2)[:, 0]  # as keys
    assert torch.equal(followed, frames[:, -followed.shape[1] :])


@torch.no_grad()
def test_a_model_without_memory_has_no_past() -> None:
    _, state = make_model()(torch.zeros(1, 3, 88))
    assert state.past is None
    assert make_model().memory is None


def test_no_gradient_crosses_from_one_chunk_to_the_past() -> None:
    model = make_model(**MEMORY)
    earlier, later = draw_frames(24, 88).reshape(2, 2, 6, 88).float()
    _, state = model(earlier.requires_grad_())
    assert state.past.newest.requires_grad
    hidden, _ = model(later, first_rows(state, 2))
    hidden.sum().backward()
    assert earlier.grad is None
    assert model.memory is not None
    assert all(weights.grad is not None for weights in model.memory.parameters())


def test_evaluation_in_chunks_goes_on_with_the_past(monkeypatch: pytest.MonkeyPatch) -> None:
    model, dataset = make_model(**MEMORY), RollDataset(rolls_of(30, 12, 25, density=0.2))
    whole = evaluate(model, dataset, CPU)
    for chunk in (1, 7):
        monkeypatch.setattr("evaluation.EVAL_CHUNK", chunk)
        assert vars(evaluate(model, dataset, CPU)) == pytest.approx(vars(whole), rel=1e-6)


# ---- what it is for ------------------------------------------------------------------------------


def draw_repeats(half: int, generator: torch.Generator) -> Tensor:
    """Return tunes of one note a frame whose second half is the first, (16, 1 + 2 * half, 8)."""
    notes = torch.randint(8, (16, half), generator=generator)
    tunes = functional.one_hot(notes.repeat(1, 2), 8).float()
    return functional.pad(tunes, (0, 0, 1, 0))  # silence first


def nll_of_repeat(model: PianoLSTM, tunes: Tensor) -> Tensor:
    """Return the NLL a frame of the second half but its first three, which nothing tells."""
    hidden, _ = model(tunes[:, :-1])
    start = tunes.shape[1] // 2 + 3
    return model.head.nll(hidden[:, start:].flatten(0, 1), tunes[:, start + 1 :].flatten(0, 1))


def learn_repeats(**sizes: Any) -> float:
    """Train a tiny model on repeats; return its NLL on others, of lengths it never met."""
    torch.manual_seed(0)
    model = PianoLSTM(ModelSettings(embed_size=8, hidden_size=24, latent_size=2, **sizes), 8)
    model.head.set_marginals(torch.full((8,), 1 / 8))
    generator = torch.Generator().manual_seed(2)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    for step in range(150):
        loss = nll_of_repeat(model, draw_repeats(8 + step % 7, generator)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        return float(nll_of_repeat(model, draw_repeats(15, generator)).mean())


def test_a_memory_learns_to_copy_what_an_lstm_of_its_size_can_not() -> None:
    # Lengths vary, so that a repeat is found by what it sounds like: no lag tells of it.
    chance = float(np.log(8))
    without, with_memory = learn_repeats(), learn_repeats(memory=32, match=3, heads=2, head_size=8)
    assert without > 0.95 * chance
    assert with_memory < 0.3 * chance


# ---- the layers above ---------------------------------------------------------------------------


@torch.no_grad()
def test_upper_layers_hear_the_key_and_what_is_left_and_are_dropped_too() -> None:
    sizes = {**MEMORY, "upper_layers": 1, "transpose": 0.5, "hidden_size": 50, "embed_size": 20}
    model = make_model(dropout=0.5, input_dropout=0.3, **sizes).train()
    assert model.upper is not None
    seen: list[Tensor] = []
    for part in (model.lstm, model.upper):
        part.register_forward_hook(lambda _, inputs, outputs: seen.extend([inputs[0], outputs[0]]))
    hidden, _ = model(draw_frames(100, 88).reshape(4, 25, 88).float(), shift=torch.arange(4))
    embedded, _, above, upper = seen
    # The very frame, key and all, that the layers below read: what is dropped is dropped for both.
    assert torch.equal(above[:, :, 50:], embedded)
    added = hidden - above[:, :, :50]
    dropped = torch.isclose(added, torch.zeros(()), atol=1e-6)
    assert (dropped | torch.isclose(added, 2 * upper, atol=1e-5)).all()
    # 5,000 outputs: a share off by 0.04 is 5.6 standard deviations.
    assert abs(dropped.float().mean().item() - 0.5) < 0.04
