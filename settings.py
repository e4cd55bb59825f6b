"""Every setting of the program: its default, its range and its effect. Read this file first.

A default appears only here. Each field below is also a command-line flag of the same name, and
`settings.json` in a run's folder keeps all of them. This file imports no torch.

The default recipe (sizes, Adam, learning rate, clipping, seed) is that of "PianoLSTM: LSTM for
piano notes generation" (2021), which took its training loop from PyTorch's word-language-model
example.
"""

import math
import os
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Self

from pianolstm.cli import SettingsGroup, setting
from pianolstm.files import InputError, one_line, read_json
from pianolstm.rolls import PITCHES


@dataclass(frozen=True)
class DataSettings(SettingsGroup):
    """Data: which piano-rolls to train on."""

    # The benchmark of Boulanger-Lewandowski et al. (2012), one set of it at sixteenth notes, and
    # the chorales that music21 carries.
    dataset: str = setting(
        "nottingham",
        "named data set to train on, read from --data_dir or downloaded into it",
        choices=("nottingham", "jsb", "musedata", "piano_midi", "jsb16", "chorales"),
    )
    data: str | None = setting(
        None,
        "your own data instead: a folder of MIDI files or scores, or a file of piano-rolls (pickle,"
        " JSON, .npy, .npz, .mat), or a .zip of these",
    )
    data_dir: str = setting(
        lambda: os.environ.get("PIANO_DATA_DIR") or "datasets",
        "folder of the named data sets; the environment variable PIANO_DATA_DIR sets it too",
    )
    frame_beats: float = setting(
        0.5,
        "length of a frame in beats (0.5 = an eighth note), for --data; a named set has its own",
        at_least=0.01,
        at_most=16,
    )
    frame_seconds: float | None = setting(
        None,
        "length of a frame in seconds, in place of --frame_beats, for music played without a click;"
        " samples are then in real time at 120 beats per minute",
        at_least=0.005,
        at_most=8,
    )
    min_frames: int = setting(
        0,
        "shortest note of a MIDI file in frames; 0 = a note that rounds to no frame vanishes, 1 ="
        " it is kept for one frame",
        at_least=0,
        at_most=64,
    )
    sustain: bool = setting(False, "let the sustain pedal of a MIDI file hold its notes")
    max_minutes: float = setting(
        30.0,
        "longest MIDI file to read, in minutes; longer ones are left out",
        above=0,
        at_most=1440,
    )


@dataclass(frozen=True)
class ModelSettings(SettingsGroup):
    """Model: sizes of embedding -> LSTM -> output head, and the optional attention."""

    embed_size: int = setting(300, "size of the frame embedding", at_least=1, at_most=16384)
    hidden_size: int = setting(256, "size of the LSTM's hidden state", at_least=1, at_most=16384)
    layers: int = setting(1, "number of stacked LSTM layers", at_least=1, at_most=64)
    # In the original this flag had no effect.
    latent_size: int = setting(
        16,
        "hidden units of the chord head, which model the dependence between the notes of a frame;"
        " 0 = independent Bernoulli outputs",
        at_least=0,
        at_most=16384,
    )
    dropout: float = setting(0.0, "dropout probability of the LSTM's outputs", at_least=0, below=1)
    recurrent_dropout: float = setting(
        0.0, "dropout probability of the LSTM's recurrent weights", at_least=0, below=1
    )
    embed_dropout: float = setting(
        0.0, "dropout probability of the frame embedding", at_least=0, below=1
    )
    attention_window: int = setting(
        0,
        "frames of the piece's own past that attention reaches back to; 0 = no attention",
        at_least=0,
        at_most=2**16,
    )
    viewpoints: int = setting(
        3,
        "representations of a frame that attention compares: 1 = absolute pitches, 2 = also"
        " intervals from the highest note, 3 = also intervals from the lowest note",
        at_least=1,
        at_most=3,
    )
    attention_heads: int = setting(3, "attention heads of each viewpoint", at_least=1, at_most=64)
    head_dim: int = setting(
        64, "size of the queries and keys of an attention head", at_least=1, at_most=1024
    )
    query_frames: int = setting(
        8,
        "most recent frames that enter queries and keys directly, beside the LSTM's output",
        at_least=1,
        at_most=256,
    )
    attention_dropout: float = setting(
        0.0,
        "dropout probability of attention's frame inputs and output, and of relative-pitch inputs",
        at_least=0,
        below=1,
    )
    upper_layers: int = setting(
        0, "LSTM layers above attention, which read its output", at_least=0, at_most=64
    )
    relative_pitch: bool = setting(
        False,
        "encode each frame also as intervals from the previous outer pitches, and add logits"
        " indexed by interval",
    )
    metrical_position: bool = setting(
        False,
        "give the LSTM the number of the frame, and the places of the bar where the bass has"
        " changed so far",
    )
    voice_leading: bool = setting(
        False,
        "let the chord head predict each note also from the note of the same voice in the frame"
        " before",
    )
    copy_candidates: int = setting(
        0,
        "whole frames that are proposed as the next one, because they followed the longest match of"
        " the latest frames with an earlier passage; 0 = none",
        at_least=0,
        at_most=16,
    )
    transpose_prob: float = setting(
        0.0,
        "probability that a training piece is transposed; the model is given the interval",
        at_least=0,
        at_most=1,
    )


