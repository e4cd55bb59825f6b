"""Sampled rolls as files: MIDI, sound, picture, score, how they were made, and a page of them all.

A tune's files share a stem, sample-<seed>-<i>. Its .json holds all that made it and what there is
to say of it, roll included, so that the page can be made anew from the folder alone.
"""

import dataclasses
import hashlib
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pretty_midi

from checkpoint import Record, read_json, write_json
from files import InputError, whole_file
from measures import Health, health
from midi import held_notes, parse_program, roll_to_midi
from page import Tune, write_page
from picture import draw_roll
from score import write_score
from settings import LOWEST, K, SampleSettings
from sound import SAMPLE_RATE, synthesize

FORMATS = ("mid", "wav", "png", "musicxml")


@dataclass(frozen=True)
class Origin:
    """What all tunes of one call have in common."""

    weights: Path  # the file of the model that played them
    record: Record  # of that file
    seed: int
    settings: SampleSettings
    more: Mapping[str, Any] = dataclasses.field(default_factory=dict)  # settings beside those
    formats: Sequence[str] = FORMATS[:3]
    soundfont: Path | None = None
    known: np.ndarray | None = None  # windows of the training set, where it is at hand

    def stem(self, folder: Path, tune: int) -> Path:
        """Return the path of a tune's files without their endings."""
        return folder / f"sample-{self.seed}-{tune}"


def write_samples(rolls: Sequence[np.ndarray], folder: Path, origin: Origin) -> list[Health]:
    """Write each roll, (T, 88) bool, in all formats, with its .json; return what they are like."""
    examined = []
    sha256 = hashlib.sha256(origin.weights.read_bytes()).hexdigest()
    for tune, roll in enumerate(rolls, start=1):
        stem, found = origin.stem(folder, tune), health(roll, origin.known)
        write_formats(stem, roll, tune, origin)
        write_json(
            Path(f"{stem}.json"),
            {
                "seed": origin.seed,
                "tune": tune,
                "weights": {"file": origin.weights.name, "sha256": sha256},
                "trained_on": {name: origin.record[name] for name in ("dataset", "fingerprint")},
                "settings": {**dataclasses.asdict(origin.settings), **origin.more},
                "frame_beats": origin.record["frame_beats"],
                "health": {
                    # JSON has no NaN.
                    name: None if isinstance(value, float) and math.isnan(value) else value
                    for name, value in dataclasses.asdict(found).items()
                },
                "warnings": found.warnings(),
                "formats": list(origin.formats),
                "frames": len(roll),
                "notes": [[key + LOWEST, start, end] for key, start, end in held_notes(roll)],
            },
        )
        examined.append(found)
    return examined


def write_formats(stem: Path, roll: np.ndarray, tune: int, origin: Origin) -> None:
    """Write one roll in each of the formats."""
    settings, frame_beats = origin.settings, origin.record["frame_beats"]
    title = f"{origin.record['dataset']}, seed {origin.seed}, tune {tune}"
    program = parse_program(settings.program)
    midi = roll_to_midi(roll, frame_beats, settings.bpm, settings.velocity, program)

    def write_wav(path: Path) -> None:
        import scipy.io.wavfile  # here, as it takes a quarter second, which a start can do without

        sound = synthesize(midi, seconds_of(roll, frame_beats, settings.bpm), origin.soundfont)
        scipy.io.wavfile.write(path, SAMPLE_RATE, sound)

    writers: dict[str, Callable[[Path], Any]] = {
        "mid": lambda path: midi.write(str(path)),
        "wav": write_wav,
        "png": lambda path: draw_roll(roll, frame_beats, title).savefig(
            path, format="png", dpi=120
        ),
        "musicxml": lambda path: write_score(path, roll, frame_beats, settings.bpm, title),
    }
    for name in origin.formats:
        with whole_file(f"{stem}.{name}") as temporary:
            writers[name](temporary)


def seconds_of(roll: np.ndarray, frame_beats: float, bpm: float) -> float:
    """Return how long a roll lasts."""
    return len(roll) * frame_beats * 60 / bpm


def say(found: Health) -> str:
    """Return what there is to say of a tune, in a line."""
    parts = [f"{found.notes} notes"]
    if found.lowest is not None and found.highest is not None:
        lowest, highest = map(pretty_midi.note_number_to_name, (found.lowest, found.highest))
        parts.append(f"{lowest} to {highest}")
    parts.append(f"silence {found.silent_share:.0%}")
    parts.append(f"longest hold {found.longest_repeat} frames")
    if not math.isnan(found.copied_share):
        parts.append(f"copied {found.copied_share:.0%}")
    return ", ".join(parts)


def parse_formats(text: str) -> tuple[str, ...]:
    """Return the formats of a list such as "mid,wav".

    Raises:
        InputError: one of them is none of ours.
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
    """Write folder/index.html with every tune there is in the folder `samples`; return its path.

    Args:
        folder: of the page.
        title: its heading.
        samples: the folder itself, or one within it.
        numbers: rows of a table: a label, its values on valid and test.
        picture: address of the loss curve.
        settings: of the run.
    """
    tunes = [read_tune(path, folder) for path in sorted(samples.glob("sample-*.json"), key=order)]
    path = folder / "index.html"
    write_page(path, title=title, tunes=tunes, numbers=numbers, picture=picture, settings=settings)
    return path


def order(path: Path) -> tuple[int, ...]:
    """Return what sorts tunes by seed and number."""
    return tuple(map(int, re.findall(r"\d+", path.stem)))


def read_tune(path: Path, folder: Path) -> Tune:
    """Return a tune for the page in `folder` from its .json.

    Raises:
        InputError: that is damaged, or another program's.
    """
    made = read_json(path)
    try:
        roll = np.zeros((made["frames"], K), dtype=bool)
        for note, start, end in made["notes"]:
            roll[start:end, note - LOWEST] = True
        stem = path.relative_to(folder).as_posix().removesuffix("json")
        files = tuple(stem + name for name in (*made["formats"], "json"))
        return Tune(
            title=f"Seed {made['seed']}, tune {made['tune']}",
            roll=roll,
            seconds=seconds_of(roll, made["frame_beats"], made["settings"]["bpm"]),
            sound=f"{stem}wav" if "wav" in made["formats"] else None,
            files=files,
            remarks=tuple(made["warnings"]),
        )
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise InputError(f"{path}: not the account of a sample ({error!r}); remove it") from None
