"""Playing a model: what is sampled, what a primer is, and the files made of it.

The command line of generate.py is tested elsewhere.
"""

import math
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pretty_midi
import pytest
import scipy.io.wavfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from files import InputError
from generate import count_frames, parse_chords, primer_roll, sample, sample_rolls, write_samples
from helpers import RATE, K, roll_from
from midi import midi_to_roll
from model import PianoLSTM
from settings import ModelSettings, SampleSettings

LATENTS = [0, 4]  # the Bernoulli head, the chord head


def make_model(latent: int = 4, density: float = 0.04) -> PianoLSTM:
    """Return a small model that plays about `density` of the keys and minds what it heard."""
    torch.manual_seed(0)
    model = PianoLSTM(
        ModelSettings(embed_size=6, hidden_size=8, latent_size=latent, layers=2, dropout=0.5)
    )
    for weights in model.parameters():
        weights.data *= 3
    model.head.set_marginals(torch.full((K,), density))
    return model.eval()


def seeded(seed: int = 1) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def notes_of(roll: np.ndarray) -> list[list[int]]:
    """Return the MIDI numbers of each frame."""
    return [(np.flatnonzero(frame) + 21).tolist() for frame in roll]


# ---- sampling ------------------------------------------------------------------------------------


@pytest.mark.parametrize("latent", LATENTS)
def test_same_seed_samples_the_same_tunes(latent: int) -> None:
    model = make_model(latent)
    first = sample(model, 30, seeded(1), num_samples=3)
    torch.rand(5)
    assert torch.equal(sample(model, 30, seeded(1), num_samples=3), first)
    # 90 frames of about 3 notes drawn from 88: by chance the same less than once in 10^100 times.
    assert not torch.equal(sample(model, 30, seeded(2), num_samples=3), first)
    assert not torch.equal(first[0], first[1])


def test_sampling_is_pure() -> None:
    model = make_model()
    weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    chance, primer = torch.get_rng_state(), torch.ones(3, K, dtype=torch.bool)
    sample(model, 10, seeded(), num_samples=2, primer=primer)
    assert torch.equal(torch.get_rng_state(), chance)
    assert primer.all()
    assert all(torch.equal(tensor, weights[n]) for n, tensor in model.state_dict().items())
    assert all(tensor.grad is None for tensor in model.parameters())


@pytest.mark.parametrize(("tunes", "frames"), [(1, 1), (1, 7), (3, 5)])
def test_sample_is_a_bool_roll_for_each_tune(tunes: int, frames: int) -> None:
    for primer in (None, torch.zeros(0, K), torch.ones(4, K)):
        drawn = sample(make_model(), frames, seeded(), num_samples=tunes, primer=primer)
        assert drawn.shape == (tunes, frames, K)
        assert drawn.dtype == torch.bool
        assert drawn.device.type == "cpu"


@torch.no_grad()
@pytest.mark.parametrize("temperature", [1.0, 0.7, 0])
@pytest.mark.parametrize("latent", LATENTS)
def test_sampling_is_stepping_by_hand_through_primer_and_tune(
    latent: int, temperature: float
) -> None:
    model, generator = make_model(latent, density=0.3), seeded(4)
    primer = torch.rand(5, K, generator=seeded(5)) < 0.1
    drawn = sample(model, 12, seeded(4), num_samples=2, temperature=temperature, primer=primer)
    state, expected = None, []
    for frame in [torch.zeros(K), *primer.float()]:  # silence first, one frame after another
        hidden, state = model(frame.expand(2, 1, K), state)
    for _ in range(12):
        frame = model.head.sample(hidden[:, -1], generator, temperature)
        hidden, state = model(frame[:, None], state)
        expected.append(frame > 0)
    assert torch.equal(drawn, torch.stack(expected, dim=1))
    assert drawn.any()


class Upwards:
    """A model that plays what it heard last, one key higher."""

    head: "Upwards"

    def __init__(self) -> None:
        self.head = self

    def __call__(self, frames: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        return frames, state

    def sample(self, hidden: Tensor, generator: torch.Generator, temperature: float) -> Tensor:
        assert temperature == 0.5
        return hidden.roll(1, dims=-1)


def upwards(frames: int, primer: Tensor | None) -> list[list[int]]:
    drawn = sample(
        Upwards(),  # type: ignore[arg-type]
        frames,
        seeded(),
        temperature=0.5,
        primer=primer,
    )
    return notes_of(drawn[0].numpy())


def test_tune_goes_on_from_the_primer_which_is_not_in_it() -> None:
    primer = torch.from_numpy(roll_from({21}, {60, 64}))
    assert upwards(3, primer) == [[61, 65], [62, 66], [63, 67]]
    assert upwards(3, None) == [[], [], []]
    assert upwards(2, torch.zeros(0, K, dtype=torch.bool)) == [[], []]


def test_whole_primer_is_heard_not_only_its_end() -> None:
    model = make_model(latent=0, density=0.3)
    one = torch.from_numpy(roll_from({60}, {62}, {64}))
    other = torch.from_numpy(roll_from(set(range(21, 109)), {62}, {64}))
    drawn = [sample(model, 40, seeded(), primer=primer) for primer in (one, other, None)]
    assert not torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])


