"""Samples as files: MIDI, audio, picture, MusicXML, a JSON record, and a page of all of them.

The files of a sample share a stem, sample-<seed>-<i>. Its .json records how the sample was made,
its diagnostics and its notes, so the page can be rebuilt from the folder alone.
"""

import dataclasses
import hashlib
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from pianolstm.files import InputError, atomic_write, read_json, write_json
from pianolstm.metrics.copying import KnownPieces
from pianolstm.metrics.diagnostics import Diagnostics, diagnose
from pianolstm.midi import parse_program, piece_to_midi, roll_to_notes
from pianolstm.outputs.audio import SAMPLE_RATE, synthesize
from pianolstm.outputs.musicxml import write_musicxml
from pianolstm.outputs.page import Sample, write_page
from pianolstm.outputs.plots import plot_roll
from pianolstm.parts import whole_roll
from pianolstm.piece import Piece
from pianolstm.rolls import LOWEST_PITCH, PITCHES

FORMATS = ("mid", "wav", "png", "musicxml")


@dataclass(frozen=True)
class Origin:
    """How a set of samples was made, and in which formats it is written."""

    weights: Path  # the file of the model
    metadata: Mapping[str, Any]  # of that file: `dataset`, `fingerprint`, `frame_beats`
    seed: int
    settings: Mapping[str, Any]  # of the sampling; `bpm`, `velocity`, `program` define the MIDI
    formats: Sequence[str] = FORMATS[:3]
    soundfont: Path | None = None
    known: KnownPieces | None = None  # the training split, if available

    def stem(self, folder: Path, index: int) -> Path:
        """Return the path of a sample's files without their suffix; the first index is 1."""
        return folder / f"sample-{self.seed}-{index}"


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
    sha256 = hashlib.sha256(origin.weights.read_bytes()).hexdigest()
    for index, piece in enumerate(pieces, start=1):
        roll = whole_roll(piece)
        stem, diagnostics = origin.stem(folder, index), diagnose(roll, origin.known)
        _write_formats(stem, piece, index, origin)
        notes = roll_to_notes(roll)
        write_json(
            Path(f"{stem}.json"),
            {
                "seed": origin.seed,
                "tune": index,
                "weights": {"file": origin.weights.name, "sha256": sha256},
                "trained_on": {name: origin.metadata[name] for name in ("dataset", "fingerprint")},
                "settings": dict(origin.settings) | {"bpm": piece.bpm},
                "frame_beats": origin.metadata["frame_beats"],
                "diagnostics": {
                    # JSON has no NaN.
                    name: None if isinstance(value, float) and math.isnan(value) else value
                    for name, value in dataclasses.asdict(diagnostics).items()
                },
                "warnings": diagnostics.warnings(),
                "formats": list(origin.formats),
                "frames": len(roll),
                "notes": [[column + LOWEST_PITCH, start, end] for column, start, end in notes],
            },
        )
        all_diagnostics.append(diagnostics)
    return all_diagnostics


def _write_formats(stem: Path, piece: Piece, index: int, origin: Origin) -> None:
    """Write one sample in each of the formats."""
    settings, frame_beats, roll = origin.settings, piece.frame_beats, whole_roll(piece)
    bpm, title = piece.bpm, f"{origin.metadata['dataset']}, seed {origin.seed}, sample {index}"
    program = parse_program(settings["program"])
    midi = piece_to_midi(piece, settings["velocity"], program)

    def write_wav(path: Path) -> None:
        import scipy.io.wavfile  # a quarter of a second to import, which would delay every start

        audio = synthesize(midi, _seconds(roll, frame_beats, bpm), origin.soundfont)
        scipy.io.wavfile.write(path, SAMPLE_RATE, audio)

    def write_png(path: Path) -> None:
        plot_roll(roll, frame_beats, title).savefig(path, format="png", dpi=120)

    writers: dict[str, Callable[[Path], Any]] = {
        "mid": lambda path: midi.write(str(path)),
        "wav": write_wav,
        "png": write_png,
        "musicxml": lambda path: write_musicxml(path, replace(piece, title=title), program),
    }
    for name in origin.formats:
        with atomic_write(f"{stem}.{name}") as temporary:
            writers[name](temporary)


def _seconds(roll: np.ndarray, frame_beats: float, bpm: float) -> float:
    """Return the duration of a roll."""
    return len(roll) * frame_beats * 60 / bpm


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
        stem = path.relative_to(folder).as_posix().removesuffix("json")
        return Sample(
            title=f"Seed {record['seed']}, sample {record['tune']}",
            roll=roll,
            seconds=_seconds(roll, record["frame_beats"], record["settings"]["bpm"]),
            audio=f"{stem}wav" if "wav" in record["formats"] else None,
            files=tuple(stem + name for name in (*record["formats"], "json")),
            warnings=tuple(record["warnings"]),
        )
    except (KeyError, TypeError, ValueError, IndexError) as error:
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
        stem = path.relative_to(folder).as_posix().removesuffix(".json")
        return Sample(
            title=f"Surprise in {record['title']}",
            roll=~np.isnan(nats),
            seconds=record["seconds"],
            audio=None,
            files=tuple(stem + end for end in (".png", "-frames.csv", "-notes.csv", ".json")),
            nats=np.nan_to_num(nats),
            text=(
                *record["text"],
                "From blue to red: notes of probability 0.9 and more, 0.5, 0.2, 0.05, and less.",
            ),
        )
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise InputError(f"{path}: not the record of a piece ({error!r}); remove it") from None
