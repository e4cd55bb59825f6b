"""Every setting of the program: its default, its range, and what it does.

This is the only place of a default. Each field below is also a flag of the same name: `main.py`
and `generate.py` make their flags with `flags.add_flags` and read them back with `from_flags`, and
a run keeps them all in its `settings.json`. Read this file first; nothing here imports torch.

The recipe (sizes, Adam, learning rate, clipping, seed) is that of "PianoLSTM: LSTM for piano notes
generation" (2021), which took its training loop from PyTorch's word-language-model example.
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Self

from groups import Group, setting

K = 88  # keys of a piano, the columns of a roll
LOWEST = 21  # MIDI number of column 0, A0
ALIGNED = ("nottingham", "jsb", "musedata", "piano_midi")  # the sets of which every tune is in C


@dataclass(frozen=True)
class DataSettings(Group):
    """Data: where the piano-rolls come from."""

    # The benchmark of Boulanger-Lewandowski et al. (2012), and Bach chorales that need no download.
    dataset: str = setting(
        "nottingham",
        "named set to train on, found in --data_dir or downloaded into it",
        choices=("nottingham", "jsb", "musedata", "piano_midi", "chorales"),
    )
    data: str | None = setting(
        None, "train on this instead: a pickle, .mat or .npz file, or a folder of MIDI files"
    )
    data_dir: str = setting(
        lambda: os.environ.get("PIANO_DATA_DIR") or "datasets",
        "folder of the named sets; PIANO_DATA_DIR in the environment sets it too",
    )
    # The benchmark's Nottingham has two frames a beat. Only MIDI leaves the choice to us.
    frame_beats: float = setting(
        0.5,
        "length of a frame in beats (0.5 = an eighth note), for --data; a named set has its own",
        at_least=0.01,
        at_most=16,
    )
    max_minutes: float = setting(
        30.0, "longest MIDI file that is read, in minutes", above=0, at_most=1440
    )


@dataclass(frozen=True)
class ModelSettings(Group):
    """Model: the sizes of embedding -> LSTM -> head."""

    embed_size: int = setting(300, "width of the frame's embedding", at_least=1, at_most=16384)
    hidden_size: int = setting(256, "width of the LSTM's state", at_least=1, at_most=16384)
    layers: int = setting(1, "LSTM layers, one upon the other", at_least=1, at_most=64)
    # In the original this flag did nothing. Here it is the capacity for harmony within a frame.
    latent_size: int = setting(
        16,
        "width of the layer through which a frame's notes see one another; 0 = the 88 keys are"
        " independent (Bernoulli head)",
        at_least=0,
        at_most=16384,
    )
    dropout: float = setting(0.0, "share of the LSTM's outputs dropped", at_least=0, below=1)
    input_dropout: float = setting(0.0, "share of the embedding dropped", at_least=0, below=1)
    memory: int = setting(
        0,
        "frames of the tune's own past that are searched for what is being repeated; 0 = none",
        at_least=0,
        at_most=2**16,
    )
    views: int = setting(
        3,
        "how the memory sees a frame: 1 = as keys, 2 = as intervals from the highest note too, 3 ="
        " and as intervals from the lowest",
        at_least=1,
        at_most=3,
    )
    heads: int = setting(
        3, "searches of the memory side by side, in each view", at_least=1, at_most=64
    )
    head_size: int = setting(64, "width of what each search compares", at_least=1, at_most=1024)
    match: int = setting(
        8,
        "last frames that a search compares directly, beside the LSTM's output",
        at_least=1,
        at_most=256,
    )
    view_dropout: float = setting(
        0.0,
        "share dropped of what the memory compares and finds, and of the intervals read",
        at_least=0,
        below=1,
    )
    upper_layers: int = setting(
        0, "LSTM layers above the memory, which hear what it found", at_least=0, at_most=64
    )
    intervals: bool = setting(
        False, "read and predict frames as intervals from the notes before, as well as as keys"
    )
    transpose: float = setting(
        0.0,
        "share of the training tunes moved to another key at random, the model being told by how"
        " much",
        at_least=0,
        at_most=1,
    )


@dataclass(frozen=True)
class TrainSettings(Group):
    """Training: Adam on the mean NLL per frame."""

    batch_size: int = setting(32, "tunes in a batch", at_least=1, at_most=2**20)
    lr: float = setting(0.001, "learning rate of Adam", above=0, at_most=10)
    epochs: int = setting(20, "passes over the training split", at_least=1, at_most=10**6)
    steps: int = setting(
        0,
        "as many epochs as come nearest to this many steps of Adam, in place of --epochs; 0 ="
        " --epochs",
        at_least=0,
        at_most=10**9,
    )
    bptt: int = setting(
        60, "frames that gradients flow back through; the state goes on; 0 = the tune", at_least=0
    )
    # 0.25 is the word-language-model example's; it tames the rare exploding gradient of an LSTM.
    clip: float = setting(
        0.25, "largest norm of a step's gradient (Pascanu et al. 2013); 0 = unclipped", at_least=0
    )
    warmup: float = setting(
        0.0,
        "share of training over which the learning rate rises to --lr, to fall to 0 from there; 0 ="
        " constant",
        at_least=0,
        below=1,
    )
    # Weights, optimizer, scoring and sampling stay in float32 (Micikevicius et al. 2018,
    # arXiv:1710.03740).
    precision: str = setting(
        "auto",
        "what training computes in; auto = bfloat16 where the machine has matrix units for it"
        " (AMX, or an NVIDIA GPU from Ampere on), else float32",
        choices=("auto", "float32", "bfloat16"),
    )


@dataclass(frozen=True)
class RunSettings(Group):
    """Run: what decides its numbers besides the recipe, and where its files go."""

    seed: int = setting(3111, "number all randomness is drawn from", at_least=0, below=2**63)
    run_dir: str | None = setting(
        None, "new or empty folder for the run's files; if not given, runs/<date>-<time>-<dataset>"
    )


@dataclass(frozen=True)
class MachineSettings(Group):
    """Machine: where to compute."""

    device: str = setting(
        "auto",
        "auto = the first of cuda, mps (Apple's GPU) and cpu that is there",
        choices=("auto", "cpu", "cuda", "mps"),
    )
    threads: int = setting(
        0,
        "CPU threads; 0 = one for each core, and one in all to draw a few tunes",
        at_least=0,
        at_most=1024,
    )


@dataclass(frozen=True)
class SampleSettings(Group):
    """Sampling: what the model is asked to play."""

    num_samples: int = setting(4, "tunes to play", at_least=1, at_most=4096)
    seconds: float = setting(30.0, "new music in each tune, in seconds", above=0, at_most=3600)
    beats: float | None = setting(
        None, "new music in each tune, in beats, in place of --seconds", above=0, at_most=36_000
    )
    bars: float | None = setting(
        None, "the same in bars of four beats, in place of both", above=0, at_most=9_000
    )
    temperature: float = setting(
        1.0,
        "1 = as the model believes, below 1 = safer, above 1 = bolder, 0 = always the likeliest",
        at_least=0,
        at_most=100,
    )
    chord_temperature: float | None = setting(
        None,
        "the same for the notes below the highest; if not given, that of --temperature",
        at_least=0,
        at_most=100,
    )
    # Chosen on the valid splits of Nottingham and JSB Chorales: samples come closer to real tunes
    # by the measures in which they were furthest off (number and range of pitches, repeats).
    top_p: float = setting(
        0.99,
        "draw only from the likeliest choices that have this probability together (Holtzman et al."
        " 2020)",
        above=0,
        at_most=1,
    )
    max_notes: int = setting(K, "notes that sound at once, at most", at_least=1, at_most=K)
    max_hold: float = setting(
        8.0,
        "beats of one chord, or of silence, after which another tune begins; 0 = never",
        at_least=0,
        at_most=36_000,
    )
    primer_notes: str | None = setting(
        None, "start from these: chords of one beat, as names or MIDI numbers, e.g. 'C4,E4,G4 67'"
    )
    primer_midi: str | None = setting(None, "start from the beginning of this MIDI file")
    primer_beats: float = setting(16.0, "beats of it, at most", above=0, at_most=36_000)
    include_primer: bool = setting(True, "leave what the tune starts from in the result")
    match_key: bool = setting(
        True, "move a MIDI file to the key that the model was trained in, and the result back"
    )
    key: str | None = setting(None, "move the result to this key: G, Bb, F#m")
    bpm: float = setting(120.0, "tempo in beats a minute", at_least=10, at_most=300)
    velocity: int = setting(80, "loudness of each note (MIDI velocity)", at_least=1, at_most=127)
    program: str = setting(
        "Acoustic Grand Piano", "instrument: a General MIDI program, by name or number, 0 to 127"
    )


@dataclass(frozen=True)
class PlaySettings(Group):
    """Playing: what `generate.py` needs besides."""

    seed: int | None = setting(
        None,
        "number the tunes are drawn from; drawn and printed when not given",
        at_least=0,
        below=2**63,
    )
    continue_from: str | None = setting(
        None, "go on from the end of this sample, and leave it in the result"
    )
    harmonize: str | None = setting(
        None, "play below the highest notes of this MIDI file, which are kept"
    )
    melody_over: str | None = setting(
        None, "play a melody above this MIDI file, of which all notes are kept"
    )
    measure: int = setting(
        0,
        "write no samples, but compare this many, as long as test tunes are, with those; 200 tell"
        " enough",
        at_least=0,
        at_most=10_000,
    )
    output_dir: str = setting("samples", "folder for sample-<seed>-<i>.mid and the like")
    formats: str = setting(
        "mid,wav,png", "files of each tune: any of mid, wav, png and musicxml, with commas between"
    )
    soundfont: str | None = setting(
        None, "play with the instruments of this .sf2 file, through FluidSynth if it is installed"
    )
    force: bool = setting(False, "write over samples that are there already")


@dataclass(frozen=True)
class Settings:
    """Everything a run is made from, as kept in its `settings.json`."""

    data: DataSettings
    model: ModelSettings
    train: TrainSettings
    run: RunSettings
    machine: MachineSettings
    sample: SampleSettings

    @classmethod
    def of(cls, make: Callable[[str, type[Group]], Any]) -> Self:
        """Make each group with `make(name, class)`."""
        return cls(**{name: make(name, group) for name, group in GROUPS.items()})

    @classmethod
    def from_dict(cls, values: Mapping[str, Mapping[str, Any]]) -> Self:
        """Make the settings from what `dataclasses.asdict` gave.

        Raises:
            ValueError: an unknown group or setting, or a value out of its range.
        """
        if unknown := set(values) - set(GROUPS):
            raise ValueError(f"unknown group of settings {', '.join(sorted(unknown))}")
        return cls.of(lambda name, group: group.from_dict(values.get(name, {})))


GROUPS: dict[str, type[Group]] = {
    "data": DataSettings,
    "model": ModelSettings,
    "train": TrainSettings,
    "run": RunSettings,
    "machine": MachineSettings,
    "sample": SampleSettings,
}
