"""Samples as files: formats, the JSON record, suffixes, and the page of a folder."""

import hashlib
import json
import math
import re
import struct
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pretty_midi
import pytest
import scipy.io.wavfile

from helpers import names_in, roll_from
from pianolstm.files import InputError
from pianolstm.metrics.diagnostics import diagnose
from pianolstm.outputs import samples
from pianolstm.outputs.samples import FORMATS, Origin, parse_formats, write_index, write_samples
from pianolstm.piece import Metre, Note, Piece
from pianolstm.tonality import parse_key

PIECE = Piece(roll_from({60}, {62}), 0.5)
RATE = 48_000


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


@pytest.mark.parametrize("formats", [["png", "musicxml"], FORMATS[:4]])
def test_each_sample_is_written_in_the_given_formats_with_a_record(
    origin: Origin, tmp_path: Path, formats: list[str]
) -> None:
    write_samples([PIECE, PIECE], tmp_path / "new", replace(origin, formats=formats))
    names = sorted(path.name for path in (tmp_path / "new").iterdir())
    assert names == sorted(f"sample-7-{i}.{kind}" for i in (1, 2) for kind in (*formats, "json"))


def test_audio_lasts_at_least_as_long_as_the_music(origin: Origin, tmp_path: Path) -> None:
    rolls = [roll_from({60}, {62}, set()), roll_from(set(), set(), set(), set())]
    pieces = [Piece(roll, 0.5, bpm=60.0) for roll in rolls]
    write_samples(pieces, tmp_path, replace(origin, formats=["wav"]))
    for index, roll in enumerate(rolls, start=1):
        rate, audio = scipy.io.wavfile.read(tmp_path / f"sample-7-{index}.wav")
        assert rate == RATE
        assert audio.dtype == np.int16
        assert len(roll) * RATE // 2 <= len(audio) < len(roll) * RATE // 2 + 4 * RATE
        assert audio.any() == roll.any()


