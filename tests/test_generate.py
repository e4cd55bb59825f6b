"""Sampling frame by frame, the plan behind the flags, and generate.py as its users call it."""

import os
import re
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import generate
from generate import (
    NOISE_FRAMES,
    plan_piece,
    sample,
    sample_rolls,
    sampling_params,
)
from helpers import call, names_in, roll_from, steps_of
from helpers_sampling import sampling_model, set_end_rate, train_small_run
from model import PianoLSTM
from pianolstm.conditioning import highest_notes, unconditional
from pianolstm.ending import EndCalibration, Ending
from pianolstm.files import InputError
from pianolstm.layers.heads import (
    GREEDY,
    MODEL_DISTRIBUTION,
    UNIFORMS_PER_FRAME,
    Sampler,
    SamplingParams,
)
from pianolstm.metrics.form import LoopBounds, longest_held_pitch
from pianolstm.midi import read_midi, roll_to_midi
from pianolstm.parts import whole_roll
from pianolstm.rolls import PITCHES
from pianolstm.runtime import make_generators
from settings import PlaySettings, SampleSettings

# Models whose samples must not depend on the batch they are sampled in.
KINDS: dict[str, dict[str, Any]] = {
    "Bernoulli": {"latent_size": 0},
    "chord": {"latent_size": 4},
    "attentive": {
        "latent_size": 4,
        "attention_window": 9,
        "query_frames": 3,
        "attention_heads": 2,
        "head_dim": 4,
        "upper_layers": 1,
        "relative_pitch": True,
        "copy_candidates": 2,
    },
}


def sampled(*arguments: Any, **options: Any) -> Tensor:
    """Return sampled rolls of one length, (B, T, 88) bool."""
    return torch.from_numpy(np.stack(sample_rolls(*arguments, **options)))


# ---- frame by frame ------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_seed_gives_the_same_pieces_and_another_seed_others(kind: str) -> None:
    model = sampling_model(**KINDS[kind])
    first = sampled(model, 30, make_generators(1, 3))
    torch.rand(5)
    assert torch.equal(sampled(model, 30, make_generators(1, 3)), first)
    # 90 frames of about 3 of 88 pitches: equal by chance less than once in 10^100 times.
    assert not torch.equal(sampled(model, 30, make_generators(2, 3)), first)
    assert not torch.equal(first[0], first[1])


@pytest.mark.parametrize("kind", KINDS)
def test_a_piece_is_the_same_alone_and_among_others(kind: str) -> None:
    model, frames, count = sampling_model(**KINDS[kind]), NOISE_FRAMES + 6, 9
    together = sampled(model, frames, make_generators(3, count))
    for i in (0, 4, count - 1):
        alone = sampled(model, frames, make_generators(3, count)[i : i + 1])
        assert torch.equal(alone[0], together[i])
    shorter = sampled(model, frames - 2, make_generators(3, 2))
    assert torch.equal(shorter, together[:2, :-2])


def test_sampling_changes_neither_the_model_nor_anything_else() -> None:
    model, primer = sampling_model(), torch.ones(3, PITCHES, dtype=torch.bool)
    weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    global_state, threads = torch.get_rng_state(), torch.get_num_threads()
    sampled(model, 10, make_generators(1, 2), primer=primer)
    assert torch.equal(torch.get_rng_state(), global_state)
    assert torch.get_num_threads() == threads
    assert primer.all()
    assert all(torch.equal(tensor, weights[name]) for name, tensor in model.state_dict().items())
    assert all(tensor.grad is None for tensor in model.parameters())


@pytest.mark.parametrize("pieces", [1, 3])
def test_samples_are_rolls_of_the_wanted_frames_without_the_primer(pieces: int) -> None:
    for primer in (None, torch.zeros(0, PITCHES), torch.ones(4, PITCHES)):
        rolls = sampled(sampling_model(), 5, make_generators(1, pieces), primer=primer)
        assert rolls.shape == (pieces, 5, PITCHES)
        assert rolls.dtype == torch.bool