# Settings of a model that trained weights allow to change; the others are sizes of theirs.
ADAPTABLE = (
    "dropout",
    "recurrent_dropout",
    "embed_dropout",
    "attention_dropout",
    "transpose_prob",
)


@dataclass(frozen=True)
class TrainSettings(SettingsGroup):
    """Training: Adam on the mean NLL per frame."""

    batch_size: int = setting(32, "pieces in a batch", at_least=1, at_most=2**20)
    lr: float = setting(0.001, "learning rate of Adam", above=0, at_most=10)
    epochs: int = setting(20, "passes over the training split", at_least=1, at_most=10**6)
    max_steps: int = setting(
        0,
        "optimizer steps, rounded to whole epochs, in place of --epochs; 0 = use --epochs",
        at_least=0,
        at_most=10**9,
    )
    bptt: int = setting(
        60,
        "frames of truncated back-propagation through time; the state is carried over; 0 = the"
        " whole piece",
        at_least=0,
    )
    # Wu et al. 2021, arXiv:2106.14448, compare two predictions under dropout alone.
    consistency: float = setting(
        0.0,
        "train on two random transpositions of each piece at once, and weight the divergence of"
        " their predictions by this; 0 = one, without",
        at_least=0,
        at_most=100,
    )
    # 0.25 is the word-language-model example's value (Pascanu et al. 2013, arXiv:1211.5063).
    clip: float = setting(0.25, "largest gradient norm of a step; 0 = no clipping", at_least=0)
    lr_schedule: str = setting(
        "constant",
        "constant = always --lr; onecycle = rise to --lr, then fall to 0 (Smith and Topin 2018)",
        choices=("constant", "onecycle"),
    )
    warmup_ratio: float = setting(
        0.3, "share of training over which onecycle rises to --lr", at_least=0, below=1
    )
    # Weights, optimizer, evaluation and sampling stay in float32 (Micikevicius et al. 2018,
    # arXiv:1710.03740).
    precision: str = setting(
        "auto",
        "number format of training; auto = bfloat16 where it is faster: on NVIDIA Ampere or later,"
        " and on CPUs with instructions for it if a measurement says so; else float32",
        choices=("auto", "float32", "bfloat16"),
    )
    # Prechelt 1998, "Early Stopping - But When?"
    patience: int = setting(
        0,
        "end training after this many epochs in a row without a new lowest validation NLL; 0 ="
        " train all epochs",
        at_least=0,
    )


@dataclass(frozen=True)
class RunSettings(SettingsGroup):
    """Run: the seed, the weights to start from, and where files go."""

    seed: int = setting(3111, "seed of all random numbers", at_least=0, below=2**63)
    init_from: str | None = setting(
        None,
        "trained weights to start from: a run's folder, a weights file, or nottingham or jsb, which"
        " come with the program; the model's sizes are theirs, the learning rate and the number of"
        " steps those of fine-tuning",
    )
    run_dir: str | None = setting(
        None, "new or empty folder for the run's files; default: runs/<date>-<time>-<dataset>"
    )
    tensorboard: bool = setting(
        False, "write event files for TensorBoard too; needs the package tensorboard"
    )


