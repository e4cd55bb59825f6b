"""Intervals: outer notes, frames seen from them, and what the head is told by distance."""

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from intervals import REACH, Intervals, outer_notes, seen_from
from settings import ModelSettings

K = 6


def test_outer_notes_are_the_highest_and_the_lowest_and_silence_keeps_them() -> None:
    frames = torch.zeros(2, 5, K)
    frames[0, 1, [1, 3, 4]] = frames[0, 3, 2] = 1
    frames[1, 0, [0, 5]] = 1
    before = torch.tensor([[5, 3], [2, 1]])
    first = [[4, 1], [4, 1], [2, 2], [2, 2]]
    assert outer_notes(frames, before).tolist() == [[[5, 3], *first], [[5, 0]] * 5]
    assert outer_notes(frames, before * 0).tolist() == [[[0, 0], *first], [[5, 0]] * 5]


@given(st.integers(0, 2**16), st.lists(st.integers(1, 6), min_size=1, max_size=5))
def test_outer_notes_of_pieces_are_those_of_the_whole(seed: int, pieces: list[int]) -> None:
    generator = torch.Generator().manual_seed(seed)
    frames = (torch.rand(2, sum(pieces), K, generator=generator) < 0.15).float()
    last = torch.tensor([[3, 1], [0, 0]])
    whole, parts = outer_notes(frames, last), []
    for piece in frames.split(pieces, 1):
        parts.append(outer_notes(piece, last))
        last = parts[-1][:, -1]
    assert torch.equal(torch.cat(parts, dim=1), whole)


@given(st.integers(0, 2**16), st.integers(-200, 200))
def test_seen_from_a_key_it_comes_first_and_its_negative_undoes_it(seed: int, key: int) -> None:
    frames = torch.rand(2, 3, K, generator=torch.Generator().manual_seed(seed))
    anchors = torch.tensor([[key, 0, 1], [2, key + 5, -key]])
    moved = seen_from(anchors, frames)
    assert torch.equal(moved[0, 0], frames[0, 0].roll(-key))
    assert torch.equal(moved[0, 1], frames[0, 1])
    assert torch.equal(seen_from(-anchors, moved), frames)


def make_intervals(**weights: Tensor) -> Intervals:
    """Return the part with these weights, all others being 0."""
    intervals = Intervals(ModelSettings(embed_size=2 * K, hidden_size=1, view_dropout=0.5), K)
    with torch.no_grad():
        for values in intervals.parameters():
            values.zero_()
        for name, values in weights.items():
            getattr(intervals, name).weight.copy_(values)
    return intervals.eval()


@torch.no_grad()
def votes_of(notes: list[list[int]], **weights: Tensor) -> Tensor:
    """Return what is told of each key when these are the notes of now, (T, K)."""
    frames = torch.zeros(1, len(notes), K)
    for t, keys in enumerate(notes):
        frames[0, t, keys] = 1
    outer = outer_notes(frames, torch.zeros(1, 2, dtype=torch.int64))
    return make_intervals(**weights).votes(torch.ones(1, len(notes), 1), frames, outer)[0]


@torch.no_grad()
def test_a_frame_is_heard_from_both_outer_notes_of_the_one_before() -> None:
    frames = torch.zeros(1, 2, K)
    frames[0, 0, [1, 4]] = frames[0, 1, 2] = 1
    before = torch.tensor([[[3, 0], [4, 1]]])
    heard = make_intervals(heard=torch.eye(2 * K)).embed(frames, before)[0]
    assert [row.nonzero()[:, 0].tolist() for row in heard] == [
        [1, K - 2, K + 1, K + 4],  # 4 is a step up from 3, and 1 two down
        [K - 2, K + 1],
    ]


def test_steps_are_counted_from_either_outer_note_by_hand() -> None:
    weights = torch.zeros(2 * K, 1)
    weights[1], weights[K - 2] = 1, 2  # from the highest: a semitone up, two semitones down
    weights[K], weights[K + 3] = 10, 20  # from the lowest: itself, three semitones up
    assert votes_of([[0, 1, 3], [2, 4]], steps=weights).tolist() == [
        [10, 2, 0, 20, 1, 0],
        [0, 0, 12, 0, 0, 21],
    ]


def test_moves_are_counted_from_every_note_within_an_octave_by_hand() -> None:
    weights = torch.zeros(2 * REACH + 1, 1)
    weights[REACH], weights[REACH - 1], weights[REACH + 2] = 1, 10, 100  # stay, one up, two down
    assert votes_of([[0, 1, 3], [], [5]], moves=weights).tolist() == [
        [1, 111, 10, 1, 10, 0],
        [0, 0, 0, 0, 0, 0],
        [0, 0, 0, 100, 0, 1],
    ]
    assert REACH == 12


@given(st.integers(0, 2**16), st.integers(0, K - 3))
def test_moved_music_moves_the_steps_along(seed: int, by: int) -> None:
    weights = torch.randn(2 * K, 1, generator=torch.Generator().manual_seed(seed))
    here, there = votes_of([[0, 2], [by, 2 + by]], steps=weights)
    assert torch.equal(there, here.roll(by))


@torch.no_grad()
def test_dropout_drops_of_what_is_heard_and_only_in_training() -> None:
    intervals = make_intervals(heard=torch.eye(2 * K))
    frames, before = torch.ones(5, 100, K), torch.zeros(5, 100, 2, dtype=torch.int64)
    assert (intervals.embed(frames, before) == 1).all()
    heard = intervals.train().embed(frames, before)
    assert ((heard == 0) | (heard == 2)).all()
    # 6,000 values: a share off by 0.04 is over 6 standard deviations.
    assert abs((heard == 0).float().mean().item() - 0.5) < 0.04