@torch.no_grad()
@pytest.mark.parametrize("params", [MODEL_DISTRIBUTION, GREEDY, SamplingParams(0.7, 1.2, 0.9)])
@pytest.mark.parametrize("kind", KINDS)
def test_sampling_equals_reading_and_sampling_one_frame_after_another(
    kind: str, params: SamplingParams
) -> None:
    model, frames = sampling_model(density=0.3, **KINDS[kind]), NOISE_FRAMES + 3
    primer = torch.rand(5, PITCHES, generator=torch.Generator().manual_seed(5)) < 0.1
    sample_frame = unconditional(model.head, params)
    rolls = sampled(model, frames, make_generators(4, 2), sample_frame, primer=primer)
    generators, state, expected = make_generators(4, 2), None, []
    for given_frame in [torch.zeros(PITCHES), *primer.float()]:  # silence first
        vectors, state = model(given_frame.expand(2, 1, PITCHES), state)
    for t in range(frames):
        if t % NOISE_FRAMES == 0:
            size = NOISE_FRAMES, UNIFORMS_PER_FRAME
            uniforms = torch.stack([torch.rand(*size, generator=g) for g in generators])
        frame = model.head.sample(vectors[:, -1], uniforms[:, t % NOISE_FRAMES], params)
        vectors, state = model(frame[:, None], state)
        expected.append(frame > 0)
    assert torch.equal(rolls, torch.stack(expected, dim=1))
    assert rolls.any()


