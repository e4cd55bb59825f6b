"""Attention over the past equals a slow loop, has a bounded cache, and is relative in pitch."""

import math
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from torch import Tensor

import reference
from helpers import random_frames
from pianolstm.layers import attention
from pianolstm.layers.attention import HistoryAttention
from pianolstm.layers.relative_pitch import outer_pitches

HIDDEN_SIZE, PITCHES = 5, 6


def make_attention(hidden_size: int = HIDDEN_SIZE, **sizes: Any) -> HistoryAttention:
    """Return a layer in float64 whose every weight is sampled from a normal distribution."""
    small = {"window": 9, "viewpoints": 3, "heads": 2, "head_dim": 4, "query_frames": 3}
    torch.manual_seed(1)
    layer = HistoryAttention(hidden_size, **{**small, "dropout": 0.0, **sizes}, pitches=PITCHES)
    for weights in layer.double().parameters():
        torch.nn.init.normal_(weights)
    return layer


def random_vectors(rows: int, length: int, size: int = HIDDEN_SIZE) -> Tensor:
    generator = torch.Generator().manual_seed(7)
    return torch.randn(rows, length, size, generator=generator, dtype=torch.float64)


def attend(layer: HistoryAttention, vectors: Tensor, frames: Tensor, *lengths: int) -> Tensor:
    """Return attention's output, (B, T, H), for pieces read in chunks of these lengths."""
    outer = outer_pitches(frames, torch.zeros(len(frames), 2, dtype=torch.int64))
    outputs, cache = [], None
    parts = (tensor.split(lengths or frames.shape[1], 1) for tensor in (vectors, frames, outer))
    for chunk in zip(*parts, strict=True):
        output, cache = layer(*chunk, cache)
        outputs.append(output)
    return torch.cat(outputs, dim=1)


# ---- what it returns -----------------------------------------------------------------------------


@torch.no_grad()
@given(
    viewpoints=st.integers(1, 3),
    heads=st.integers(1, 2),
    window=st.integers(1, 25),
    query_frames=st.integers(1, 8),
    lengths=st.lists(st.integers(1, 12), min_size=1, max_size=4),
    block=st.integers(1, 20),
)
@example(3, 2, 7, 3, [1] * 20, 6)
@example(3, 2, 18, 3, [7, 7, 6], 6)
@example(2, 1, 19, 3, [1, 19], 6)
@example(3, 1, 20, 3, [19, 1], 64)
@example(1, 1, 50, 30, [2, 18], 64)
@example(1, 2, 1, 1, [20], 1)
def test_attention_equals_the_reference_in_any_chunks(
    viewpoints: int, heads: int, window: int, query_frames: int, lengths: list[int], block: int
) -> None:
    layer = make_attention(
        viewpoints=viewpoints, heads=heads, window=window, query_frames=query_frames
    )
    length = sum(lengths)
    vectors, frames = random_vectors(2, length), random_frames(2 * length, PITCHES)
    frames = frames.reshape(2, length, PITCHES)
    frames[0, :2] = frames[1, 6:9] = 0  # silence, at the start and later
    with mock.patch.object(attention, "_BLOCK", block):
        outputs = attend(layer, vectors, frames, *lengths)
    weights = reference.weights_of(layer)
    for output, hidden, piece in zip(outputs, vectors.numpy(), frames.numpy(), strict=True):
        expected = [
            reference.attend(weights, hidden[: t + 1], piece[: t + 1]) for t in range(length)
        ]
        np.testing.assert_allclose(output, expected, rtol=1e-9, atol=1e-12)