@dataclass(frozen=True)
class MachineSettings(SettingsGroup):
    """Machine: the device to compute on."""

    device: str = setting(
        "auto",
        "auto = the first available of cuda, mps (Apple's GPU) and cpu",
        choices=("auto", "cpu", "cuda", "mps"),
    )
    threads: int = setting(
        0,
        "CPU threads; 0 = one per core, but a single one to sample a few pieces",
        at_least=0,
        at_most=1024,
    )


@dataclass(frozen=True)
class SampleSettings(SettingsGroup):
    """Sampling: what to generate, and how."""

    num_samples: int = setting(4, "pieces to generate", at_least=1, at_most=4096)
    seconds: float = setting(
        120.0,
        "new music in each piece, in seconds, at most: the model predicts where a piece ends",
        above=0,
        at_most=3600,
    )
    beats: float | None = setting(
        None, "new music in each piece, in beats, in place of --seconds", above=0, at_most=36_000
    )
    bars: float | None = setting(
        None, "new music in each piece, in bars, in place of --seconds",
        above=0, at_most=9_000,
    )  # fmt: skip
    temperature: float = setting(
        1.0,
        "divides the logits: below 1 = safer, above 1 = bolder, 0 = greedy (always the most"
        " probable choice)",
        at_least=0,
        at_most=100,
    )
    chord_temperature: float | None = setting(
        None,
        "temperature of the notes below the highest; default: --temperature, at most 1"
        " (with --harmonize: --temperature)",
        at_least=0,
        at_most=100,
    )
    # Chosen on the validation splits of Nottingham and JSB Chorales: it improved the metrics in
    # which samples differed most from real pieces (number and range of pitches, repeats).
    top_p: float = setting(
        0.99,
        "nucleus sampling: choose among the most probable choices with this total probability"
        " (Holtzman et al. 2020)",
        above=0,
        at_most=1,
    )
    max_polyphony: int = setting(
        PITCHES, "largest number of notes that sound at once", at_least=1, at_most=PITCHES
    )
    medley: bool = setting(
        False, "fill the whole length with one piece after another, instead of one piece"
    )
    primer_notes: str | None = setting(
        None,
        "notes to start from, as names or MIDI numbers, r for a rest; a comma joins a chord, a"
        " colon precedes the length in beats (default 1): 'C4:2 E4 r C4,E4,G4:0.5'",
    )
    primer_midi: str | None = setting(
        None, "MIDI, MusicXML or ABC file whose beginning to start from"
    )
    primer_beats: float = setting(
        16.0, "beats of --primer_midi to use, at most", above=0, at_most=36_000
    )
    include_primer: bool = setting(True, "keep the primer in the result")
    normalize_key: bool = setting(
        True,
        "transpose a given file to the key of the training data for the model, and what it"
        " generates back",
    )
    key: str | None = setting(
        None,
        "key of the result, such as G, Bb or F#m: samples in it are chosen, given music is"
        " transposed to it; default: that of the given file, else the model's",
    )
    metre: str | None = setting(
        None, "time signature of the result, such as 6/8; default: that of the given file, if any"
    )
    bpm: float | None = setting(
        None,
        "tempo in quarter notes per minute; default: that of the given file, else 120",
        at_least=10,
        at_most=300,
    )
    velocity: int = setting(80, "MIDI velocity of each note", at_least=1, at_most=127)
    program: str = setting(
        "Acoustic Grand Piano",
        "General MIDI instrument: number from 0 to 127, or (part of a) name",
    )