class LastFrame(nn.Module):
    """A model and head that read the last frame alone, and sample `follow` of it."""

    def __init__(self, follow: Any) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.head: Any = self
        self.follow = follow

    def forward(self, frames: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        return frames, state

    def sampler(self, params: SamplingParams) -> Sampler:
        return lambda vectors, uniforms: self.follow(vectors)


def test_a_piece_continues_the_primer() -> None:
    model: Any = LastFrame(lambda frames: frames.roll(1, dims=-1))  # a semitone higher

    def continued(primer: Tensor | None) -> list[list[int]]:
        return steps_of(sampled(model, 3, make_generators(1, 1), primer=primer)[0].numpy())

    assert continued(torch.from_numpy(roll_from({21}, {60, 64}))) == [[61, 65], [62, 66], [63, 67]]
    assert continued(None) == continued(torch.zeros(0, PITCHES)) == [[], [], []]


def test_candidates_continue_a_repeat_in_the_primer() -> None:
    model = sampling_model(copy_candidates=1)
    model.get_parameter("candidates.from_vector.bias").data.fill_(50)
    motif = [{60, 64}, {62}, set(), {67}, {62}]  # after {62}, what followed depends on the past
    primer = torch.from_numpy(roll_from(*motif, *motif[:2]))
    rolls = sampled(model, 13, make_generators(1, 2), primer=primer)
    expected = [sorted(frame) for frame in [*motif[2:], *motif, *motif]]
    assert [steps_of(roll.numpy()) for roll in rolls] == [expected, expected]


def test_the_whole_primer_has_an_effect_not_only_its_end() -> None:
    model = sampling_model(latent_size=0, density=0.3)
    primers = [roll_from(first, {62}, {64}) for first in ({60}, set(range(21, 109)))]
    # The random numbers are the same, so only the primers can make a difference.
    rolls = [
        sampled(model, 9, make_generators(1, 50), primer=torch.from_numpy(primer))
        for primer in primers
    ]
    assert not torch.equal(rolls[0], rolls[1])


def test_greedy_sampling_does_not_depend_on_the_seed() -> None:
    model = sampling_model(density=0.4)
    rolls = [
        sampled(model, 20, make_generators(seed, 2), unconditional(model.head, GREEDY))
        for seed in (1, 2)
    ]
    assert torch.equal(rolls[0], rolls[1])
    assert torch.equal(rolls[0][0], rolls[0][1])
    assert rolls[0].any()


@pytest.mark.parametrize("medley", [False, True])
def test_progress_is_reported_for_every_frame_once_while_sampling(medley: bool) -> None:
    reports: list[int] = []
    sample_rolls(
        ending_model(0.05), 40, make_generators(1, 3),
        ending=Ending(), medley=medley, on_frames=reports.append,
    )  # fmt: skip
    assert sum(reports) == 120
    assert len(reports) > 2


# ---- where a piece ends --------------------------------------------------------------------------


def ending_model(rate: float) -> Any:
    """Return a model that ends a piece after each frame with this probability."""
    model = sampling_model(0, density=0.05)
    set_end_rate(model, rate)
    return model


def test_pieces_end_as_often_as_the_model_predicts_and_a_greedy_one_when_it_is_likely() -> None:
    rolls = sample_rolls(ending_model(0.1), 500, make_generators(1, 400), ending=Ending())
    # Lengths are geometric: mean 10, standard deviation 9.5, so of 400 the mean is off by 0.5.
    assert 8 < np.mean([len(roll) for roll in rolls]) < 12
    for rate, frames in ((0.49, 30), (0.51, 1)):
        [roll] = sample_rolls(
            ending_model(rate), 30, make_generators(1, 1), ending=Ending(greedy=True)
        )
        assert len(roll) == frames


def test_an_ended_piece_is_the_same_alone_among_others_and_with_more_room() -> None:
    model, ending = ending_model(0.05), Ending(bounds=LoopBounds(3, 5))
    together = sample_rolls(model, 60, make_generators(3, 6), ending=ending)
    alone = sample_rolls(model, 60, make_generators(3, 6)[4:5], ending=ending)
    np.testing.assert_array_equal(alone[0], together[4])
    longer = sample_rolls(model, 90, make_generators(3, 6), ending=ending)
    for roll, more in zip(together, longer, strict=True):
        np.testing.assert_array_equal(more[: len(roll)], roll)


def test_a_medley_fills_its_length_with_different_pieces() -> None:
    model, ending = ending_model(0.1), Ending()
    [medley] = sample_rolls(model, 80, make_generators(3, 1), ending=ending, medley=True)
    [first] = sample_rolls(model, 80, make_generators(3, 1), ending=ending)
    assert len(medley) == 80 > len(first)
    np.testing.assert_array_equal(medley[: len(first)], first)
    assert len({frame.tobytes() for frame in medley}) > 50


@pytest.mark.parametrize("primer", [0, 5])
def test_ends_are_as_likely_as_the_calibration_says_after_so_many_frames(primer: int) -> None:
    model = ending_model(0.5)
    # The square is 0 after 8 frames of the piece, where the logit is 0 + 9, and large elsewhere.
    ending = Ending(calibration=EndCalibration(8, scale=0, bias=9, square=-5000))
    given = torch.zeros(primer, PITCHES) if primer else None
    rolls = sample_rolls(model, 50, make_generators(1, 20), primer=given, ending=ending)
    assert {len(roll) for roll in rolls} == {8 - primer}
    rolls = sample_rolls(model, 50, make_generators(1, 20), ending=Ending())
    assert max(len(roll) for roll in rolls) < 20  # 0.5 in each frame


@pytest.mark.parametrize(("period", "expected"), [(1, 5), (3, 7)])
def test_a_piece_that_can_not_leave_a_loop_ends_at_the_bound(period: int, expected: int) -> None:
    def follow(frames: Tensor) -> Tensor:
        return nn.functional.one_hot((frames.argmax(dim=1) + 1) % period, PITCHES).float()

    model: Any = LastFrame(follow)
    model.end_head = lambda vectors, frames: torch.full((len(frames),), -torch.inf)
    # One period, and as many frames that repeat it as the bound allows.
    ending = Ending(bounds=LoopBounds(4, 99))
    rolls = sample_rolls(model, 50, make_generators(1, 2), ending=ending)
    assert [len(roll) for roll in rolls] == [expected] * 2
    held = Ending(bounds=LoopBounds(99, 6))
    rolls = sample_rolls(model, 50, make_generators(1, 2), ending=held)
    assert [len(roll) for roll in rolls] == [6 if period == 1 else 50] * 2


def test_a_piece_caught_in_a_loop_is_given_up_and_another_sampled() -> None:
    model = ending_model(1e-9)
    # One pitch or silence, as likely, in each frame.
    for weights in model.head.parameters():
        nn.init.zeros_(weights)
    model.head.set_unigram(torch.full((PITCHES,), 1e-9).index_fill(0, torch.tensor([7]), 0.5))
    ending = Ending(bounds=LoopBounds(loop=99, hold=2))
    rolls = sample_rolls(model, 4, make_generators(1, 800), ending=ending)
    assert {len(roll) for roll in rolls} == {4}
    assert max(longest_held_pitch(roll) for roll in rolls) == 2
    # All 13 pieces within the bound are as likely as before: of 16, 3 hold the pitch for longer.
    counts = Counter(tuple(roll[:, 7].tolist()) for roll in rolls)
    assert len(counts) == 13 and 35 < min(counts.values()) <= max(counts.values()) < 95


def test_a_section_is_not_played_more_often_than_the_bound_of_its_period_allows() -> None:
    def follow(frames: Tensor) -> Tensor:
        return nn.functional.one_hot((frames.argmax(dim=1) + 1) % 40, PITCHES).float()

    model: Any = LastFrame(follow)
    model.end_head = lambda vectors, frames: torch.full((len(frames),), -torch.inf)
    for sections, frames in (((), 200), ((9, 60, 99), 100), ((9, 99, 30), 110)):
        ending = Ending(bounds=LoopBounds(9, 99, sections))
        [roll] = sample_rolls(model, 200, make_generators(1, 1), ending=ending)
        assert len(roll) == frames


# ---- what the settings mean ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wanted", "frame_beats", "frames"),
    [
        ({"seconds": 30.0}, 0.5, 120),
        ({"seconds": 30.0, "bpm": 60.0}, 0.5, 60),
        ({"seconds": 1.0, "bpm": 120.0}, 0.25, 8),
        ({"seconds": 2.0, "bpm": 90.0}, 1.0, 3),
        ({"seconds": 0.001, "bpm": 10.0}, 16.0, 1),
        ({"beats": 3.0}, 0.5, 6),
        ({"bars": 2.0}, 0.5, 16),
        ({"bars": 2.0, "metre": "6/8"}, 0.5, 12),
    ],
)
def test_the_length_in_seconds_beats_or_bars_is_that_many_frames(
    wanted: dict[str, float], frame_beats: float, frames: int
) -> None:
    model = sampling_model(frame_beats=frame_beats)
    assert plan_piece(model, SampleSettings(**wanted), PlaySettings()).frames == frames


