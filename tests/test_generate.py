"""Playing a model: what is sampled, what a primer is, and the files made of it.

The command line of generate.py is tested elsewhere.
"""

import dataclasses
import hashlib
import json
import math
import re
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pretty_midi
import pytest
import scipy.io.wavfile
import torch

from files import InputError
from generate import (
    choices_of,
    count_frames,
    free_piece,
    piece_of,
    sample_rolls,
)
from heads import Choices
from helpers import RATE, K, roll_from
from helpers_train import play_model
from keys import move
from measures import health, known_windows, longest_repeat
from midi import midi_to_roll, roll_to_midi
from samples import FORMATS, Origin, parse_formats, say, write_index, write_samples
from sampling import freely, generators_of, sample
from settings import PlaySettings, SampleSettings

RECORD = {"dataset": "nottingham", "frame_beats": 0.5}


def notes_of(roll: np.ndarray) -> list[list[int]]:
    """Return the MIDI numbers of each frame."""
    return [(np.flatnonzero(frame) + 21).tolist() for frame in roll]


# ---- what is asked for ---------------------------------------------------------------------------


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
    piece = free_piece(model, RECORD, wanted)
    rolls = sample_rolls(model, piece, wanted, 5, calls.append)
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
    assert sum(calls) == 12


def test_notes_below_the_highest_have_its_temperature_unless_they_are_given_one() -> None:
    assert choices_of(SampleSettings(temperature=0.7, top_p=1.0)) == Choices(0.7, 0.7)
    assert choices_of(SampleSettings(chord_temperature=0)) == Choices(1.0, 0, 0.99)


def play(tmp_path: Path, latent: int = 4, **flags: Any) -> list[np.ndarray]:
    """Return two tunes as generate.py plays them; files are given as rolls."""
    names = {field.name for field in dataclasses.fields(SampleSettings)}
    for name, value in flags.items():
        if isinstance(value, np.ndarray):
            roll_to_midi(value, 0.5).write(str(tmp_path / name))
            flags[name] = str(tmp_path / name)
    wanted = SampleSettings(
        **{"num_samples": 2, "beats": 4.0, **{n: v for n, v in flags.items() if n in names}}
    )
    more = PlaySettings(**{n: v for n, v in flags.items() if n not in names})
    model = play_model(latent, density=0.3)
    return sample_rolls(model, piece_of(model, RECORD, wanted, more), wanted, 3)


def test_a_chord_is_held_for_max_hold_beats_and_a_given_melody_for_as_long_as_it_likes(
    tmp_path: Path,
) -> None:
    held = roll_from(*[{60}] * 12)
    ends = [play(tmp_path, latent=0, temperature=0, beats=20.0, max_hold=n) for n in (1.5, 0)]
    # The same likeliest tune begins again when the first has held a chord for three frames.
    assert [longest_repeat(tunes[0]) for tunes in ends] == [3, 6]
    harmonised = play(tmp_path, temperature=0, harmonize=held, match_key=False, max_hold=1.0)
    assert all(roll[:, 60 - 21].all() for roll in harmonised)


@pytest.mark.parametrize(
    ("wanted", "frames"),
    [({"beats": 3.0}, 6), ({"bars": 2.0}, 16), ({"bars": 0.5, "beats": 9.0, "seconds": 9.0}, 4)],
)
def test_length_in_beats_and_bars_goes_before_seconds(wanted: Any, frames: int) -> None:
    assert count_frames(SampleSettings(**wanted), 0.5) == frames


@pytest.mark.parametrize("flag", ["primer_midi", "continue_from"])
def test_what_a_tune_starts_from_is_in_the_result_where_it_was(tmp_path: Path, flag: str) -> None:
    start = roll_from(*[{55, 59, 62}, {57, 60, 66}, {55, 59, 67}] * 4)  # in G
    for roll in play(tmp_path, **{flag: start}):
        assert len(roll) == 12 + 8
        assert np.array_equal(roll[:12], start)
    for roll in play(tmp_path, include_primer=False, **{flag: start}):
        assert len(roll) == 8