@pytest.mark.skipif(find_spec("verovio") is None, reason="Verovio is not installed")
def test_the_engraved_score_is_written_where_verovio_is_installed(
    origin: Origin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_samples([PIECE], tmp_path / "with", replace(origin, formats=["svg"]))
    assert "<svg" in (tmp_path / "with" / "sample-7-1.svg").read_text()
    monkeypatch.setattr(samples, "can_engrave", lambda: False)
    write_samples([PIECE], tmp_path / "without", replace(origin, formats=["mid", "svg"]))
    assert names_in(tmp_path / "without") == ["sample-7-1.json", "sample-7-1.mid"]
    assert json.loads((tmp_path / "without" / "sample-7-1.json").read_text())["formats"] == ["mid"]


def test_the_picture_is_a_png_of_sensible_size(origin: Origin, tmp_path: Path) -> None:
    write_samples([PIECE], tmp_path, replace(origin, formats=["png"]))
    picture = (tmp_path / "sample-7-1.png").read_bytes()
    assert picture.startswith(b"\x89PNG\r\n\x1a\n")
    width, height = struct.unpack(">II", picture[16:24])
    assert 800 <= width <= 2400
    assert 300 <= height <= 1200


def test_the_midi_file_has_the_tempo_velocity_and_program(origin: Origin, tmp_path: Path) -> None:
    piece = Piece(roll_from({60}, {60}), 0.5, bpm=90.0)
    write_samples([piece], tmp_path, with_settings(origin, velocity=33, program="Church Organ"))
    midi = pretty_midi.PrettyMIDI(str(tmp_path / "sample-7-1.mid"))
    (instrument,) = midi.instruments
    assert instrument.program == 19
    assert [note.velocity for note in instrument.notes] == [33]
    assert midi.get_tempo_changes()[1].tolist() == pytest.approx([90], rel=1e-5)
    assert math.isclose(instrument.notes[0].end, 60 / 90, rel_tol=1e-3)


def test_equal_samples_give_equal_midi_and_audio(origin: Origin, tmp_path: Path) -> None:
    for folder in ("one", "two"):
        write_samples([PIECE], tmp_path / folder, replace(origin, formats=["mid", "wav"]))
    for kind in ("mid", "wav"):
        one, two = ((tmp_path / f / f"sample-7-1.{kind}").read_bytes() for f in ("one", "two"))
        assert one == two


# ---- the record ----------------------------------------------------------------------------------


def test_the_record_holds_how_a_sample_was_made_its_diagnostics_and_its_notes(
    origin: Origin, tmp_path: Path
) -> None:
    roll = roll_from({60}, {60}, set(), {62, 72})
    piece = Piece(
        roll, 0.5, bpm=90.0, metre=Metre(6, 8, 0.5), key=parse_key("Eb"), remarks=("a remark",)
    )
    assert write_samples([piece], tmp_path, origin) == [diagnose(roll, frame_beats=0.5)]
    record = json.loads((tmp_path / "sample-7-1.json").read_text())
    sha256 = hashlib.sha256(b"weights").hexdigest()
    assert record["weights"] == {"file": "weights.safetensors", "sha256": sha256}
    assert record["seed"] == 7
    assert record["settings"] == origin.settings
    assert record["trained_on"] == {"dataset": "tiny", "fingerprint": "abc"}
    assert record["notes"] == [[60, 0, 2], [62, 3, 4], [72, 3, 4]]
    assert record["diagnostics"]["notes"] == 3
    assert record["diagnostics"]["copied_share"] is None  # NaN is not JSON
    assert record["warnings"] == ["a remark"]
    assert record["music"] == {"key": "Eb", "metre": "6/8", "upbeat": 0.5, "bpm": 90.0}


def test_given_notes_are_diagnosed_and_recorded_as_they_are(origin: Origin, tmp_path: Path) -> None:
    piece = Piece(roll_from({60}, {62}), 0.5, given=(Note(0.1, 0.6, 72, 99),))
    (diagnostics,) = write_samples([piece], tmp_path, origin)
    assert diagnostics.notes == 3
    record = json.loads((tmp_path / "sample-7-1.json").read_text())
    assert record["notes"] == [[60, 0, 1], [62, 1, 2]]
    assert record["given"] == [[0.1, 0.6, 72, 99]]
    page = write_index(tmp_path, "All", tmp_path).read_text()
    assert page.count('class="given"') == 1


# ---- several calls into one folder ---------------------------------------------------------------


def test_samples_that_were_made_in_another_way_get_a_suffix_of_their_own(
    origin: Origin, tmp_path: Path
) -> None:
    folder = tmp_path / "s"
    folder.mkdir()
    hotter = with_settings(origin, temperature=1.5)
    for made in (origin, hotter):
        write_samples([PIECE, PIECE], folder, made.beside(folder))
    assert names_in(folder) == sorted(
        f"sample-7-{i}{suffix}.{kind}"
        for i in (1, 2) for suffix in ("", "-v2") for kind in ("json", "mid")
    )  # fmt: skip
    assert origin.beside(folder).suffix == ""
    assert with_settings(origin, num_samples=9).beside(folder).suffix == ""
    assert hotter.beside(folder).suffix == "-v2"
    assert with_settings(origin, temperature=0.1).beside(folder).suffix == "-v3"
    assert replace(hotter, seed=8).beside(folder).suffix == ""


def test_other_weights_get_a_suffix_and_so_do_samples_beside_files_without_a_record(
    origin: Origin, tmp_path: Path
) -> None:
    write_samples([PIECE], tmp_path, origin)
    other = tmp_path / "other.safetensors"
    other.write_bytes(b"other")
    assert replace(origin, weights=other).beside(tmp_path).suffix == "-v2"
    (tmp_path / "sample-7-1.json").unlink()
    assert origin.beside(tmp_path).suffix == "-v2"


def test_the_page_shows_samples_of_one_seed_side_by_side_with_what_differs(
    origin: Origin, tmp_path: Path
) -> None:
    folder = tmp_path / "s"
    folder.mkdir()
    for temperature in (0.5, 1.25):
        made = with_settings(origin, temperature=temperature)
        write_samples([PIECE, PIECE], folder, made.beside(folder))
    page = write_index(folder, "All", folder).read_text()
    assert re.findall(r"<h2[^>]*>(.*?)<", page) == [
        "Seed 7, sample 1", "Seed 7, sample 1, version 2",
        "Seed 7, sample 2", "Seed 7, sample 2, version 2",
    ]  # fmt: skip
    assert page.count("<li>temperature 0.5</li>") == page.count("<li>temperature 1.25</li>") == 2


def test_the_page_has_the_facts_of_a_sample(origin: Origin, tmp_path: Path) -> None:
    piece = Piece(
        roll_from(*[{60}] * 25), 0.5, bpm=90.0, metre=Metre(6, 8, 0.5), key=parse_key("Ebm")
    )
    made = with_settings(origin, harmonize="some/folder/tune.mid", chord_temperature=0.7)
    write_samples([piece], tmp_path, made)
    page = write_index(tmp_path, "All", tmp_path).read_text()
    facts = re.search(r'<ul class="facts".*?</ul>', page)
    assert facts is not None
    assert re.findall(r"<li>(.*?)</li>", facts[0]) == [
        "E-flat minor", "6/8 with an upbeat", "4 bars", "90 beats per minute", "temperature 0.5",
        "chord temperature 0.7", "chords for tune.mid", "trained on tiny", "0:08",
    ]  # fmt: skip


# ---- the page ------------------------------------------------------------------------------------


def test_the_page_has_every_sample_of_the_folder_by_seed_and_number(
    origin: Origin, tmp_path: Path
) -> None:
    for seed in (20, 7):
        write_samples([PIECE] * 11, tmp_path / "s", replace(origin, seed=seed))
    page = write_index(tmp_path, "All", tmp_path / "s").read_text()
    headings = re.findall(r"<h2[^>]*>Seed (\d+), sample (\d+)<", page)
    assert headings == [(seed, str(i)) for seed in ("7", "20") for i in range(1, 12)]
    assert 'href="s/sample-7-11.mid"' in page


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"frames": 2, "notes": [[300, 0, 1]]}'])
def test_a_damaged_record_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "sample-1-1.json").write_text(text)
    with pytest.raises(InputError, match=r"sample-1-1\.json"):
        write_index(tmp_path, "All", tmp_path)