def test_the_chord_temperature_is_the_temperature_up_to_1_unless_given() -> None:
    assert sampling_params(SampleSettings(temperature=0.7)) == SamplingParams(0.7, 0.7, 0.99)
    assert sampling_params(SampleSettings(temperature=1.3)) == SamplingParams(1.3, 1.0, 0.99)
    wanted = SampleSettings(chord_temperature=0, top_p=1.0)
    assert sampling_params(wanted) == SamplingParams(1.0, 0, 1.0)
    wanted = SampleSettings(temperature=1.3)
    assert sampling_params(wanted, chords_alone=True) == SamplingParams(1.3, 1.3, 0.99)


def plan(frame_beats: float = 0.5, **wanted: Any) -> Any:
    model = sampling_model(frame_beats=frame_beats)
    return plan_piece(model, SampleSettings(**wanted), PlaySettings())


@pytest.mark.parametrize(("frame_beats", "frames"), [(0.5, 2), (0.25, 4), (1.0, 1), (1 / 3, 3)])
def test_each_primer_note_lasts_a_beat_and_is_not_transposed(
    frame_beats: float, frames: int
) -> None:
    planned = plan(frame_beats, primer_notes="D4 A4")
    assert steps_of(planned.primer) == [[62]] * frames + [[69]] * frames
    assert planned.shift == 0


@pytest.mark.parametrize(("frame_beats", "beats", "frames"), [(0.5, 2, 4), (0.5, 99, 8), (1, 1, 1)])
def test_a_midi_primer_is_cut_to_primer_beats(
    tmp_path: Path, frame_beats: float, beats: float, frames: int
) -> None:
    path = tmp_path / "a.mid"
    roll_to_midi(roll_from(*[{60}, {62}] * 4), frame_beats).write(str(path))
    planned = plan(frame_beats, primer_midi=str(path), primer_beats=beats)
    assert len(planned.primer) == frames
    assert max(note.end for note in planned.piece.given) == frames * frame_beats


def test_without_flags_the_primer_is_empty() -> None:
    assert plan().primer.shape == (0, PITCHES)
    assert plan().shift == 0


