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

from files import InputError
from generate import (
    choices_of,
    count_frames,
    parse_chords,
    primer_roll,
    sample_rolls,
    write_samples,
)
from helpers import RATE, K, roll_from
from helpers_train import play_model
from midi import midi_to_roll
from model import Choices
from sampling import freely, generators_of, sample
from settings import SampleSettings


def notes_of(roll: np.ndarray) -> list[list[int]]:
    """Return the MIDI numbers of each frame."""
    return [(np.flatnonzero(frame) + 21).tolist() for frame in roll]


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
    model = play_model()
    wanted = SampleSettings(
        num_samples=2,
        seconds=2.0,
        bpm=90.0,
        primer_notes="C4,E4 G4",
        temperature=0.8,
        chord_temperature=0.6,
        top_p=0.95,
        max_notes=3,
    )
    calls: list[int] = []
    rolls = sample_rolls(model, wanted, 5, 0.5, lambda: calls.append(1))
    primer = roll_from({60, 64}, {60, 64}, {67}, {67})
    drawn = sample(
        model,
        6,
        generators_of(5, 2),
        freely(model.head, Choices(0.8, 0.6, top_p=0.95, max_notes=3)),
        primer=torch.from_numpy(primer),
    )
    assert len(rolls) == 2
    for roll, tune in zip(rolls, drawn.numpy(), strict=True):
        assert roll.dtype == bool
        assert np.array_equal(roll, np.concatenate([primer, tune]))
    assert len(calls) == 6


def test_notes_below_the_highest_have_its_temperature_unless_they_are_given_one() -> None:
    assert choices_of(SampleSettings(temperature=0.7)) == Choices(0.7, 0.7)
    assert choices_of(SampleSettings(chord_temperature=0)) == Choices(1.0, 0)


def test_bad_primer_is_refused_before_anything_is_sampled() -> None:
    calls: list[int] = []
    with pytest.raises(InputError, match="--primer_notes"):
        sample_rolls(
            play_model(), SampleSettings(primer_notes="C4 X"), 5, 0.5, lambda: calls.append(1)
        )
    assert calls == []


def written(folder: Path, rolls: list[np.ndarray], frame_beats: float = 0.5, **wanted: Any) -> Any:
    return write_samples(rolls, folder, SampleSettings(**wanted), 7, frame_beats, "tiny")


@pytest.mark.parametrize("frame_beats", [0.5, 0.25, 1 / 3])
@pytest.mark.parametrize("bpm", [120.0, 97.3])
def test_midi_written_is_the_roll_sampled(tmp_path: Path, bpm: float, frame_beats: float) -> None:
    wanted = SampleSettings(num_samples=2, seconds=1.5, bpm=bpm, primer_notes="C4,E4 67")
    rolls = sample_rolls(play_model(), wanted, 7, frame_beats)
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
