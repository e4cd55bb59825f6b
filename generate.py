"""Play a trained model: sample rolls, write them as MIDI, sound and picture.

python generate.py                                  four tunes from the newest run
python generate.py runs/20260101-120000-nottingham  from this run
python generate.py weights.safetensors --num_samples 8 --temperature 0.9 --seed 7
"""

import math
import secrets
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from tqdm import tqdm

from checkpoint import Record, find_weights, load_model, read_settings
from corpora import at_hand, load
from files import InputError, make_folder, run_program
from flags import Parser, add_flags
from heads import Choices, ChordHead
from keys import move
from machine import use_machine
from measures import known_windows
from model import PianoLSTM
from prompt import in_key, read_part, read_prompt
from samples import Origin, parse_formats, say, write_index, write_samples
from sampling import DrawFrame, above, below, freely, generators_of, sample
from settings import DataSettings, MachineSettings, PlaySettings, SampleSettings
from sound import usable_soundfont

BEATS_PER_BAR = 4


# ---- what is played ------------------------------------------------------------------------------


class Piece(NamedTuple):
    """What is asked of the model."""

    heard: np.ndarray  # (T, 88) bool, the music it starts from, in its own key
    frames: int  # of new music
    draw_frame: DrawFrame
    back: int  # semitones that the result is moved by
    max_hold: int = 0  # frames


def free_piece(model: PianoLSTM, record: Record, settings: SampleSettings) -> Piece:
    """Return new music after a primer or none.

    Raises:
        InputError: the primer can't be used.
    """
    frame_beats = record["frame_beats"]
    roll, back = read_prompt(settings, frame_beats, record["dataset"])
    frames, max_hold = count_frames(settings, frame_beats), hold_frames(settings, frame_beats)
    return Piece(roll, frames, freely(model.head, choices_of(settings)), back, max_hold)


def piece_of(
    model: PianoLSTM, record: Record, settings: SampleSettings, play: PlaySettings
) -> Piece:
    """Return what the flags of generate.py ask for.

    Raises:
        InputError: a file of theirs can't be used, or two of them exclude each other.
    """
    given = {name: getattr(settings, name) for name in ("primer_notes", "primer_midi")}
    given |= {n: getattr(play, n) for n in ("continue_from", "harmonize", "melody_over")}
    names = [f"--{name}" for name, value in given.items() if value is not None]
    if len(names) > 1:
        raise InputError(f"{', '.join(names)}: give one of them")
    piece = free_piece(model, record, settings)
    choices, frame_beats = choices_of(settings), record["frame_beats"]
    if play.continue_from is not None:
        whole = read_part("--continue_from", play.continue_from, frame_beats)
        return piece._replace(heard=whole)
    if play.harmonize is not None:
        if not isinstance(model.head, ChordHead):
            raise InputError(
                "--harmonize: this model's keys are independent; train one without --latent_size=0"
            )
        part = in_key(
            read_part("--harmonize", play.harmonize, frame_beats), settings, record["dataset"]
        )
        return Piece(piece.heard, len(part.roll), below(part.roll, model.head, choices), part.back)
    if play.melody_over is not None:
        part = in_key(
            read_part("--melody_over", play.melody_over, frame_beats), settings, record["dataset"]
        )
        return Piece(piece.heard, len(part.roll), above(part.roll, model.head, choices), part.back)
    return piece


def choices_of(settings: SampleSettings) -> Choices:
    """Return how freely the settings let the model draw."""
    chords = settings.chord_temperature
    return Choices(
        temperature=settings.temperature,
        chord_temperature=settings.temperature if chords is None else chords,
        top_p=settings.top_p,
        max_notes=settings.max_notes,
    )


def count_frames(settings: SampleSettings, frame_beats: float) -> int:
    """Return how many new frames of `frame_beats` beats a sample has."""
    beats = settings.seconds * settings.bpm / 60 if settings.beats is None else settings.beats
    beats = beats if settings.bars is None else settings.bars * BEATS_PER_BAR
    return max(1, round(beats / frame_beats))


def hold_frames(settings: SampleSettings, frame_beats: float) -> int:
    """Return for how many frames of `frame_beats` beats a chord may be held; 0 = for ever."""
    return math.ceil(settings.max_hold / frame_beats)


def sample_rolls(
    model: PianoLSTM,
    piece: Piece,
    settings: SampleSettings,
    seed: int,
    on_frames: Callable[[int], Any] = lambda _: None,
    threads: int = 0,
) -> list[np.ndarray]:
    """Sample the tunes that are asked for; return their rolls, what they start from included."""
    drawn = sample(
        model,
        piece.frames,
        generators_of(seed, settings.num_samples),
        piece.draw_frame,
        primer=torch.from_numpy(piece.heard),
        max_hold=piece.max_hold,
        threads=threads,
        on_frames=on_frames,
    )
    kept = piece.heard if settings.include_primer else piece.heard[:0]
    return [move(np.concatenate([kept, roll]), piece.back) for roll in drawn.numpy()]


# ---- the script ----------------------------------------------------------------------------------