def play(tmp_path: Path, latent_size: int = 4, **wanted: Any) -> list[np.ndarray]:
    """Return all that sounds in two pieces of `sample`; rolls are given to it as MIDI files."""
    for name, value in wanted.items():
        if isinstance(value, np.ndarray):
            roll_to_midi(value, 0.5).write(str(tmp_path / name))
            wanted[name] = str(tmp_path / name)
    model = sampling_model(latent_size, density=0.3)
    pieces = sample(model, 3, **{"num_samples": 2, "beats": 4.0, **wanted})
    return [whole_roll(piece) for piece in pieces]


def test_sample_returns_primer_and_new_frames_with_the_wanted_parameters() -> None:
    model = sampling_model()
    primer = roll_from({60, 64}, {60, 64}, {67}, {67})
    pieces = sample(
        model,
        seed=5,
        num_samples=2,
        beats=3,
        primer_notes="C4,E4 G4",
        temperature=0.8,
        chord_temperature=0.6,
        top_p=0.95,
        max_polyphony=3,
    )
    expected = sample_rolls(
        model,
        6,
        make_generators(5, 2),
        unconditional(model.head, SamplingParams(0.8, 0.6, 0.95)),
        primer=torch.from_numpy(primer),
    )
    assert len(pieces) == 2
    for piece, frames in zip(pieces, expected, strict=True):
        assert piece.roll.dtype == bool
        assert not piece.roll[:4].any()
        new = highest_notes(frames, 3)
        assert np.array_equal(whole_roll(piece), np.concatenate([primer, new]))


def test_sample_refuses_unknown_settings_and_values_out_of_range() -> None:
    for wanted in ({"memory": 3}, {"temperature": -1.0}):
        with pytest.raises(ValueError, match=next(iter(wanted))):
            sample(sampling_model(), **wanted)


def test_a_melody_over_given_chords_lasts_as_long_as_they_do(tmp_path: Path) -> None:
    model, chords = ending_model(0.9), str(tmp_path / "chords.mid")
    roll_to_midi(roll_from(*[{48, 52}] * 20), 0.5).write(chords)
    [free] = sample(model, 1, beats=20)
    [over] = sample(model, 1, melody_over=chords, normalize_key=False)
    assert len(free.roll) < len(over.roll) == 20


@pytest.mark.parametrize("flag", ["primer_midi", "continue_from"])
def test_the_given_beginning_is_kept_in_its_own_key_unless_left_out(
    tmp_path: Path, flag: str
) -> None:
    start = roll_from(*[{55, 59, 62}, {57, 60, 66}, {55, 59, 67}] * 4)  # in G
    for roll in play(tmp_path, **{flag: start}):
        assert len(roll) == 12 + 8
        assert np.array_equal(roll[:12], start)
    assert [len(roll) for roll in play(tmp_path, include_primer=False, **{flag: start})] == [8, 8]


def test_a_continued_sample_equals_one_that_never_stopped(tmp_path: Path) -> None:
    # Greedy, so that no random number differs.
    whole = play(tmp_path, temperature=0, beats=20.0)[0]
    assert len(np.unique(whole, axis=0)) > 1
    wanted = {"continue_from": whole[:20], "normalize_key": False}
    rest = play(tmp_path, temperature=0, beats=10.0, **wanted)[0]
    assert np.array_equal(rest, whole)


def test_harmonize_keeps_the_melody_on_top_in_its_own_key(tmp_path: Path) -> None:
    melody = roll_from(*[{67}, {71}, {74}, {72}, {69}, {66}, {67}, {67}] * 2)  # in G
    for roll in play(tmp_path, harmonize=melody):
        assert [pitches[-1:] for pitches in steps_of(roll)] == steps_of(melody)
        assert roll.sum() > 16


def test_a_temperature_above_1_makes_the_chords_under_a_melody_bolder(tmp_path: Path) -> None:
    melody = roll_from(*[{67}, {71}, {74}, {72}, {69}, {66}, {67}, {67}] * 2)
    usual, bolder = (play(tmp_path, harmonize=melody, temperature=t)[0] for t in (1.0, 5.0))
    assert not np.array_equal(usual, bolder)


