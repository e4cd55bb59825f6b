"""Frames as intervals, and logits by interval: against reference.py, and worked out by hand."""

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import reference
from helpers import random_frames
from pianolstm.layers.relative_pitch import _REACH, RelativePitch, outer_pitches, to_relative

PITCHES = 6

# ---- outer pitches, relative frames --------------------------------------------------------------


def test_silence_repeats_the_outer_pitches_before_it() -> None:
    frames = torch.zeros(2, 5, PITCHES)
    frames[0, 1, [1, 3, 4]] = frames[0, 3, 2] = 1
    frames[1, 0, [0, 5]] = 1
    then = [[4, 1], [4, 1], [2, 2], [2, 2]]
    previous = torch.tensor([[5, 3], [2, 1]])
    assert outer_pitches(frames, previous).tolist() == [[[5, 3], *then], [[5, 0]] * 5]
    assert outer_pitches(frames, previous * 0).tolist() == [[[0, 0], *then], [[5, 0]] * 5]


@given(st.integers(0, 2**16), st.lists(st.integers(1, 6), min_size=1, max_size=5))
def test_outer_pitches_equal_the_reference_in_any_chunks(seed: int, lengths: list[int]) -> None:
    frames = random_frames(sum(lengths), PITCHES, density=0.15, seed=seed)[None]
    previous, parts = torch.zeros(1, 2, dtype=torch.int64), []
    for chunk in frames.split(lengths, 1):
        parts.append(outer_pitches(chunk, previous))
        previous = parts[-1][:, -1]
    expected = [reference.outer_pitches(frames[0, : t + 1].numpy()) for t in range(frames.shape[1])]
    assert torch.cat(parts, dim=1)[0].tolist() == [list(outer) for outer in expected]


@given(st.integers(0, 2**16), st.integers(-200, 200))
def test_the_anchor_becomes_column_0_and_the_negative_anchor_undoes_it(
    seed: int, anchor: int
) -> None:
    frames = random_frames(6, PITCHES, seed=seed).view(2, 3, PITCHES)
    anchors = torch.tensor([[anchor, 0, 1], [2, anchor + 5, -anchor]])
    relative = to_relative(frames, anchors)
    for row, expected, by in zip(
        relative.view(6, -1), frames.view(6, -1), anchors.flatten().tolist(), strict=True
    ):
        np.testing.assert_array_equal(row, reference.relative_to(by, expected.numpy()))
    assert torch.equal(to_relative(relative, -anchors), frames)


# ---- the layer -----------------------------------------------------------------------------------


def make_layer(**weights: Tensor) -> RelativePitch:
    """Return a layer with these weights, all others 0."""
    layer = RelativePitch(2 * PITCHES, 1, dropout=0.5, pitches=PITCHES)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.zero_()
        for name, values in weights.items():
            getattr(layer, name).weight.copy_(values)
    return layer.eval()


def frames_of(*frames: list[int]) -> Tensor:
    """Return frames given as columns, (1, T, P)."""
    cells = torch.zeros(1, len(frames), PITCHES)
    for t, columns in enumerate(frames):
        cells[0, t, columns] = 1
    return cells


@torch.no_grad()
def logits_of(*frames: list[int], **weights: Tensor) -> list[list[float]]:
    """Return the logits of each pitch after each of these frames, (T, P)."""
    cells = frames_of(*frames)
    outer = outer_pitches(cells, torch.zeros(1, 2, dtype=torch.int64))
    vectors = torch.ones(1, len(frames), 1)
    return make_layer(**weights).pitch_logits(vectors, cells, outer)[0].tolist()


@torch.no_grad()
def test_a_frame_is_embedded_as_intervals_from_both_outer_pitches_before_it() -> None:
    layer = make_layer(input_proj=torch.eye(2 * PITCHES))
    embedded = layer.embed(frames_of([1, 4], [2]), torch.tensor([[[3, 0], [4, 1]]]))[0]
    assert [row.nonzero()[:, 0].tolist() for row in embedded] == [
        [1, PITCHES - 2, PITCHES + 1, PITCHES + 4],  # from 3, 4 is one up and 1 is two down
        [PITCHES - 2, PITCHES + 1],
    ]


def test_outer_logits_are_indexed_by_interval_from_the_highest_and_the_lowest_note() -> None:
    weights = torch.zeros(2 * PITCHES, 1)
    weights[1], weights[PITCHES - 2] = 1, 2  # from the highest: one up, two down
    weights[PITCHES], weights[PITCHES + 3] = 10, 20  # from the lowest: itself, three up
    assert logits_of([0, 1, 3], [2, 4], outer_proj=weights) == [
        [10, 2, 0, 20, 1, 0],
        [0, 0, 12, 0, 0, 21],
    ]


def test_near_logits_are_summed_over_all_notes_of_the_frame() -> None:
    weights = torch.zeros(2 * _REACH + 1, 1)
    # From a pitch: the same note, the note one below, the note two above.
    weights[_REACH], weights[_REACH - 1], weights[_REACH + 2] = 1, 10, 100
    assert logits_of([0, 1, 3], [], [5], near_proj=weights) == [
        [1, 111, 10, 1, 10, 0],
        [0, 0, 0, 0, 0, 0],
        [0, 0, 0, 100, 0, 1],
    ]


@torch.no_grad()
def test_near_logits_reach_an_octave_and_no_further() -> None:
    torch.manual_seed(0)
    layer = RelativePitch(2, 3, dropout=0.0, pitches=40).double()
    vectors, frames = torch.randn(1, 9, 3).double(), random_frames(9, 40)[None]
    outer = outer_pitches(frames, torch.zeros(1, 2, dtype=torch.int64))
    logits = layer.pitch_logits(vectors, frames, outer)[0]
    weights = reference.weights_of(layer)
    for t in range(9):
        past = frames[0, : t + 1].numpy()
        expected = reference.pitch_logits(weights, vectors[0, t].numpy(), past)
        np.testing.assert_allclose(logits[t], expected, rtol=1e-10)


@torch.no_grad()
def test_dropout_acts_on_the_input_intervals_in_training_alone() -> None:
    layer = make_layer(input_proj=torch.eye(2 * PITCHES))
    frames, before = torch.ones(5, 100, PITCHES), torch.zeros(5, 100, 2, dtype=torch.int64)
    assert (layer.embed(frames, before) == 1).all()
    embedded = layer.train().embed(frames, before)
    assert ((embedded == 0) | (embedded == 2)).all()
    # 6,000 values: off by 0.04 is over 6 standard deviations.
    assert abs((embedded == 0).float().mean().item() - 0.5) < 0.04