def main(argv: Sequence[str] | None = None) -> int:
    """Read the flags, sample, write the files, name them."""
    parser = Parser(prog="generate.py", description="Play a trained model: MIDI, sound, picture.")
    parser.add_argument(
        "weights",
        nargs="?",
        help="a run's folder or a weights file; if not given, the newest run in runs/, or the model"
        " that comes with the program where there is none",
    )
    add_flags(parser, SampleSettings, PlaySettings, MachineSettings)
    flags = parser.parse_args(argv)
    settings = SampleSettings.from_flags(flags, parser)
    if len(lengths := [n for n in ("bars", "beats", "seconds") if hasattr(flags, n)]) > 1:
        parser.error(f"--{', --'.join(lengths)}: give one of them")
    play = PlaySettings.from_flags(flags, parser)
    machine = MachineSettings.from_flags(flags, parser)
    device = use_machine(machine)
    path = find_weights(flags.weights)
    model, record = load_model(path, device)
    seed = secrets.randbelow(2**31) if play.seed is None else play.seed
    if play.measure:
        given = bool(lengths)
        return measure_model(path, model, record, settings, play, seed, given)
    piece = piece_of(model, record, settings, play)
    soundfont, remark = usable_soundfont(play.soundfont)
    if remark:
        print(f"{remark}; playing with the built-in sound", file=sys.stderr)
    more = {name: getattr(play, name) for name in ("continue_from", "harmonize", "melody_over")}
    origin = Origin(
        path, record, seed, settings, more, parse_formats(play.formats), soundfont,
        training_windows(path, record),
    )  # fmt: skip
    folder = Path(play.output_dir)
    make_folder(folder)
    stems = [origin.stem(folder, tune) for tune in range(1, settings.num_samples + 1)]
    for stem in stems:
        taken = [*folder.glob(f"{stem.name}.*")]
        if taken and not play.force:
            raise InputError(
                f"{taken[0]}: is there already; give another --seed or --output_dir, or --force to"
                " write over it"
            )
    print(f"playing {path} (trained on {record['dataset']}) on {device}, seed {seed}")
    with tqdm(
        total=piece.frames * settings.num_samples,
        unit=" frames",
        leave=False,
        disable=None,  # none where nobody watches: no bars in log files
    ) as bar:
        rolls = sample_rolls(model, piece, settings, seed, bar.update, machine.threads)
    for stem, found in zip(stems, write_samples(rolls, folder, origin), strict=True):
        print(f"{stem}.{origin.formats[0]}  {say(found)}")
        for warning in found.warnings():
            print(f"  {warning}")
    print(f"listen  {write_index(folder, f'Played by {path.name}', folder)}")
    return 0


def measure_model(
    path: Path,
    model: PianoLSTM,
    record: Record,
    settings: SampleSettings,
    play: PlaySettings,
    seed: int,
    given: bool,
) -> int:
    """Compare many tunes with the test split, of its tunes' lengths or the one `given`."""
    # Here, as SciPy's statistics take a second to load, and all else is ready to start by then.
    from measuring import lengths_like, measure, sample_lengths

    corpus = load(data_of(path, record, {}), named=True)
    if corpus.fingerprint != record["fingerprint"]:
        raise InputError(f"{path}: its data are not at hand; put them where they were")
    lengths = lengths_like(corpus.splits["test"], play.measure)
    if given:
        lengths = [count_frames(settings, record["frame_beats"])] * play.measure
    generators, draw_frame = (
        generators_of(seed, play.measure),
        freely(model.head, choices_of(settings)),
    )
    max_hold = hold_frames(settings, record["frame_beats"])
    print(f"playing {play.measure} tunes of {path}, seed {seed}")
    with tqdm(total=play.measure, unit=" tunes", leave=False, disable=None) as bar:

        def draw(frames: int, tunes: list[int]) -> np.ndarray:
            chance = [generators[i] for i in tunes]
            drawn = sample(model, frames, chance, draw_frame, max_hold=max_hold)
            bar.update(len(tunes))
            return drawn.numpy()

        rolls = sample_lengths(lengths, draw)
    folder = Path(play.output_dir)
    make_folder(folder)
    print(measure(rolls, corpus, seed, folder))
    print(f"{folder}/measures.md, {folder}/measures.png")
    return 0


def training_windows(path: Path, record: Record) -> np.ndarray | None:
    """Return the windows of the tunes that a model learnt from; None if those are not at hand."""
    try:
        corpus = at_hand(data_of(path, record, {}))
    except InputError:
        return None
    if corpus is None or corpus.fingerprint != record["fingerprint"]:
        return None
    return known_windows(corpus.splits["train"])


def data_of(path: Path, record: Record, given: dict[str, Any]) -> DataSettings:
    """Return where the data are: as the flags say, or as the run of these weights had them.

    Raises:
        InputError: neither says so.
    """
    if not {"data", "dataset"} & given.keys():
        if (path.parent / "settings.json").is_file():
            given = asdict(read_settings(path.parent).data) | given
        if not given.get("data"):
            given = given | {"dataset": record["dataset"]}
    try:
        return DataSettings(**{"frame_beats": record["frame_beats"]} | given)
    except ValueError:
        raise InputError(f"{path}: trained on {record['dataset']}; say where with --data") from None


if __name__ == "__main__":
    run_program(main)