def test_melody_over_keeps_the_chords_and_adds_at_most_one_note_above(tmp_path: Path) -> None:
    chords = roll_from(*[{43, 47, 50}, {45, 48, 50}, {43, 47, 55}] * 4)  # in G
    rolls = play(tmp_path, melody_over=chords)
    for roll in rolls:
        assert (roll & chords == chords).all()
        for added, chord in zip(steps_of(roll & ~chords), steps_of(chords), strict=True):
            assert len(added) <= 1
            assert not added or added[0] > chord[-1]
    assert not np.array_equal(rolls[0], chords)


def test_independent_outputs_can_not_harmonize(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"^--harmonize: .*--latent_size=0"):
        play(tmp_path, latent_size=0, harmonize=roll_from({60}))


@pytest.mark.parametrize(
    ("wanted", "flags"),
    [
        ({"primer_notes": "C4", "harmonize": "a.mid"}, "--primer_notes, --harmonize"),
        ({"primer_notes": "C4", "primer_midi": "a.mid"}, "--primer_notes, --primer_midi"),
        ({"continue_from": "a.mid", "melody_over": "b.mid"}, "--continue_from, --melody_over"),
    ],
)
def test_two_pieces_of_given_music_are_refused(wanted: dict[str, str], flags: str) -> None:
    with pytest.raises(InputError, match=rf"^{flags}: give only one of them"):
        sample(sampling_model(), **wanted)


# ---- the average over keys -----------------------------------------------------------------------


def keyed_model() -> PianoLSTM:
    """Return a model with transposition whose notes are far from the ends of the keyboard."""
    model = sampling_model(**KINDS["attentive"], transpose_prob=0.5)
    probabilities = torch.full((PITCHES,), 1e-6)
    probabilities[30:50] = 0.15
    model.head.set_unigram(probabilities)
    return model


def test_samples_averaged_over_keys_are_others_and_depend_on_their_seed_alone() -> None:
    model = keyed_model()
    plain = sample(model, 7, beats=8)
    alone = sample(model, 7, beats=8, average_keys=True)
    beside = sample(model, 7, beats=8, average_keys=True, num_samples=3)
    assert np.array_equal(alone[0].roll, beside[0].roll)
    assert not np.array_equal(alone[0].roll, plain[0].roll)
    assert not np.array_equal(beside[0].roll, beside[1].roll)


def test_the_average_over_keys_follows_a_primer_and_keeps_given_chords(tmp_path: Path) -> None:
    model = keyed_model()
    [first], [second] = (
        sample(model, 5, beats=8, average_keys=True, include_primer=False, primer_notes=notes)
        for notes in ("C4 E4 G4", "F#3 A3")
    )
    assert not np.array_equal(first.roll, second.roll)
    chords = roll_from({48, 52}, {48, 52}, {50}, {50})
    roll_to_midi(chords, 0.5).write(str(tmp_path / "chords.mid"))
    [piece] = sample(model, 5, average_keys=True, melody_over=str(tmp_path / "chords.mid"))
    added = piece.roll.sum(axis=1)
    assert len(added) == 4
    assert added.max() <= 1


@pytest.mark.parametrize("name", ["harmonize", "chords", "infill", "surprise"])
def test_the_average_over_keys_is_refused_where_it_would_not_be_exact(name: str) -> None:
    with pytest.raises(InputError, match=rf"^--average_keys, --{name}: give only one of them"):
        generate.model_of(keyed_model(), PlaySettings(average_keys=True, **{name: "C"}))