def test_temperature_zero_leaves_nothing_to_chance() -> None:
    model = make_model(density=0.4)
    drawn = sample(model, 20, seeded(1), num_samples=2, temperature=0)
    assert torch.equal(drawn, sample(model, 20, seeded(2), num_samples=2, temperature=0))
    assert torch.equal(drawn[0], drawn[1])
    assert drawn.any()


def test_progress_is_told_frame_by_frame() -> None:
    calls: list[int] = []
    sample(make_model(), 9, seeded(), num_samples=3, on_frame=lambda: calls.append(1))
    assert len(calls) == 9


# ---- primers -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "notes"),
    [
        ("C4", [[60]]),
        ("A0 C8", [[21], [108]]),
        ("60", [[60]]),
        ("C4,E4,G4", [[60, 64, 67]]),
        ("C4,E4,G4 67", [[60, 64, 67], [67]]),
        ("  F#3   Bb5 ", [[54], [82]]),
        ("f#3 bb5 Db4,C#4", [[54], [82], [61]]),
        ("Cb4 B#3", [[59], [60]]),
        ("21 108 21,108", [[21], [108], [21, 108]]),
        ("60,60", [[60]]),
        ("60, 64 ,67  72", [[60, 64, 67], [72]]),
        ("", []),
    ],
)
def test_chords_are_read(text: str, notes: list[list[int]]) -> None:
    roll = parse_chords(text, 1)
    assert roll.dtype == bool
    assert roll.shape == (len(notes), K)
    assert notes_of(roll) == notes


def test_chord_lasts_its_frames() -> None:
    assert notes_of(parse_chords("C4 D4,F4", 3)) == [[60]] * 3 + [[62, 65]] * 3


@pytest.mark.parametrize(
    "word",
    ["H4", "C", "4C", "-1", "+60", "60.5", "C##4", "C4;E4", "C4-E4", "²", "x", "nan", "C 4"],
)
def test_word_that_is_no_note_is_named(word: str) -> None:
    with pytest.raises(InputError, match=r"^--primer_notes: [^\n]*$") as refused:
        parse_chords(f"C4,E4 {word}", 2)
    assert repr(word.split()[0]) in str(refused.value)


@pytest.mark.parametrize(
    "word", ["20", "109", "0", "4", "128", "G#0", "C#8", "C-1", "G9", "9" * 30]
)
def test_note_off_the_piano_is_named(word: str) -> None:
    with pytest.raises(InputError, match=r"^--primer_notes: [^\n]*88 keys[^\n]*$") as refused:
        parse_chords(word, 2)
    assert repr(word) in str(refused.value)


@settings(deadline=None, derandomize=True, max_examples=50)
@given(st.lists(st.sets(st.integers(21, 108), min_size=1, max_size=5), max_size=5))
def test_names_and_numbers_say_the_same(chords: list[set[int]]) -> None:
    names = ["C", "C#", "D", "Eb", "E", "F", "F#", "G", "Ab", "A", "Bb", "B"]

    def name(note: int) -> str:
        return f"{names[note % 12]}{note // 12 - 1}"

    by_name = " ".join(",".join(map(name, chord)) for chord in chords)
    by_number = " ".join(",".join(map(str, chord)) for chord in chords)
    assert notes_of(parse_chords(by_name, 1)) == [sorted(chord) for chord in chords]
    assert notes_of(parse_chords(by_number, 1)) == [sorted(chord) for chord in chords]


@pytest.mark.parametrize(
    ("frame_beats", "frames"), [(0.5, 2), (0.25, 4), (1.0, 1), (4.0, 1), (1 / 3, 3)]
)
def test_primer_chord_lasts_one_beat(frame_beats: float, frames: int) -> None:
    primer = primer_roll(SampleSettings(primer_notes="C4 D4"), frame_beats)
    assert notes_of(primer) == [[60]] * frames + [[62]] * frames


def test_without_primer_notes_the_primer_is_empty() -> None:
    assert primer_roll(SampleSettings(), 0.5).shape == (0, K)


