"""Infilling: what is sampled for a gap, the weights behind it, and the flags."""

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import chi2
from torch import Tensor, nn

import generate
from generate import sample
from helpers import call, roll_from, steps_of
from helpers_sampling import sampling_model
from pianolstm.conditioning import cut_out
from pianolstm.files import InputError
from pianolstm.infilling import infill, join_nll, log_likelihood, select_rows
from pianolstm.midi import roll_to_midi
from pianolstm.piece import Note, notes_to_roll
from pianolstm.rolls import PITCHES
from pianolstm.runtime import make_generators

ATTENTIVE: dict[str, Any] = {
    "attention_window": 9,
    "query_frames": 3,
    "attention_heads": 2,
    "head_dim": 4,
    "upper_layers": 1,
    "relative_pitch": True,
    "copy_candidates": 2,
}


def random_frames(count: int, seed: int = 1) -> Tensor:
    """Return random frames, (count, 88), whose second half repeats the first."""
    uniform = torch.rand(count // 2, PITCHES, generator=torch.Generator().manual_seed(seed))
    return (uniform < 0.03).float().repeat(2, 1)


# ---- the weights ---------------------------------------------------------------------------------


@torch.no_grad()
@pytest.mark.parametrize("sizes", [{}, ATTENTIVE], ids=["plain", "attentive"])
def test_the_likelihood_of_what_follows_is_that_of_the_whole_piece_less_the_beginning(
    sizes: dict[str, Any],
) -> None:
    model, piece = sampling_model(**sizes), random_frames(30)

    def nll(frames: Tensor) -> float:
        inputs = torch.cat([torch.zeros(1, PITCHES), frames])[None, :-1]
        return float(model.head.nll(model(inputs)[0][0], frames).sum())

    before, gap, after = piece[:12], piece[12:20], piece[20:]
    found = join_nll(model, before, gap, after)
    assert found == pytest.approx(nll(piece) - nll(piece[:20]), rel=1e-4)
    # A piece starts from silence.
    assert join_nll(model, before[:0], gap[:0], after) == pytest.approx(nll(after), rel=1e-4)


@torch.no_grad()
def test_rows_of_a_state_continue_as_their_pieces_do() -> None:
    model, rows = sampling_model(**ATTENTIVE), torch.tensor([2, 0, 0, 1])
    pieces = torch.stack([random_frames(70, seed) for seed in range(3)])
    vectors, state = model(pieces[:, :66])
    after = pieces[0, 66:]
    of_each = log_likelihood(model, vectors[:, -1], state, after)
    chosen = log_likelihood(model, vectors[rows, -1], select_rows(state, rows), after)
    torch.testing.assert_close(chosen, of_each[rows])


class TwoNotes(nn.Module):
    """A model of two pitches that reads the last frame alone."""

    def __init__(self) -> None:
        super().__init__()
        self.head: Any = self
        self.probability = nn.Parameter(torch.tensor([[0.5, 0.3], [0.9, 0.2]]))

    def forward(self, frames: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        """Return the probability of each pitch: it depends on whether column 40 sounded."""
        on = torch.zeros(*frames.shape[:2], PITCHES)
        on[:, :, 40:42] = self.probability[frames[:, :, 40].long()]
        return on, state

    def sampler(self, params: Any) -> Any:
        return lambda vectors, uniforms: (uniforms[:, :PITCHES] < vectors).float()

    def nll(self, vectors: Tensor, frames: Tensor) -> Tensor:
        return -(vectors * frames + (1 - vectors) * (1 - frames)).log().sum(dim=1)


@torch.no_grad()
def test_many_particles_sample_the_exact_posterior() -> None:
    model: Any = TwoNotes()
    before, after = torch.zeros(3, PITCHES), torch.zeros(2, PITCHES)
    before[-1, 40] = after[0, 40] = after[0, 41] = 1
    frames = [
        torch.eye(PITCHES)[40] * a + torch.eye(PITCHES)[41] * b for a in (0, 1) for b in (0, 1)
    ]
    exact = {}
    for pair in itertools.product(range(4), repeat=2):
        gap = torch.stack([frames[i] for i in pair])
        whole = torch.cat([before, gap, after])
        vectors, _ = model(whole[None, 2:-1])
        exact[pair] = float((-model.nll(vectors[0], whole[3:])).exp().prod())
    total, counts = sum(exact.values()), dict.fromkeys(exact, 0)
    count = 2000
    for gap in infill(model, before, 2, after, make_generators(1, count), 32):
        key = tuple(int(2 * frame[40] + frame[41]) for frame in gap)
        counts[key] += 1
    expected = {key: count * value / total for key, value in exact.items()}
    statistic = sum((counts[key] - expected[key]) ** 2 / expected[key] for key in exact)
    # With 32 particles the bias is far below the noise; false alarm once in 10,000 seeds.
    assert statistic < chi2.ppf(1 - 1e-4, len(exact) - 1)


def test_one_particle_is_a_plain_continuation_and_more_lead_better_into_what_follows() -> None:
    model, piece = sampling_model(density=0.02), random_frames(40)
    before, after = piece[:12], piece[20:]
    plain, best = (
        [
            join_nll(model, before, gap, after)
            for gap in infill(model, before, 8, after, make_generators(3, 12), particles)
        ]
        for particles in (1, 32)
    )
    assert np.mean(best) < np.mean(plain)


def test_a_filling_is_the_same_alone_and_among_others_and_for_the_same_seed() -> None:
    model, piece = sampling_model(**ATTENTIVE), random_frames(40)

    def fill(generators: list[torch.Generator]) -> Tensor:
        return infill(model, piece[:12], 8, piece[20:], generators, 5)

    together = fill(make_generators(4, 3))
    assert together.shape == (3, 8, PITCHES) and together.dtype == torch.bool
    assert torch.equal(fill(make_generators(4, 3)[1:2])[0], together[1])
    assert torch.equal(fill(make_generators(4, 3)), together)
    assert not torch.equal(together[0], together[1])


# ---- notes around a gap --------------------------------------------------------------------------


def test_notes_in_the_gap_go_and_those_that_reach_into_it_are_shortened() -> None:
    notes = [
        Note(0, 2, 60),
        Note(2, 5, 62),  # into the gap
        Note(4, 8, 64),  # within
        Note(3, 9, 65),  # through
        Note(7.5, 9, 67),  # out of it
        Note(8, 9, 69),
    ]
    kept, removed, shortened = cut_out(notes, 4, 8)
    assert kept == (
        Note(0, 2, 60),
        Note(2, 4, 62),
        Note(3, 4, 65),
        Note(8, 9, 65),
        Note(8, 9, 67),
        Note(8, 9, 69),
    )
    assert (removed, shortened) == (1, 3)


# ---- the flags -----------------------------------------------------------------------------------


def tune() -> np.ndarray:
    """Return eight bars of eighth notes above a chord for each bar."""
    chords = ({48, 52, 55}, {41, 45, 48}, {43, 47, 50}, {48, 52, 55})
    scale = (72, 74, 76, 77, 79, 81, 83, 84)
    return roll_from(*[chords[t // 8 % 4] | {scale[t % 8]} for t in range(64)])


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Return a MIDI file of eight bars of 4/4, in C."""
    path = tmp_path / "my.mid"
    roll_to_midi(tune(), 0.5).write(str(path))
    return path


def test_only_the_bars_of_the_gap_are_new(file: Path) -> None:
    pieces = sample(
        sampling_model(), 1, num_samples=2, infill=str(file), from_bar=3, to_bar=4, particles=4
    )
    for piece in pieces:
        assert len(piece.roll) == 32 and not piece.roll[:16].any() and piece.roll[16:].any()
        assert all(note.end <= 8 or note.start >= 16 for note in piece.given)
        whole = piece.roll | notes_to_roll(piece.given, 0.5, 32)[:32]
        assert np.array_equal(whole[:16], tune()[:16])
        assert piece.beats == 32
    assert not np.array_equal(pieces[0].roll, pieces[1].roll)


def test_the_first_bar_can_be_filled_and_a_single_bar_needs_no_last(file: Path) -> None:
    [piece] = sample(sampling_model(), 1, infill=str(file), from_bar=1, particles=4)
    assert len(piece.roll) == 8
    assert all(note.start >= 4 for note in piece.given)


def test_with_one_particle_the_filling_continues_what_precedes_it(file: Path) -> None:
    model = sampling_model()
    [piece] = sample(
        model,
        1,
        infill=str(file),
        from_bar=3,
        to_bar=4,
        particles=1,
        top_p=1.0,
        normalize_key=False,
    )
    before = tune()[:16]
    found = infill(
        model, torch.from_numpy(before).float(), 16, torch.zeros(32, PITCHES),
        make_generators(1, 1), 1,
    )  # fmt: skip
    assert steps_of(piece.roll[16:]) == steps_of(found[0].numpy())


@pytest.mark.parametrize(
    ("bars", "message"),
    [
        ({}, "which bars"),
        ({"to_bar": 3}, "which bars"),
        ({"from_bar": 4, "to_bar": 3}, "--from_bar 4, --to_bar 3: the last bar is before"),
        ({"from_bar": 7, "to_bar": 8}, "--to_bar 8: nothing follows it.*8 bars of 4/4.*continue"),
        ({"from_bar": 30}, "--from_bar 30: nothing follows it"),
    ],
)
def test_wrong_bars_are_named(file: Path, bars: dict[str, int], message: str) -> None:
    with pytest.raises(InputError, match=message):
        sample(sampling_model(), 1, infill=str(file), **bars)


def test_what_is_replaced_is_said_in_one_line(
    file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(file.parent)
    flags = ["--from_bar=2", "--to_bar=2", "--particles=2", "--num_samples=1", "--formats=mid"]
    assert call(generate, "--infill=my.mid", *flags) == 0
    errors = capsys.readouterr().err
    assert "--infill my.mid: 10 notes of bars 2 to 2 (beats 4 to 8 of 4/4)" in errors