@torch.no_grad()
def test_averages_by_lag_bias_alone_are_those_worked_out_by_hand() -> None:
    layer = make_attention(window=3, heads=1, query_frames=1)
    for weights in layer.parameters():
        weights.zero_()  # so that no query resembles any key
    layer.lag_bias[:] = torch.tensor([0.0, 1.0, -math.inf])  # of lags 1, 2 and 3
    frames = torch.eye(PITCHES, dtype=torch.float64)[None, :4]  # pitch t sounds in frame t alone
    e = math.e
    layer.out_proj.weight[:, :PITCHES] = torch.eye(HIDDEN_SIZE, PITCHES)
    assert attend(layer, random_vectors(1, 4), frames)[0].tolist() == [
        pytest.approx([0, 0, 0, 0, 0]),  # there is no past, so all goes to the empty position
        pytest.approx([0, 1 / 2, 0, 0, 0]),  # frame 1 followed lag 1; half to the empty position
        pytest.approx([0, e / (e + 2), 1 / (e + 2), 0, 0]),
        pytest.approx([0, 0, e / (e + 2), 1 / (e + 2), 0]),
    ]
    for view in (1, 2):  # as intervals, one step up followed each time, and leads to pitch t + 1
        layer.out_proj.weight.zero_()
        layer.out_proj.weight[:, view * PITCHES :][:, :PITCHES] = torch.eye(HIDDEN_SIZE, PITCHES)
        assert attend(layer, random_vectors(1, 4), frames)[0].tolist() == [
            pytest.approx([0, 0, 0, 0, 0]),
            pytest.approx([0, 0, 1 / 2, 0, 0]),
            pytest.approx([0, 0, 0, (e + 1) / (e + 2), 0]),
            pytest.approx([0, 0, 0, 0, (e + 1) / (e + 2)]),
        ]


@torch.no_grad()
def test_a_transposed_piece_is_attended_alike_from_its_outer_notes_and_not_by_pitch() -> None:
    size = 3 * PITCHES  # one head a viewpoint, whose averages the output gives as they are
    layer = make_attention(hidden_size=size, heads=1)
    layer.out_proj.weight.copy_(torch.eye(size))
    frames = torch.zeros(1, 12, PITCHES, dtype=torch.float64)
    frames[0, :, :4] = random_frames(12, 4)
    frames[0, 0, 0] = 1  # before the first note, anchors are 0 and not transposed
    vectors = random_vectors(1, 12, size)
    here = attend(layer, vectors, frames).view(12, 3, PITCHES)
    there = attend(layer, vectors, frames.roll(2, dims=2)).view(12, 3, PITCHES)
    torch.testing.assert_close(there[:, 1:], here[:, 1:].roll(2, dims=2))
    assert not torch.allclose(there[2:, 0], here[2:, 0].roll(2, dims=1))


# ---- dropout, cache ------------------------------------------------------------------------------


@torch.no_grad()
def test_dropout_acts_on_frame_inputs_and_output_in_training_alone() -> None:
    layer = make_attention(dropout=0.75, window=30, query_frames=4, heads=3)
    frames = torch.ones(4, 50, PITCHES, dtype=torch.float64)  # ones from every viewpoint too
    seen: list[Tensor] = []
    for linear in (*layer.frame_proj, layer.out_proj):
        linear.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0]))
    attend(layer.train(), random_vectors(4, 50), frames)
    *inputs, output = seen
    # 4,512 values each and more: off by 0.04 is over 6 standard deviations.
    for values in inputs:
        values = values[:, 3:]  # without those that have silence before the piece
        assert ((values == 0) | (values == 4)).all()
        assert abs((values == 0).double().mean().item() - 0.75) < 0.04
    assert abs((output[:, 1:] == 0).double().mean().item() - 0.75) < 0.04
    seen.clear()
    attend(layer.eval(), random_vectors(4, 50), frames)
    *inputs, output = seen
    assert all((values[:, 3:] == 1).all() for values in inputs)
    assert (output[:, 1:] > 0).all()


@torch.no_grad()
@pytest.mark.parametrize(("window", "query_frames"), [(5, 3), (1, 1), (100, 3)])
@pytest.mark.parametrize("chunk", [1, 65, 300])
def test_the_cache_has_the_window_and_at_most_a_block_more(
    window: int, query_frames: int, chunk: int
) -> None:
    layer = make_attention(window=window, query_frames=query_frames)
    vectors, frames = random_vectors(2, 300), random_frames(600, PITCHES).reshape(2, 300, PITCHES)
    outer = outer_pitches(frames, torch.zeros(2, 2, dtype=torch.int64))
    parts = [tensor.split(chunk, 1) for tensor in (vectors, frames, outer)]
    cache, done = None, 0
    for inputs in zip(*parts, strict=True):
        _, cache = layer(*inputs, cache)
        done += inputs[0].shape[1]
        for old, recent in zip(cache.old, cache.recent, strict=True):
            assert min(done - 1, window) <= old.shape[2] + recent.shape[2] < window + 64
    assert cache is not None
    following = torch.cat([cache.old.values, cache.recent.values], dim=2)[:, 0]  # by pitch
    assert torch.equal(following, frames[:, -following.shape[1] :])