def test_a_sample_gone_on_with_goes_on_as_if_it_had_never_stopped(tmp_path: Path) -> None:
    # Likeliest frames alone: there is no chance that could differ.
    whole = play(tmp_path, temperature=0, beats=20.0)[0]
    assert len(np.unique(whole, axis=0)) > 1
    rest = play(tmp_path, temperature=0, beats=10.0, continue_from=whole[:20])[0]
    assert np.array_equal(rest, whole)


def test_key_moves_the_whole_result(tmp_path: Path) -> None:
    in_c, in_d = (play(tmp_path, key=key)[0] for key in ("C", "D"))
    assert np.array_equal(move(in_c, 2), in_d)
    assert not np.array_equal(in_c, in_d)


def test_harmonize_keeps_the_melody_on_top_in_its_own_key(tmp_path: Path) -> None:
    melody = roll_from(*[{67}, {71}, {74}, {72}, {69}, {66}, {67}, {67}] * 2)  # in G
    for roll in play(tmp_path, harmonize=melody):
        assert len(roll) == 16
        assert [max(notes) for notes in notes_of(roll)] == [max(n) for n in notes_of(melody)]
        assert roll.sum() > 16


def test_melody_over_keeps_the_chords_below(tmp_path: Path) -> None:
    chords = roll_from(*[{43, 47, 50}, {45, 48, 50}, {43, 47, 55}] * 4)
    for roll in play(tmp_path, melody_over=chords):
        assert (roll & chords == chords).all()
        assert ((roll & ~chords).sum(axis=1) <= 1).all()
        for notes, given_ in zip(notes_of(roll & ~chords), notes_of(chords), strict=True):
            assert not notes or notes[0] > max(given_)


def test_independent_keys_can_not_harmonize(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"^--harmonize: .*--latent_size=0"):
        play(tmp_path, latent=0, harmonize=roll_from({60}))


def test_two_things_to_start_from_are_one_too_many(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"^--primer_notes, --harmonize: give one of them"):
        play(tmp_path, primer_notes="C4", harmonize=roll_from({60}))


@pytest.mark.parametrize(("text", "names"), [("mid", ("mid",)), (" WAV, mid ,wav", ("wav", "mid"))])
def test_formats_are_read(text: str, names: tuple[str, ...]) -> None:
    assert parse_formats(text) == names


@pytest.mark.parametrize("text", ["", "mp3", "mid,,wav", "mid;wav"])
def test_a_format_that_is_none_is_named(text: str) -> None:
    with pytest.raises(InputError, match=r"^--formats: .*musicxml"):
        parse_formats(text)


def test_every_format_is_written_and_no_other(tmp_path: Path) -> None:
    rolls = [roll_from({60}, {62})]
    write_samples(rolls, tmp_path, origin_of(tmp_path, formats=("png", "musicxml")))
    assert sorted(path.name for path in tmp_path.glob("sample*")) == [
        "sample-7-1.json",
        "sample-7-1.musicxml",
        "sample-7-1.png",
    ]


def origin_of(
    folder: Path, frame_beats: float = 0.5, formats: Any = FORMATS[:3], **wanted: Any
) -> Origin:
    """Return where the samples of the tests come from; the weights are a file of no weights."""
    weights = folder / "weights.safetensors"
    folder.mkdir(exist_ok=True)
    weights.write_bytes(b"weights")
    record = {"dataset": "tiny", "fingerprint": "abc", "frame_beats": frame_beats}
    return Origin(weights, record, 7, SampleSettings(**wanted), formats=formats)


def written(folder: Path, rolls: list[np.ndarray], frame_beats: float = 0.5, **wanted: Any) -> Any:
    origin = origin_of(folder, frame_beats, **wanted)
    write_samples(rolls, folder, origin)
    return [Path(f"{origin.stem(folder, i)}.mid") for i in range(1, len(rolls) + 1)]


@pytest.mark.parametrize("frame_beats", [0.5, 0.25, 1 / 3])
@pytest.mark.parametrize("bpm", [120.0, 97.3])
def test_midi_written_is_the_roll_sampled(tmp_path: Path, bpm: float, frame_beats: float) -> None:
    wanted = SampleSettings(num_samples=2, seconds=1.5, bpm=bpm, primer_notes="C4,E4 67")
    model = play_model()
    piece = free_piece(model, RECORD | {"frame_beats": frame_beats}, wanted)
    rolls = sample_rolls(model, piece, wanted, 7)
    rolls.append(np.zeros((3, K), dtype=bool))
    paths = written(tmp_path / "new", rolls, frame_beats, bpm=bpm)
    for path, roll in zip(paths, rolls, strict=True):
        read, left_out = midi_to_roll(path, frame_beats)
        assert np.array_equal(read, roll)
        assert left_out == (0, 0)


