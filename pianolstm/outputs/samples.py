"""Samples as files: MIDI, audio, picture, score, a JSON record, and a page of all of them.

The files of a sample share a stem, sample-<seed>-<i>. Samples of the same seed that were made in
another way, such as at another temperature, get a suffix: sample-<seed>-<i>-v2. The .json records
how the sample was made, its diagnostics and its notes, so the page can be rebuilt from the folder
alone.
"""

import dataclasses
import hashlib
import json
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np

from pianolstm.files import InputError, atomic_write, read_json, write_json
from pianolstm.metrics.copying import KnownPieces
from pianolstm.metrics.diagnostics import Diagnostics, diagnose
from pianolstm.metrics.form import LoopBounds
from pianolstm.midi import parse_program, piece_to_midi, roll_to_notes
from pianolstm.outputs.audio import write_wav
from pianolstm.outputs.musicxml import (
    can_engrave,
    engrave,
    key_name,
    to_musicxml,
    write_musicxml,
)
from pianolstm.outputs.page import Sample, write_page
from pianolstm.outputs.plots import plot_piece
from pianolstm.parts import complete, whole_roll
from pianolstm.piece import Metre, Note, Piece, parse_metre
from pianolstm.rolls import LOWEST_PITCH, PITCHES
from pianolstm.tonality import parse_key

FORMATS = ("mid", "wav", "png", "musicxml", "svg")

_GIVEN = (  # settings that name music
    "harmonize", "melody_over", "continue_from", "primer_midi", "primer_notes", "chords", "infill",
)  # fmt: skip


@dataclass(frozen=True)
class Origin:
    """How a set of samples was made, and in which formats it is written."""

    weights: Path  # the file of the model
    metadata: Mapping[str, Any]  # of that file: `dataset`, `fingerprint`, `frame_beats`
    seed: int
    settings: Mapping[str, Any]  # of the sampling; `bpm`, `velocity`, `program` define the MIDI
    formats: Sequence[str] = FORMATS
    soundfont: Path | None = None
    known: KnownPieces | None = None  # the training split, if available

    suffix: str = ""  # of the stems: "", "-v2", "-v3" ...

    def stem(self, folder: Path, index: int) -> Path:
        """Return the path of a sample's files without their ending; the first index is 1."""
        return folder / f"sample-{self.seed}-{index}{self.suffix}"

    def beside(self, folder: Path) -> "Origin":
        """Return this with the first suffix whose samples in a folder were made the same way.

        The folder's samples of the same seed, but of other weights or settings, then stay.
        """
        for number in count(1):
            suffix = "" if number == 1 else f"-v{number}"
            pattern = re.compile(rf"sample-{self.seed}-\d+{suffix}\.\w+")
            files = [path for path in folder.iterdir() if pattern.fullmatch(path.name)]
            stems = {path.stem for path in files}
            if all(self._made(folder / f"{stem}.json") for stem in stems):
                return dataclasses.replace(self, suffix=suffix)
        raise AssertionError("count() has no end")

    def _made(self, path: Path) -> bool:
        """Return whether a record is of a sample with these weights and settings."""
        try:
            record = read_json(path)
            settings = {**record["settings"], "num_samples": self.settings.get("num_samples")}
            same_weights = record["weights"]["sha256"] == _sha256(self.weights)
        except (InputError, KeyError, TypeError):
            return False
        wanted = {"num_samples": None, **self.settings}
        return same_weights and settings == json.loads(json.dumps(wanted))


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def write_samples(pieces: Sequence[Piece], folder: Path, origin: Origin) -> list[Diagnostics]:
    """Write each sample in the formats of `origin`, with a .json record.

    Args:
        pieces: the samples.
        folder: the folder to write to; it is created if missing.
        origin: how the samples were made.

    Returns:
        The diagnostics of each sample.

    Raises:
        InputError: the folder is not writable, or the setting `program` is unknown.
    """
    all_diagnostics = []
    sha256 = _sha256(origin.weights)
    bounds = LoopBounds.of_metadata(origin.metadata)
    for index, piece in enumerate(map(complete, pieces), start=1):
        stem = origin.stem(folder, index)
        diagnostics = diagnose(
            whole_roll(piece), origin.known, frame_beats=piece.frame_beats, bounds=bounds
        )
        formats = _write_formats(stem, piece, index, origin)
        notes = roll_to_notes(piece.roll)
        metre, key = piece.metre or Metre(), piece.key
        write_json(
            Path(f"{stem}.json"),
            {
                "seed": origin.seed,
                "tune": index,
                "weights": {"file": origin.weights.name, "sha256": sha256},
                "trained_on": {name: origin.metadata[name] for name in ("dataset", "fingerprint")},
                "settings": dict(origin.settings),
                "frame_beats": piece.frame_beats,
                "music": {
                    "key": None if key is None else str(key),
                    "metre": str(metre),
                    "upbeat": metre.upbeat,
                    "bpm": piece.bpm,
                },
                "diagnostics": {
                    # JSON has no NaN.
                    name: None if isinstance(value, float) and math.isnan(value) else value
                    for name, value in dataclasses.asdict(diagnostics).items()
                },
                "warnings": [*piece.remarks, *diagnostics.warnings()],
                "formats": formats,
                "frames": len(piece.roll),
                "notes": [[column + LOWEST_PITCH, start, end] for column, start, end in notes],
                "given": [list(note) for note in piece.given],  # start, end in beats
            },
        )
        all_diagnostics.append(diagnostics)
    return all_diagnostics