# ---- samples as files ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seconds", "bpm", "frame_beats", "frames"),
    [
        (30.0, 120.0, 0.5, 120),
        (30.0, 60.0, 0.5, 60),
        (1.0, 120.0, 0.25, 8),
        (2.0, 90.0, 1.0, 3),
        (0.001, 10.0, 16.0, 1),
    ],
)
def test_frames_of_a_sample(seconds: float, bpm: float, frame_beats: float, frames: int) -> None:
    assert count_frames(SampleSettings(seconds=seconds, bpm=bpm), frame_beats) == frames


def test_sampled_rolls_are_primer_and_tune() -> None:
    model = make_model()
    wanted = SampleSettings(
        num_samples=2, seconds=2.0, bpm=90.0, primer_notes="C4,E4 G4", temperature=0.8
    )
    calls: list[int] = []
    rolls = sample_rolls(model, wanted, 5, 0.5, lambda: calls.append(1))
    primer = roll_from({60, 64}, {60, 64}, {67}, {67})
    drawn = sample(
        model, 6, seeded(5), num_samples=2, temperature=0.8, primer=torch.from_numpy(primer)
    )
    assert len(rolls) == 2
    for roll, tune in zip(rolls, drawn.numpy(), strict=True):
        assert roll.dtype == bool
        assert np.array_equal(roll, np.concatenate([primer, tune]))
    assert len(calls) == 6


def test_bad_primer_is_refused_before_anything_is_sampled() -> None:
    calls: list[int] = []
    with pytest.raises(InputError, match="--primer_notes"):
        sample_rolls(
            make_model(), SampleSettings(primer_notes="C4 X"), 5, 0.5, lambda: calls.append(1)
        )
    assert calls == []


def written(folder: Path, rolls: list[np.ndarray], frame_beats: float = 0.5, **wanted: Any) -> Any:
    return write_samples(rolls, folder, SampleSettings(**wanted), 7, frame_beats, "tiny")


@pytest.mark.parametrize("frame_beats", [0.5, 0.25, 1 / 3])
@pytest.mark.parametrize("bpm", [120.0, 97.3])
def test_midi_written_is_the_roll_sampled(tmp_path: Path, bpm: float, frame_beats: float) -> None:
    wanted = SampleSettings(num_samples=2, seconds=1.5, bpm=bpm, primer_notes="C4,E4 67")
    rolls = sample_rolls(make_model(), wanted, 7, frame_beats)
    rolls.append(np.zeros((3, K), dtype=bool))
    paths = written(tmp_path / "new", rolls, frame_beats, bpm=bpm)
    for path, roll in zip(paths, rolls, strict=True):
        read, left_out = midi_to_roll(path, frame_beats)
        assert np.array_equal(read, roll)
        assert left_out == (0, 0)


def test_three_files_are_written_for_each_tune(tmp_path: Path) -> None:
    rolls = [roll_from({60}, {62}, set()), roll_from(set(), set(), set(), set())]
    paths = written(tmp_path, rolls)
    assert paths == [tmp_path / "sample-7-1.mid", tmp_path / "sample-7-2.mid"]
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        f"sample-7-{i}.{kind}" for i in (1, 2) for kind in ("mid", "png", "wav")
    ]
    for path, roll in zip(paths, rolls, strict=True):
        rate, sound = scipy.io.wavfile.read(path.with_suffix(".wav"))
        assert rate == RATE
        assert sound.dtype == np.int16
        assert len(sound) == len(roll) * RATE // 4  # half a beat at 120 a minute
        assert sound.any() == roll.any()
        picture = path.with_suffix(".png").read_bytes()
        assert picture.startswith(b"\x89PNG\r\n\x1a\n")
        width, height = struct.unpack(">II", picture[16:24])
        assert 800 <= width <= 2400
        assert 300 <= height <= 1200


def test_settings_of_the_sound_reach_the_midi(tmp_path: Path) -> None:
    (path,) = written(tmp_path, [roll_from({60}, {60})], bpm=90.0, velocity=33, program=19)
    midi = pretty_midi.PrettyMIDI(str(path))
    (instrument,) = midi.instruments
    assert instrument.program == 19
    assert [note.velocity for note in instrument.notes] == [33]
    assert midi.get_tempo_changes()[1].tolist() == pytest.approx([90], rel=1e-5)
    assert math.isclose(instrument.notes[0].end, 60 / 90, rel_tol=1e-3)


def test_writing_again_gives_the_same_midi_and_sound(tmp_path: Path) -> None:
    rolls = [roll_from({60}, {62})]
    for folder in ("one", "two"):
        written(tmp_path / folder, rolls)
    for kind in ("mid", "wav"):
        one, two = ((tmp_path / f / f"sample-7-1.{kind}").read_bytes() for f in ("one", "two"))
        assert one == two