@dataclass(frozen=True)
class PlaySettings(SettingsGroup):
    """Generation: further flags of generate.py."""

    seed: int | None = setting(
        None, "seed of the samples; default: a random one, which is printed",
        at_least=0, below=2**63,
    )  # fmt: skip
    continue_from: str | None = setting(
        None, "MIDI, MusicXML or ABC file to continue from its end, and to keep in the result"
    )
    harmonize: str | None = setting(
        None, "MIDI, MusicXML or ABC file whose highest notes are the melody to generate chords for"
    )
    melody_over: str | None = setting(
        None, "MIDI, MusicXML or ABC file to generate a melody over; all its notes are kept"
    )
    chords: str | None = setting(
        None,
        "chords to play, and to generate a melody over: 'C | Am F | G7 | C', with bars between |,"
        " or a text file of them",
    )
    infill: str | None = setting(
        None,
        "MIDI, MusicXML or ABC file whose bars --from_bar to --to_bar are composed anew, so that"
        " they lead into what follows",
    )
    from_bar: int | None = setting(
        None, "first bar to compose anew, for --infill; an upbeat is no bar", at_least=1,
        at_most=9_000,
    )  # fmt: skip
    to_bar: int | None = setting(
        None, "last bar to compose anew; default: --from_bar", at_least=1, at_most=9_000
    )
    particles: int = setting(
        64,
        "continuations that compete to fill the bars of --infill; 1 = a plain continuation",
        at_least=1,
        at_most=4096,
    )
    average_keys: bool = setting(
        False,
        "average the probabilities of each frame over twelve transpositions, which predicts real"
        " music better; for models trained with --transpose_prob",
    )
    surprise: str | None = setting(
        None,
        "write no samples, but how surprising the model finds each note of this MIDI, MusicXML or"
        " ABC file: tables, a picture, and its place among the test pieces",
    )
    evaluate_samples: int = setting(
        0,
        "write no samples, but compare this many with the test split, piece lengths alike; 200 are"
        " enough",
        at_least=0,
        at_most=10_000,
    )
    output_dir: str = setting("samples", "folder for sample-<seed>-<i>.mid and its other formats")
    formats: str = setting(
        "mid,wav,png,musicxml,svg",
        "file formats of each sample, any of mid, wav, png, musicxml and svg, the engraved score",
    )
    soundfont: str | None = setting(
        None, "SoundFont (.sf2) to render .wav files with; default: a General MIDI bank"
    )
    overwrite: bool = setting(False, "replace existing samples of the same name")


@dataclass(frozen=True)
class Settings:
    """Everything that defines a run, as kept in its `settings.json`."""

    data: DataSettings
    model: ModelSettings
    train: TrainSettings
    run: RunSettings
    machine: MachineSettings
    sample: SampleSettings

    @classmethod
    def build(cls, make: Callable[[str, type[SettingsGroup]], Any]) -> Self:
        """Return settings whose groups are `make(name, class)`."""
        return cls(**{name: make(name, group) for name, group in GROUPS.items()})

    @classmethod
    def from_dict(cls, values: Mapping[str, Mapping[str, Any]]) -> Self:
        """Return the settings from the output of `dataclasses.asdict`.

        Raises:
            ValueError: an unknown group or setting, or a value out of range.
        """
        if unknown := set(values) - set(GROUPS):
            raise ValueError(f"unknown group of settings {', '.join(sorted(unknown))}")
        return cls.build(lambda name, group: group.from_dict(values.get(name, {})))

    @classmethod
    def of_run(cls, folder: Path) -> Self:
        """Return the settings of the run in a folder.

        Raises:
            InputError: the folder is no run, or a setting is unknown or out of range.
        """
        path = folder / "settings.json"
        if not path.is_file():
            raise InputError(f"{folder}: not the folder of a run (no settings.json)")
        try:
            return cls.from_dict(read_json(path)["settings"])
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise InputError(f"{path}: not the settings of a run ({one_line(error)})") from None


GROUPS: dict[str, type[SettingsGroup]] = {
    "data": DataSettings,
    "model": ModelSettings,
    "train": TrainSettings,
    "run": RunSettings,
    "machine": MachineSettings,
    "sample": SampleSettings,
}


# ---- presets -------------------------------------------------------------------------------------