def _write_formats(stem: Path, piece: Piece, index: int, origin: Origin) -> list[str]:
    """Write one sample in each of the formats that this machine can write; return them."""
    settings = origin.settings
    piece = dataclasses.replace(
        piece, title=f"{origin.metadata['dataset']}, seed {origin.seed}, sample {index}"
    )
    program = parse_program(settings["program"])
    midi = piece_to_midi(piece, settings["velocity"], program)
    seconds = piece.beats * 60 / piece.bpm
    writers: dict[str, Callable[[Path], Any]] = {
        "mid": lambda path: midi.write(str(path)),
        "wav": lambda path: write_wav(path, midi, seconds, origin.soundfont),
        "png": lambda path: plot_piece(piece).savefig(path, format="png", dpi=120),
        "musicxml": lambda path: write_musicxml(path, piece, program),
        "svg": lambda path: path.write_text(engrave(to_musicxml(piece, program)), "utf-8"),
    }
    formats = [name for name in origin.formats if name != "svg" or can_engrave()]
    for name in formats:
        with atomic_write(f"{stem}.{name}") as temporary:
            writers[name](temporary)
    return formats


def parse_formats(text: str) -> tuple[str, ...]:
    """Return the formats of a list such as "mid,wav", each once.

    Raises:
        InputError: an unknown format.
    """
    names = tuple(dict.fromkeys(word.strip().lower() for word in text.split(",")))
    if unknown := [name for name in names if name not in FORMATS]:
        raise InputError(f"--formats: {unknown[0]!r} is not one of {', '.join(FORMATS)}")
    return names


# ---- the page ------------------------------------------------------------------------------------


def write_index(
    folder: Path,
    title: str,
    samples: Path,
    *,
    numbers: Sequence[tuple[str, str, str]] = (),
    picture: str | None = None,
    settings: Mapping[str, Any] | None = None,
) -> Path:
    """Write index.html with every sample of a folder, sorted by seed and number.

    Below them are the pieces of the user's of which the surprise was measured.

    Args:
        folder: the folder of the page.
        title: heading of the page.
        samples: the folder of the samples: `folder` itself, or one within it.
        numbers: rows of the table of scores: label, value on valid, value on test.
        picture: path of the loss curve, relative to the page.
        settings: settings of the run.

    Returns:
        The path of the page.

    Raises:
        InputError: a .json of a sample is damaged, or the folder is not writable.
    """
    records = sorted(samples.glob("sample-*.json"), key=_numbers)
    shown = [_read_sample(path, folder) for path in records]
    shown += [_read_surprise(path, folder) for path in sorted(samples.glob("surprise-*.json"))]
    path = folder / "index.html"
    write_page(
        path, title=title, samples=shown, numbers=numbers, picture=picture, settings=settings
    )
    return path