def test_a_model_without_transposition_can_not_be_averaged_over_keys(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(generate, run, "--average_keys") == 2
    error = capsys.readouterr().err
    assert "--average_keys: this model was not trained on transposed pieces" in error
    assert "--transpose_prob" in error
    assert error.count("\n") == 1


# ---- generate.py ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the path of a small run; its data set is beside it."""
    return train_small_run(tmp_path_factory.mktemp("trained"))


@pytest.fixture
def run(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the path of a copy of the run, in runs/ of the current folder."""
    monkeypatch.chdir(tmp_path)
    return shutil.copytree(trained, Path("runs/small"))


def test_the_newest_run_is_sampled_into_these_files(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(run, "runs/another")
    os.utime("runs/another/model.safetensors", (0, 0))
    assert call(generate, "--num_samples=2", "--seconds=3", "--seed=7", "--output_dir=out") == 0
    assert "sampling from runs/small/model.safetensors" in capsys.readouterr().out
    kinds = ("json", "mid", "musicxml", "png", "svg", "wav")
    expected = ["index.html", *[f"sample-7-{i}.{kind}" for i in (1, 2) for kind in kinds]]
    assert names_in(Path("out")) == expected
    roll, _ = read_midi("out/sample-7-1.mid", frame_beats=0.5)
    assert len(roll) == 12  # 3 seconds of eighth notes at 120 beats a minute


def test_without_a_run_the_pretrained_model_is_sampled(
    small_set: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--num_samples=1", "--beats=1", "--seed=1", "--formats=mid"]
    assert call(generate, *flags) == 0
    assert "nottingham.safetensors (trained on nottingham)" in capsys.readouterr().out


def test_the_files_hold_the_rolls_of_sample(run: Path) -> None:
    flags = ["--num_samples=2", "--beats=8", "--seed=7", "--primer_notes=C4", "--formats=mid"]
    assert call(generate, run, *flags, "--temperature=0.8") == 0
    model = PianoLSTM.load(run)
    wanted = {"num_samples": 2, "beats": 8.0, "primer_notes": "C4", "temperature": 0.8}
    for i, piece in enumerate(sample(model, 7, **wanted), start=1):
        roll = whole_roll(piece)
        read, _ = read_midi(f"samples/sample-7-{i}.mid", frame_beats=0.5)
        assert np.array_equal(read, roll[: len(read)])
        assert not roll[len(read) :].any()


def test_existing_samples_are_replaced_only_with_overwrite(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = [run, "--num_samples=1", "--seconds=1", "--seed=3", "--formats=mid"]
    assert call(generate, *flags) == 0
    path = Path("samples/sample-3-1.mid")
    path.write_bytes(b"mine")
    assert call(generate, *flags) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert path.read_bytes() == b"mine"
    assert call(generate, *flags, "--overwrite") == 0
    assert path.read_bytes() != b"mine"


def test_each_sample_is_summarised_with_its_copied_share_if_the_data_are_present(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = [run, "--num_samples=2", "--beats=40", "--medley", "--seed=3", "--formats=mid"]
    assert call(generate, *flags, "--output_dir=one") == 0
    printed = capsys.readouterr().out.splitlines()
    lines = [line for line in printed if line.startswith("one")]
    assert len(lines) == 2
    assert all(re.search(r"\d+ notes.*silence.*longest hold.*copied 0%", line) for line in lines)
    assert printed[-1] == "listen  one/index.html"
    (run / "settings.json").unlink()  # so that nothing says where the data are
    assert call(generate, *flags, "--output_dir=two") == 0
    assert "copied" not in capsys.readouterr().out


def test_evaluate_samples_compares_them_with_the_test_split(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = [run, "--evaluate_samples=3", "--seed=1", "--output_dir=out"]
    assert call(generate, *flags) == 0
    assert "3 samples compared with the test split of small-set" in capsys.readouterr().out
    assert names_in(Path("out")) == ["metrics.md", "metrics.png"]
    (run / "settings.json").unlink()
    assert call(generate, *flags) == 2


def test_a_seed_that_was_not_given_is_printed_and_repeats_the_samples(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = [run, "--num_samples=1", "--seconds=1", "--formats=mid"]
    assert call(generate, *flags, "--output_dir=one") == 0
    (seed,) = re.findall(r"seed (\d+)", capsys.readouterr().out)
    assert call(generate, *flags, f"--seed={seed}", "--output_dir=two") == 0
    one, two = (Path(folder, f"sample-{seed}-1.mid") for folder in ("one", "two"))
    assert one.read_bytes() == two.read_bytes()


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ("nowhere", "nowhere"),
        ("--temperature=-1", "--temperature"),
        ("--primer_notes=H9", "--primer_notes"),
        ("--primer_notes=C12", "--primer_notes"),
        ("--harmonize=nowhere.mid", "--harmonize"),
        ("--program=Kazoo", "--program"),
        ("--formats=mp3", "--formats"),
        ("--beats=4 --bars=1", "--bars, --beats"),
        ("--memory=3", "--memory"),
    ],
)
def test_a_wrong_call_gives_one_line_that_names_it_status_2_and_no_files(
    run: Path, words: str, named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(generate, *words.split(), "--output_dir=out", "--num_samples=1") == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert named in error
    assert not Path("out").exists()