def best_preset(frames: int) -> dict[str, Any]:
    """Return the recipe for a low NLL in minutes on 2 CPU cores.

    Chosen on the validation splits of Nottingham and JSB Chorales. What depends on the data set
    depends only on its number of training frames: the fewer, the more dropout and transposition,
    and the fewer steps. docs/results.md has the ablation.

    Args:
        frames: frames of the training split.
    """
    # 0 from 262,144 frames on, 0.14 for Nottingham, 1 for JSB Chorales: 0.25 for each halving.
    scarcity = min(max(math.log2(2**18 / frames) / 4, 0.0), 1.0)
    small = scarcity > 0.25  # fewer than 131,072 frames
    return {
        "embed_size": 128,
        "hidden_size": 384,
        "latent_size": 128,
        # Attention of an LSTM over its own past (Grave et al. 2017, arXiv:1612.04426) with a bias
        # for each lag (Raffel et al. 2020, arXiv:1910.10683).
        "attention_window": 1024,
        "attention_heads": 2,
        "head_dim": 48,
        # The upper LSTM learns whether attention's recent predictions came true.
        "upper_layers": 1,
        # Intervals generalise over transposition (Lattner et al. 2018, arXiv:1806.08236).
        "relative_pitch": True,
        # Without it, attention identifies the training piece from its repeats and overfits.
        "attention_dropout": round(0.38 + 0.12 * scarcity, 2),
        # On non-recurrent connections only (Zaremba et al. 2014, arXiv:1409.2329).
        "dropout": round(0.48 + 0.22 * scarcity, 2),
        "recurrent_dropout": 0.3 if small else 0.0,
        # Samples keep count of the bar by it, but it helps to memorise small sets.
        "metrical_position": not small,
        "voice_leading": small,
        # Real pieces repeat whole sections to the frame.
        "copy_candidates": 2,
        # The benchmark's pieces are in C: without transposition most pitches would be rare.
        "transpose_prob": round(0.53 + 0.47 * scarcity, 2),
        # Against memorising each key by itself, at twice the computation: it gained 0.07 on JSB
        # Chorales and nothing on Piano-midi.de, so only below 32,768 frames.
        "consistency": 0.5 if scarcity > 0.75 else 0.0,
        "batch_size": 16,
        "max_steps": round(9_200 - 5_600 * scarcity),
        "lr": 0.0025,
        "lr_schedule": "onecycle",
        "warmup_ratio": 0.3,
    }


# Each preset maps the number of training frames to values that replace defaults.
PRESETS: dict[str, Callable[[int], dict[str, Any]]] = {
    "default": lambda frames: {},
    "best": best_preset,
}


def fine_tuning(frames: int) -> dict[str, Any]:
    """Return the recipe of --init_from, gentler and shorter than training from nothing.

    Chosen on validation tunes of music21's Ryan's Mammoth Collection (docs/training.md): about 18
    passes over a small set. Dropout and transposition are those of the weights.

    Args:
        frames: frames of the training split.
    """
    return {
        "batch_size": 4,
        "lr": 0.001,
        "lr_schedule": "onecycle",
        "max_steps": min(max(frames // 10, 100), 4_000),
    }


def with_preset(settings: Settings, preset: str, given: Collection[str], frames: int) -> Settings:
    """Return the settings with a preset's values in place of those that the user did not give.

    Args:
        settings: the user's values over the defaults.
        preset: name of the preset.
        given: names of the settings that the user gave. --epochs overrides a preset's `max_steps`.
        frames: frames of the training split.
    """
    return with_values(settings, PRESETS[preset](frames), given)


def with_values(settings: Settings, values: Mapping[str, Any], given: Collection[str]) -> Settings:
    """Return the settings with these values in place of those that the user did not give.

    Args:
        settings: the user's values over the defaults.
        values: by name of the setting. --epochs overrides `max_steps`.
        given: names of the settings that the user gave.
    """
    values = dict(values)
    if "epochs" in given:
        values.pop("max_steps", None)
    values = {name: value for name, value in values.items() if name not in given}

    def make(name: str, group: type[SettingsGroup]) -> Any:
        names = {field.name for field in fields(group)}
        own = {name: value for name, value in values.items() if name in names}
        return replace(getattr(settings, name), **own)

    return Settings.build(make)
