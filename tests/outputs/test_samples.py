"""Samples as files: formats, the JSON record, and the page of a folder."""

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

from helpers import roll_from
from pianolstm.files import InputError
from pianolstm.metrics.diagnostics import diagnose
from pianolstm.midi import read_midi
from pianolstm.outputs.samples import FORMATS, Origin, parse_formats, write_index, write_samples

ROLL = roll_from({60}, {62})


@pytest.fixture
def origin(tmp_path: Path) -> Origin:
    """Return an origin whose weights are a file of another content."""
    weights = tmp_path / "weights.safetensors"
    weights.write_bytes(b"weights")
    metadata = {"dataset": "tiny", "fingerprint": "abc", "frame_beats": 0.5}
    settings = {"bpm": 120.0, "velocity": 80, "program": "0", "temperature": 0.5, "harmonize": None}
    return Origin(weights, metadata, 7, settings, formats=["mid"])


def with_settings(origin: Origin, **settings: Any) -> Origin:
    return replace(origin, settings={**origin.settings, **settings})


# ---- formats -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("text", "names"), [("mid", ("mid",)), (" WAV, mid ,wav", ("wav", "mid"))])
def test_formats_are_parsed(text: str, names: tuple[str, ...]) -> None:
    assert parse_formats(text) == names


@pytest.mark.parametrize("text", ["", "mp3", "mid,,wav", "mid;wav"])
def test_an_unknown_format_is_refused_with_the_known_ones(text: str) -> None:
    with pytest.raises(InputError, match=r"^--formats: .*musicxml"):
        parse_formats(text)


@pytest.mark.parametrize("formats", [["png", "musicxml"], FORMATS[:3]])
def test_each_sample_is_written_in_the_given_formats_with_a_record(
    origin: Origin, tmp_path: Path, formats: list[str]
) -> None:
    write_samples([ROLL, ROLL], tmp_path / "new", replace(origin, formats=formats))
    names = sorted(path.name for path in (tmp_path / "new").iterdir())
    assert names == sorted(f"sample-7-{i}.{kind}" for i in (1, 2) for kind in (*formats, "json"))


def test_audio_lasts_as_long_as_the_roll(origin: Origin, tmp_path: Path) -> None:
    rolls = [roll_from({60}, {62}, set()), roll_from(set(), set(), set(), set())]
    write_samples(rolls, tmp_path, replace(origin, formats=["wav"]))
    for index, roll in enumerate(rolls, start=1):
        rate, audio = scipy.io.wavfile.read(tmp_path / f"sample-7-{index}.wav")
        assert rate == 44_100
        assert audio.dtype == np.int16
        assert len(audio) == len(roll) * 44_100 // 4  # half a beat at 120 beats per minute
        assert audio.any() == roll.any()


def test_the_picture_is_a_png_of_sensible_size(origin: Origin, tmp_path: Path) -> None:
    write_samples([ROLL], tmp_path, replace(origin, formats=["png"]))
    picture = (tmp_path / "sample-7-1.png").read_bytes()
    assert picture.startswith(b"\x89PNG\r\n\x1a\n")
    width, height = struct.unpack(">II", picture[16:24])
    assert 800 <= width <= 2400
    assert 300 <= height <= 1200


@pytest.mark.parametrize("frame_beats", [0.5, 0.25, 1 / 3])
@pytest.mark.parametrize("bpm", [120.0, 97.3])
def test_the_midi_file_holds_the_roll(
    origin: Origin, tmp_path: Path, bpm: float, frame_beats: float
) -> None:
    random = np.random.default_rng(1).random((40, 88)) < 0.1
    rolls = [random, np.zeros((3, 88), dtype=bool)]
    metadata = {**origin.metadata, "frame_beats": frame_beats}
    write_samples(rolls, tmp_path, replace(with_settings(origin, bpm=bpm), metadata=metadata))
    for index, roll in enumerate(rolls, start=1):
        parsed, dropped = read_midi(tmp_path / f"sample-7-{index}.mid", frame_beats)
        assert np.array_equal(parsed, roll)
        assert (dropped.out_of_range, dropped.too_short) == (0, 0)


def test_the_midi_file_has_the_given_tempo_velocity_and_program(
    origin: Origin, tmp_path: Path
) -> None:
    settings = {"bpm": 90.0, "velocity": 33, "program": "Church Organ"}
    write_samples([roll_from({60}, {60})], tmp_path, with_settings(origin, **settings))
    midi = pretty_midi.PrettyMIDI(str(tmp_path / "sample-7-1.mid"))
    (instrument,) = midi.instruments
    assert instrument.program == 19
    assert [note.velocity for note in instrument.notes] == [33]
    assert midi.get_tempo_changes()[1].tolist() == pytest.approx([90], rel=1e-5)
    assert math.isclose(instrument.notes[0].end, 60 / 90, rel_tol=1e-3)


def test_equal_samples_give_equal_midi_and_audio(origin: Origin, tmp_path: Path) -> None:
    for folder in ("one", "two"):
        write_samples([ROLL], tmp_path / folder, replace(origin, formats=["mid", "wav"]))
    for kind in ("mid", "wav"):
        one, two = ((tmp_path / f / f"sample-7-1.{kind}").read_bytes() for f in ("one", "two"))
        assert one == two


# ---- the record and the page ---------------------------------------------------------------------


def test_the_record_holds_how_a_sample_was_made_its_diagnostics_and_its_notes(
    origin: Origin, tmp_path: Path
) -> None:
    roll = roll_from({60}, {60}, set(), {62, 72})
    assert write_samples([roll], tmp_path, origin) == [diagnose(roll)]
    record = json.loads((tmp_path / "sample-7-1.json").read_text())
    sha256 = hashlib.sha256(b"weights").hexdigest()
    assert record["weights"] == {"file": "weights.safetensors", "sha256": sha256}
    assert record["seed"] == 7
    assert record["settings"] == origin.settings
    assert record["trained_on"] == {"dataset": "tiny", "fingerprint": "abc"}
    assert record["notes"] == [[60, 0, 2], [62, 3, 4], [72, 3, 4]]
    assert record["diagnostics"]["notes"] == 3
    assert record["diagnostics"]["copied_share"] is None  # NaN is not JSON
    assert record["warnings"] == []


def test_the_page_has_every_sample_of_the_folder_by_seed_and_number(
    origin: Origin, tmp_path: Path
) -> None:
    for seed in (20, 7):
        write_samples([ROLL] * 11, tmp_path / "s", replace(origin, seed=seed))
    page = write_index(tmp_path, "All", tmp_path / "s").read_text()
    headings = re.findall(r"<h2[^>]*>Seed (\d+), sample (\d+)<", page)
    assert headings == [(seed, str(i)) for seed in ("7", "20") for i in range(1, 12)]
    assert 'href="s/sample-7-11.mid"' in page


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"frames": 2, "notes": [[300, 0, 1]]}'])
def test_a_damaged_record_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "sample-1-1.json").write_text(text)
    with pytest.raises(InputError, match=r"sample-1-1\.json"):
        write_index(tmp_path, "All", tmp_path)