def test_four_files_are_written_for_each_tune(tmp_path: Path) -> None:
    rolls = [roll_from({60}, {62}, set()), roll_from(set(), set(), set(), set())]
    paths = written(tmp_path, rolls)
    assert paths == [tmp_path / "sample-7-1.mid", tmp_path / "sample-7-2.mid"]
    assert sorted(path.name for path in tmp_path.glob("sample*")) == [
        f"sample-7-{i}.{kind}" for i in (1, 2) for kind in ("json", "mid", "png", "wav")
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
    (path,) = written(
        tmp_path, [roll_from({60}, {60})], bpm=90.0, velocity=33, program="Church Organ"
    )
    midi = pretty_midi.PrettyMIDI(str(path))
    (instrument,) = midi.instruments
    assert instrument.program == 19
    assert [note.velocity for note in instrument.notes] == [33]
    assert midi.get_tempo_changes()[1].tolist() == pytest.approx([90], rel=1e-5)
    assert math.isclose(instrument.notes[0].end, 60 / 90, rel_tol=1e-3)


def test_account_of_a_sample_tells_how_it_was_made_and_what_it_is_like(tmp_path: Path) -> None:
    roll = roll_from({60}, {60}, set(), {62, 72})
    origin = origin_of(tmp_path, temperature=0.5)
    (found,) = write_samples([roll], tmp_path, origin)
    assert found == health(roll)
    made = json.loads((tmp_path / "sample-7-1.json").read_text())
    assert made["weights"] == {
        "file": "weights.safetensors",
        "sha256": hashlib.sha256(b"weights").hexdigest(),
    }
    assert (made["seed"], made["tune"], made["settings"]["temperature"]) == (7, 1, 0.5)
    assert made["trained_on"] == {"dataset": "tiny", "fingerprint": "abc"}
    assert made["notes"] == [[60, 0, 2], [62, 3, 4], [72, 3, 4]]
    assert (made["health"]["notes"], made["health"]["copied_share"]) == (3, None)
    assert made["warnings"] == []


def test_page_has_every_tune_of_the_folder_in_order(tmp_path: Path) -> None:
    rolls = [roll_from({60}, {62})] * 11
    for seed in (20, 7):
        write_samples(
            rolls, tmp_path / "s", replace(origin_of(tmp_path, formats=["mid"]), seed=seed)
        )
    page = write_index(tmp_path, "All", tmp_path / "s").read_text()
    headings = re.findall(r"Seed (\d+), tune (\d+)", page)
    assert list(dict.fromkeys(headings)) == [
        (seed, str(tune)) for seed in ("7", "20") for tune in range(1, 12)
    ]
    assert 'href="s/sample-7-11.mid"' in page


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"frames": 2, "notes": [[300, 0, 1]]}'])
def test_a_damaged_account_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "sample-1-1.json").write_text(text)
    with pytest.raises(InputError, match=r"sample-1-1\.json"):
        write_index(tmp_path, "All", tmp_path)


def test_a_tune_in_a_line() -> None:
    known = known_windows([roll_from(*[{60}, {62}] * 20)])
    assert say(health(roll_from({60}, {62, 79}, set(), set()))) == (
        "3 notes, C4 to G5, silence 50%, longest hold 1 frames"
    )
    assert say(health(roll_from(set()))) == "0 notes, silence 100%, longest hold 0 frames"
    assert say(health(roll_from(*[{60}, {62}] * 16), known)).endswith("copied 100%")


def test_writing_again_gives_the_same_midi_and_sound(tmp_path: Path) -> None:
    rolls = [roll_from({60}, {62})]
    for folder in ("one", "two"):
        written(tmp_path / folder, rolls)
    for kind in ("mid", "wav"):
        one, two = ((tmp_path / f / f"sample-7-1.{kind}").read_bytes() for f in ("one", "two"))
        assert one == two