def _numbers(path: Path) -> tuple[int, ...]:
    """Return the numbers in a file's name: seed and index."""
    return tuple(map(int, re.findall(r"\d+", path.stem)))


def _read_sample(path: Path, folder: Path) -> Sample:
    """Return a sample for the page in `folder` from its .json.

    Raises:
        InputError: the file is damaged, or another program's.
    """
    record = read_json(path)
    try:
        roll = np.zeros((record["frames"], PITCHES), dtype=bool)
        for pitch, start, end in record["notes"]:
            roll[start:end, pitch - LOWEST_PITCH] = True
        settings, music = record["settings"], record.get("music", {})
        piece = Piece(roll, record["frame_beats"], music.get("bpm") or settings["bpm"])
        if music:
            metre = parse_metre(music["metre"])._replace(upbeat=music["upbeat"])
            key = None if music["key"] is None else parse_key(music["key"])
            given = tuple(Note(*note) for note in record["given"])
            piece = dataclasses.replace(piece, metre=metre, key=key, given=given)
        stem = path.relative_to(folder).as_posix().removesuffix("json")
        files = [stem + name for name in (*record["formats"], "json")]
        version = re.search(r"-v(\d+)$", path.stem)
        title = f"Seed {record['seed']}, sample {record['tune']}"
        return Sample(
            title=title + (f", version {version[1]}" if version else ""),
            piece=piece,
            facts=(*_facts(piece, settings), f"trained on {record['trained_on']['dataset']}"),
            audio=f"{stem}wav" if "wav" in record["formats"] else None,
            score=f"{stem}svg" if "svg" in record["formats"] else None,
            files=tuple(files),
            warnings=tuple(record["warnings"]),
        )
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise InputError(f"{path}: not the record of a sample ({error!r}); remove it") from None


def _read_surprise(path: Path, folder: Path) -> Sample:
    """Return a measured piece for the page in `folder` from its .json.

    Raises:
        InputError: the file is damaged, or another program's.
    """
    record = read_json(path)
    try:
        nats = np.full((record["frames"], PITCHES), np.nan)
        for pitch, frame, value in record["cells"]:
            nats[frame, pitch - LOWEST_PITCH] = value
        metre = parse_metre(record["metre"])._replace(upbeat=record["upbeat"])
        stem = path.relative_to(folder).as_posix().removesuffix(".json")
        return Sample(
            title=f"Surprise in {record['title']}",
            piece=Piece(~np.isnan(nats), record["frame_beats"], record["bpm"], metre),
            audio=None,
            files=tuple(stem + end for end in (".png", "-frames.csv", "-notes.csv", ".json")),
            nats=np.nan_to_num(nats),
            text=(
                *record["text"],
                "From blue to red: notes of probability 0.9 and more, 0.5, 0.2, 0.05, and less.",
            ),
        )
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise InputError(f"{path}: not the record of a piece ({error!r}); remove it") from None


def _facts(piece: Piece, settings: Mapping[str, Any]) -> Iterator[str]:
    """Yield what is to be known of a sample before it is played."""
    piece = complete(piece)
    if piece.key is not None:
        yield key_name(piece.key)
    if piece.metre is not None:
        yield f"{piece.metre}{' with an upbeat' * (piece.metre.upbeat > 0)}"
        bars = (piece.beats - piece.metre.upbeat) / piece.metre.bar_beats
        count = max(1, math.ceil(bars - 1e-6))
        yield f"{count} bar{'s' * (count > 1)}"
    yield f"{piece.bpm:g} beats per minute"
    for name in ("temperature", "chord_temperature"):
        if settings.get(name) is not None:
            yield f"{name.replace('_', ' ')} {settings[name]:g}"
    for name in _GIVEN:
        if settings.get(name) is not None:
            words = {"harmonize": "chords for", "melody_over": "melody over"}
            words |= {"continue_from": "continues", "primer_midi": "starts from"}
            value = str(settings[name])
            value = value if name == "primer_notes" else Path(value).name
            yield f"{words.get(name, 'starts from')} {value}"
