"""Play a trained model: sample rolls, write them as MIDI, sound and picture.

python generate.py                                  four tunes from the newest run
python generate.py runs/20260101-120000-nottingham  from this run
python generate.py weights.safetensors --num_samples 8 --temperature 0.9 --seed 7
"""

import secrets
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pretty_midi
import scipy.io.wavfile
import torch
from matplotlib.collections import PatchCollection
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator
from tqdm import tqdm

from checkpoint import Record, find_weights, load_model, use_machine
from files import InputError, make_folder, run_program, whole_file
from flags import Parser, add_flags
from keys import move
from midi import held_notes, roll_to_midi
from model import Choices, ChordHead, PianoLSTM
from prompt import in_key, read_part, read_prompt
from sampling import DrawFrame, above, below, freely, generators_of, sample
from score import write_score
from settings import LOWEST, K, MachineSettings, PlaySettings, SampleSettings

SAMPLE_RATE = 44_100  # Hz
PEAK = 0.9  # of full scale
FORMATS = ("mid", "wav", "png", "musicxml")
BEATS_PER_BAR = 4


# ---- sound and picture ---------------------------------------------------------------------------


def struck_string(phase: np.ndarray) -> np.ndarray:
    """Return the wave of a struck string at these phases, in radians from the blow.

    The sum of eight partials, the k-th at amplitude 1/k and gone k times as fast; a stiff string's
    partials are a little sharp, f_k = k f sqrt(1 + B k^2) (Fletcher and Rossing, "The Physics of
    Musical Instruments", section 12.3). Partials that the sample rate can't hold are left out.
    pretty_midi adds the decay of the whole note.
    """
    stiffness, decay = 4e-4, 1.2e-3  # B, and the first partial's decay for each radian
    wave, step = np.zeros_like(phase), phase[1] if len(phase) > 1 else 0.0
    for k in range(1, 9):
        partial = k * np.sqrt(1 + stiffness * k * k)
        if partial * step < np.pi:  # below half the sample rate
            wave += np.sin(partial * phase) * np.exp(-decay * k * phase) / k
    return wave


def synthesize(midi: pretty_midi.PrettyMIDI, seconds: float) -> np.ndarray:
    """Return the sound of a MIDI, (seconds * 44100,) int16, peak 0.9; silence is zeros."""
    sound = np.zeros(round(seconds * SAMPLE_RATE))
    if any(instrument.notes for instrument in midi.instruments):
        notes = midi.synthesize(fs=SAMPLE_RATE, wave=struck_string)[: len(sound)]
        sound[: len(notes)] = notes
        # Speakers click where a wave is cut off; a hundredth of a second of fading hides it.
        fade = min(len(sound), SAMPLE_RATE // 100)
        sound[len(sound) - fade :] *= np.linspace(1, 0, fade)
        sound *= PEAK * np.iinfo(np.int16).max / max(np.abs(sound).max(), 1e-9)
    return sound.round().astype(np.int16)


def draw_roll(roll: np.ndarray, frame_beats: float, title: str) -> Figure:
    """Draw a roll, (T, 88) bool, as a figure: time in beats, pitch by name, white keys shaded."""
    sounding = np.flatnonzero(roll.any(axis=0)) if roll.any() else np.array([39, 51])  # C4, C5
    low, high = max(int(sounding[0]) - 2, 0), min(int(sounding[-1]) + 2, K - 1)
    beats = len(roll) * frame_beats
    figure = Figure(figsize=(12, 4), layout="constrained")
    axes = figure.add_subplot()
    for key in range(low, high + 1):
        if (key + LOWEST) % 12 in (0, 2, 4, 5, 7, 9, 11):  # the white keys
            axes.axhspan(key - 0.5, key + 0.5, color="#eef1f4", linewidth=0)
    axes.vlines(np.arange(0, beats, 4), low - 0.5, high + 0.5, color="white", linewidth=1, zorder=1)
    bars = PatchCollection(
        [
            Rectangle((start * frame_beats, key - 0.42), (end - start) * frame_beats, 0.84)
            for key, start, end in held_notes(roll)
        ],
        facecolor="#1f5f8b",
        edgecolor="white",
        linewidth=0.5,
        zorder=2,
    )
    axes.add_collection(bars)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=16, steps=[1, 2, 4, 8], integer=True))
    named = [key for key in range(low, high + 1) if (key + LOWEST) % 12 == 0]  # every C,
    named = named or [int(sounding[0])]  # or the lowest note where none is in sight
    axes.set_yticks(named, [pretty_midi.note_number_to_name(key + LOWEST) for key in named])
    axes.set(title=title, xlabel="time (beats)", ylabel="pitch")
    axes.set(xlim=(0, beats), ylim=(low - 0.5, high + 0.5))
    axes.spines[["top", "right"]].set_visible(False)
    return figure


