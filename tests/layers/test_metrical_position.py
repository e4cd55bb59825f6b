"""Metrical position: sines, cosines and the places where the bass changed, worked out by hand."""

import math

import torch
from torch import Tensor, nn

from pianolstm.layers.metrical_position import HISTOGRAMS, PHASES, WAVES, MetricalPosition

FEATURES = 2 * len(WAVES) + PHASES


def features(changes: Tensor) -> tuple[Tensor, Tensor]:
    """Return what is embedded for each frame, (B, T, N), and the counts of changes at the end."""
    layer = MetricalPosition(FEATURES)
    nn.init.eye_(layer.proj.weight)
    with torch.no_grad():
        values, state = layer(changes, layer.initial_state(changes.float()))
    assert state.frames.tolist() == [changes.shape[1]] * len(changes)
    return values, state.changes


def histogram(values: Tensor, period: int) -> Tensor:
    """Return the histogram of one period, (..., N) -> (..., period)."""
    parts = values[..., -PHASES:].split(HISTOGRAMS, dim=-1)
    return dict(zip(HISTOGRAMS, parts, strict=True))[period]


def test_a_bass_that_changes_every_twelve_frames_is_found_at_one_place_of_twelve() -> None:
    values, counts = features((torch.arange(40) % 12 == 3)[None])  # at 3, 15, 27 and 39
    # Frame 38 is next after 37, so the change at 39 is one place later.
    assert histogram(values[0, 37], 12).argmax() == 1
    assert histogram(values[0, 38], 12).argmax() == 0  # the next frame itself
    expected = torch.full((12,), math.log(0.5 / (3 / 12 + 0.5)))
    expected[0] = math.log((3 + 0.5) / (3 / 12 + 0.5))
    torch.testing.assert_close(histogram(values[0, 38], 12), expected)
    assert histogram(counts[0], 12).tolist() == [0, 0, 0, 4, *[0] * 8]
    # In a period of 16 the same four changes are at four places.
    assert sorted(histogram(counts[0], 16).tolist()) == [0] * 12 + [1] * 4


def test_waves_return_after_their_periods() -> None:
    values, _ = features(torch.zeros(1, 300, dtype=torch.bool))
    for column, period in enumerate(WAVES):
        sine, cosine = values[0, :, column], values[0, :, column + len(WAVES)]
        torch.testing.assert_close(sine[period:], sine[:-period], atol=1e-6, rtol=0)
        # The frame after frame t has number t + 1.
        torch.testing.assert_close(sine[0], torch.tensor(2 * math.pi / period).sin())
        assert cosine[: 2 * period].argmax() == period - 1


def test_before_any_change_the_histograms_are_0() -> None:
    values, counts = features(torch.zeros(2, 5, dtype=torch.bool))
    assert not values[..., -PHASES:].any() and not counts.any()


def test_a_new_layer_gives_0() -> None:
    layer = MetricalPosition(4)
    changes = torch.rand(1, 30) < 0.3
    embedded, _ = layer(changes, layer.initial_state(changes.float()))
    assert embedded.shape == (1, 30, 4) and not embedded.any()


def test_chunks_of_any_length_give_what_the_whole_piece_gives() -> None:
    layer = MetricalPosition(5)
    nn.init.normal_(layer.proj.weight)
    changes = torch.rand(3, 70, generator=torch.Generator().manual_seed(1)) < 0.2
    start = layer.initial_state(changes.float())
    whole, after = layer(changes, start)
    for size in (1, 7, 16, 33):
        parts, state = [], start
        for chunk in changes.split(size, dim=1):
            part, state = layer(chunk, state)
            parts.append(part)
        torch.testing.assert_close(torch.cat(parts, dim=1), whole)
        assert torch.equal(state.changes, after.changes)
        assert torch.equal(state.frames, after.frames)
