"""Play a trained model: sample rolls, write them as MIDI, sound and picture.

python generate.py                                  four tunes from the newest run
python generate.py runs/20260101-120000-nottingham  from this run
python generate.py weights.safetensors --num_samples 8 --temperature 0.9 --seed 7
"""

import re
import secrets
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pretty_midi
import scipy.io.wavfile
import torch
from matplotlib.collections import PatchCollection
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator
from tqdm import tqdm

from checkpoint import find_weights, load_model, use_machine
from files import InputError, make_folder, run_program, whole_file
from flags import Parser, add_flags
from midi import held_notes, roll_to_midi
from model import Choices, PianoLSTM
from sampling import freely, generators_of, sample
from settings import LOWEST, K, MachineSettings, PlaySettings, SampleSettings

SAMPLE_RATE = 44_100  # Hz
PEAK = 0.9  # of full scale


# ---- primers -------------------------------------------------------------------------------------


def parse_chords(text: str, frames_per_chord: int) -> np.ndarray:
    """Return the roll of chords such as "C4,E4,G4 67", (T, 88) bool, column 0 = MIDI 21.

    Notes of a chord are joined by commas, chords by spaces; a note is a name (C4 = 60, F#3, Bb5) or
    a MIDI number.

    Raises:
        InputError: a word that is no note, or a note off the 88 keys.
    """
    chords = re.sub(r"\s*,\s*", ",", text).split()
    roll = np.zeros((len(chords) * frames_per_chord, K), dtype=bool)
    for index, chord in enumerate(chords):
        for word in chord.split(","):
            try:
                number = int(word) if word.isdigit() else pretty_midi.note_name_to_number(word)
            except ValueError:
                raise InputError(
                    f"--primer_notes: {word!r} is no note; write C4, F#3, Bb5 or a MIDI number"
                ) from None
            if not LOWEST <= number < LOWEST + K:
                raise InputError(f"--primer_notes: {word!r} is off the 88 keys, MIDI 21 to 108")
            roll[index * frames_per_chord : (index + 1) * frames_per_chord, number - LOWEST] = True
    return roll


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


# ---- samples as files ----------------------------------------------------------------------------


def sample_rolls(
    model: PianoLSTM,
    settings: SampleSettings,
    seed: int,
    frame_beats: float,
    on_frame: Callable[[], Any] = lambda: None,
) -> list[np.ndarray]:
    """Sample the tunes that the settings ask for; return their rolls, the primer first.

    Raises:
        InputError: the primer is not made of notes on the 88 keys.
    """
    primer = primer_roll(settings, frame_beats)
    drawn = sample(
        model,
        count_frames(settings, frame_beats),
        generators_of(seed, settings.num_samples),
        freely(model.head, choices_of(settings)),
        primer=torch.from_numpy(primer),
        on_frame=on_frame,
    )
    return [np.concatenate([primer, roll]) for roll in drawn.numpy()]


def choices_of(settings: SampleSettings) -> Choices:
    """Return how freely the settings let the model draw."""
    chords = settings.chord_temperature
    return Choices(
        temperature=settings.temperature,
        chord_temperature=settings.temperature if chords is None else chords,
        top_p=settings.top_p,
        max_notes=settings.max_notes,
    )


def write_samples(
    rolls: Sequence[np.ndarray],
    folder: Path,
    settings: SampleSettings,
    seed: int,
    frame_beats: float,
    title: str,
) -> list[Path]:
    """Write rolls as sample-<seed>-<i>.mid, .wav and .png; return the MIDI files."""
    paths = []
    for index, roll in enumerate(rolls, start=1):
        path = folder / f"sample-{seed}-{index}.mid"
        write_sample(path, roll, frame_beats, settings, f"{title}, seed {seed}, tune {index}")
        paths.append(path)
    return paths


def primer_roll(settings: SampleSettings, frame_beats: float) -> np.ndarray:
    """Return the roll that samples start from, (T, 88) bool, T = 0 for silence alone.

    Raises:
        InputError: it is not made of notes on the 88 keys.
    """
    return parse_chords(settings.primer_notes or "", max(1, round(1 / frame_beats)))


def count_frames(settings: SampleSettings, frame_beats: float) -> int:
    """Return how many new frames of `frame_beats` beats a sample has."""
    return max(1, round(settings.seconds * settings.bpm / 60 / frame_beats))


def write_sample(
    path: Path, roll: np.ndarray, frame_beats: float, settings: SampleSettings, title: str
) -> None:
    """Write one roll as MIDI, and as sound and picture beside it."""
    midi = roll_to_midi(roll, frame_beats, settings.bpm, settings.velocity, settings.program)
    sound = synthesize(midi, len(roll) * frame_beats * 60 / settings.bpm)
    with whole_file(path) as temporary:
        midi.write(str(temporary))
    with whole_file(path.with_suffix(".wav")) as temporary:
        scipy.io.wavfile.write(temporary, SAMPLE_RATE, sound)
    with whole_file(path.with_suffix(".png")) as temporary:
        draw_roll(roll, frame_beats, title).savefig(temporary, format="png", dpi=120)


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
    play = PlaySettings.from_flags(flags, parser)
    device = use_machine(MachineSettings.from_flags(flags, parser))
    path = find_weights(flags.weights)
    model, record = load_model(path, device)
    seed = secrets.randbelow(2**31) if play.seed is None else play.seed
    frame_beats = record["frame_beats"]
    primer_roll(settings, frame_beats)  # a wrong one is better known before anything is made
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
        total=count_frames(settings, frame_beats),
        unit=" frames",
        leave=False,
        disable=None,  # none where nobody watches: no bars in log files
    ) as bar:
        rolls = sample_rolls(model, settings, seed, frame_beats, bar.update)
    for written in write_samples(rolls, folder, settings, seed, frame_beats, record["dataset"]):
        print(f"{written} (.wav, .png)")
    return 0


if __name__ == "__main__":
    run_program(main)