# ---- what is played ------------------------------------------------------------------------------


class Piece(NamedTuple):
    """What is asked of the model."""

    heard: np.ndarray  # (T, 88) bool, the music it starts from, in its own key
    frames: int  # of new music
    draw_frame: DrawFrame
    back: int  # semitones that the result is moved by


def free_piece(model: PianoLSTM, record: Record, settings: SampleSettings) -> Piece:
    """Return new music after a primer or none.

    Raises:
        InputError: the primer can't be used.
    """
    frame_beats = record["frame_beats"]
    roll, back = read_prompt(settings, frame_beats, record["dataset"])
    frames = count_frames(settings, frame_beats)
    return Piece(roll, frames, freely(model.head, choices_of(settings)), back)


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


def sample_rolls(
    model: PianoLSTM,
    piece: Piece,
    settings: SampleSettings,
    seed: int,
    on_frame: Callable[[], Any] = lambda: None,
) -> list[np.ndarray]:
    """Sample the tunes that are asked for; return their rolls, what they start from included."""
    drawn = sample(
        model,
        piece.frames,
        generators_of(seed, settings.num_samples),
        piece.draw_frame,
        primer=torch.from_numpy(piece.heard),
        on_frame=on_frame,
    )
    kept = piece.heard if settings.include_primer else piece.heard[:0]
    return [move(np.concatenate([kept, roll]), piece.back) for roll in drawn.numpy()]


# ---- samples as files ----------------------------------------------------------------------------


def write_samples(
    rolls: Sequence[np.ndarray],
    folder: Path,
    settings: SampleSettings,
    seed: int,
    frame_beats: float,
    title: str,
    formats: Sequence[str] = FORMATS[:3],
) -> list[Path]:
    """Write rolls as sample-<seed>-<i>.mid, .wav and so on; return their paths without ending."""
    stems = []
    for index, roll in enumerate(rolls, start=1):
        stem = folder / f"sample-{seed}-{index}"
        heading = f"{title}, seed {seed}, tune {index}"
        write_sample(stem, roll, frame_beats, settings, heading, formats)
        stems.append(stem)
    return stems


def write_sample(
    stem: Path,
    roll: np.ndarray,
    frame_beats: float,
    settings: SampleSettings,
    title: str,
    formats: Sequence[str],
) -> None:
    """Write one roll in each of the formats."""
    midi = roll_to_midi(roll, frame_beats, settings.bpm, settings.velocity, settings.program)

    def write_wav(path: Path) -> None:
        seconds = len(roll) * frame_beats * 60 / settings.bpm
        scipy.io.wavfile.write(path, SAMPLE_RATE, synthesize(midi, seconds))

    writers: dict[str, Callable[[Path], Any]] = {
        "mid": lambda path: midi.write(str(path)),
        "wav": write_wav,
        "png": lambda path: draw_roll(roll, frame_beats, title).savefig(
            path, format="png", dpi=120
        ),
        "musicxml": lambda path: write_score(path, roll, frame_beats, settings.bpm, title),
    }
    for name in formats:
        with whole_file(f"{stem}.{name}") as temporary:
            writers[name](temporary)


def parse_formats(text: str) -> tuple[str, ...]:
    """Return the formats of a list such as "mid,wav".

    Raises:
        InputError: one of them is none of ours.
    """
    names = tuple(dict.fromkeys(word.strip().lower() for word in text.split(",")))
    if unknown := [name for name in names if name not in FORMATS]:
        raise InputError(f"--formats: {unknown[0]!r} is not one of {', '.join(FORMATS)}")
    return names


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
    device = use_machine(MachineSettings.from_flags(flags, parser))
    path = find_weights(flags.weights)
    model, record = load_model(path, device)
    seed = secrets.randbelow(2**31) if play.seed is None else play.seed
    piece, formats = piece_of(model, record, settings, play), parse_formats(play.formats)
    folder = Path(play.output_dir)
    make_folder(folder)
    for index in range(1, settings.num_samples + 1):
        taken = [*folder.glob(f"sample-{seed}-{index}.*")]
        if taken and not play.force:
            raise InputError(
                f"{taken[0]}: is there already; give another --seed or --output_dir, or --force to"
                " write over it"
            )
    print(f"playing {path} (trained on {record['dataset']}) on {device}, seed {seed}")
    with tqdm(
        total=piece.frames,
        unit=" frames",
        leave=False,
        disable=None,  # none where nobody watches: no bars in log files
    ) as bar:
        rolls = sample_rolls(model, piece, settings, seed, bar.update)
    frame_beats, title = record["frame_beats"], record["dataset"]
    for stem in write_samples(rolls, folder, settings, seed, frame_beats, title, formats):
        print(f"{stem}.{formats[0]}" + f" (.{', .'.join(formats[1:])})" * (len(formats) > 1))
    return 0


if __name__ == "__main__":
    run_program(main)
