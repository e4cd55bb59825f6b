"""Generate music with a trained model: sample frames, write them as MIDI, sound and picture.

python generate.py                                  four pieces from the newest run
python generate.py runs/20260101-120000-nottingham  from this run
python generate.py weights.safetensors --num_samples 8 --temperature 0.9 --seed 7

Frames are sampled one after another: each from the model's distribution given all frames before
it, and then read by the model (RNN-NADE, Boulanger-Lewandowski et al. 2012).
"""

import math
import secrets
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from data import load, load_if_present, training_data
from model import PianoLSTM
from pianolstm.checkpoint import find_weights
from pianolstm.cli import Parser, add_flags
from pianolstm.conditioning import (
    FrameSampler,
    Primer,
    harmonize,
    melody_over,
    parse_chords,
    read_music,
    to_model_key,
    unconditional,
)
from pianolstm.files import InputError, make_folder
from pianolstm.inputs.datasets import IN_C
from pianolstm.layers.heads import UNIFORMS_PER_FRAME, ChordHead, SamplingParams
from pianolstm.metrics.copying import window_hashes
from pianolstm.midi import parse_program
from pianolstm.outputs.audio import find_soundfont
from pianolstm.outputs.samples import Origin, parse_formats, write_index, write_samples
from pianolstm.rolls import PITCHES
from pianolstm.runtime import (
    choose_device,
    make_generators,
    next_generator,
    run_script,
    sampling_threads,
)
from pianolstm.tonality import transpose
from settings import DataSettings, MachineSettings, PlaySettings, SampleSettings

BEATS_PER_BAR = 4
NOISE_FRAMES = 16  # frames whose random numbers are drawn at once


# ---- sampling ------------------------------------------------------------------------------------


@torch.inference_mode()
def sample_frames(
    model: PianoLSTM,
    frames: Tensor,
    generators: Sequence[torch.Generator],
    sample_frame: FrameSampler,
    primer: Tensor | None = None,
    max_hold: int = 0,
    on_frames: Callable[[int], Any] = lambda count: None,
) -> tuple[Tensor, Tensor]:
    """Sample frames autoregressively, several pieces side by side.

    Args:
        model: in evaluation mode.
        frames: (B,) int64, new frames wanted in each piece.
        generators: B random generators on the CPU, the only source of randomness. A piece is the
            same whatever other pieces are sampled beside it.
        sample_frame: samples one frame.
        primer: (T, 88) frames that the model reads first; None = silence alone.
        max_hold: a piece ends once it has held one chord, or silence, for this many frames; 0 = no
            limit.
        on_frames: called with the number of frames sampled since the last call.

    Returns:
        (B, T, 88) bool without the primer, and the frames of each piece, (B,) int64.
    """
    device, rows = next(model.parameters()).device, len(generators)
    inputs = torch.zeros(rows, 1, PITCHES, device=device)  # a piece starts from silence
    if primer is not None:
        inputs = torch.cat([inputs, primer.to(inputs).expand(rows, -1, -1)], dim=1)
    longest, reported = int(frames.max()), 0
    sampled = torch.zeros(rows, longest, PITCHES, dtype=torch.bool, device=device)
    lengths = frames.to(device)
    held = torch.zeros(rows, dtype=torch.int64, device=device)  # frames of the current chord
    previous = inputs.new_zeros(rows, PITCHES)
    vectors, state = model(inputs)  # (B, T, H)
    for start in range(0, longest, NOISE_FRAMES):
        uniforms = torch.stack(
            [torch.rand(NOISE_FRAMES, UNIFORMS_PER_FRAME, generator=g) for g in generators]
        )
        block: list[Tensor] = []  # (B, P) each
        # unbind is faster than slicing each frame: a slice takes as long as a small addition.
        for t, uniform in enumerate(uniforms.to(device).unbind(1)[: longest - start], start):
            frame = sample_frame(vectors[:, -1], uniform, t)  # (B, P)
            block.append(frame)
            if max_hold:
                held = held * (frame == previous).all(dim=1) + 1
                ended = lengths.clamp(max=t + 1)
                previous, lengths = frame, lengths.where(held < max_hold, ended)
            if t < longest - 1:
                vectors, state = model(frame[:, None], state)
        stop = start + len(block)
        sampled[:, start:stop] = torch.stack(block, dim=1)
        done = int(lengths.clamp(max=stop).sum())
        on_frames(done - reported)
        reported = done
        if not (lengths > stop).any():
            break
    return sampled.cpu(), lengths.cpu()


def sample_rolls(
    model: PianoLSTM,
    frames: int,
    generators: Sequence[torch.Generator],
    sample_frame: FrameSampler | None = None,
    *,
    primer: Tensor | None = None,
    max_hold: int = 0,
    threads: int = 0,
    on_frames: Callable[[int], Any] = lambda count: None,
) -> Tensor:
    """Sample pieces one after another until each roll has its frames.

    The model has not learnt what follows the end of a piece: it holds the last chord. So with
    `max_hold`, a piece that has held one chord for so long has ended, and another begins.

    Args:
        model: in evaluation mode.
        frames: new frames of each roll.
        generators: B random generators, one per roll.
        sample_frame: samples one frame; None = from the model's distribution.
        primer: (T, 88) frames before the first piece; None = silence alone.
        max_hold: frames; 0 = a single piece, however long it holds a chord.
        threads: CPU threads; 0 = one for a few pieces, else PyTorch's number.
        on_frames: called with numbers of frames, B * frames in all, for a progress bar.

    Returns:
        (B, frames, 88) bool, without the primer.
    """
    sample_frame = sample_frame or unconditional(model.head)
    rolls = torch.zeros(len(generators), frames, PITCHES, dtype=torch.bool)
    sources, done = list(generators), torch.zeros(len(generators), dtype=torch.int64)
    while len(rows := (done < frames).nonzero()[:, 0].tolist()):
        chosen = [sources[row] for row in rows]
        with sampling_threads(len(rows), threads):
            pieces, lengths = sample_frames(
                model, frames - done[rows], chosen, sample_frame, primer, max_hold, on_frames
            )
        for row, piece, length in zip(rows, pieces, lengths.tolist(), strict=True):
            rolls[row, done[row] : done[row] + length] = piece[:length]
            sources[row] = next_generator(sources[row])
        done[rows] += lengths
        primer = None
    return rolls


def sample(
    model: PianoLSTM, seed: int = 0, *, threads: int = 0, **settings: Any
) -> list[np.ndarray]:
    """Sample pieces as generate.py does; the entry point for notebooks.

        [roll] = sample(PianoLSTM.load(), seed=7, num_samples=1, bars=8, temperature=0.9)

    Args:
        model: a loaded model.
        seed: seed of the samples; sample i of a seed is the same for any `num_samples`.
        threads: CPU threads; 0 = one for a few pieces, else PyTorch's number.
        settings: fields of SampleSettings, `continue_from`, `harmonize` and `melody_over`.

    Returns:
        Rolls, (T, 88) bool each, primer included.

    Raises:
        InputError: a primer or another file can't be used.
        ValueError: a setting is unknown or out of range.
    """
    names = {"continue_from", "harmonize", "melody_over"} & settings.keys()
    play = PlaySettings(**{name: settings.pop(name) for name in names})
    wanted = SampleSettings.from_dict({"num_samples": 1} | settings)
    return plan_piece(model, wanted, play).sample(model, wanted, seed, threads=threads)


# ---- what to sample ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Plan:
    """A piece to sample: what it starts from, its length, and how each frame is sampled."""

    primer: np.ndarray  # (T, 88) bool, in the model's key
    frames: int  # new frames
    sample_frame: FrameSampler
    shift_back: int  # semitones to transpose the result by
    max_hold: int = 0  # frames; 0 = no limit

    def sample(
        self,
        model: PianoLSTM,
        settings: SampleSettings,
        seed: int,
        on_frames: Callable[[int], Any] = lambda count: None,
        threads: int = 0,
    ) -> list[np.ndarray]:
        """Return `num_samples` rolls, (T, 88) bool each, in the wanted key."""
        rolls = sample_rolls(
            model,
            self.frames,
            make_generators(seed, settings.num_samples),
            self.sample_frame,
            primer=torch.from_numpy(self.primer),
            max_hold=self.max_hold,
            threads=threads,
            on_frames=on_frames,
        ).numpy()
        kept = self.primer if settings.include_primer else self.primer[:0]
        return [transpose(np.concatenate([kept, roll]), self.shift_back) for roll in rolls]


def plan_piece(model: PianoLSTM, settings: SampleSettings, play: PlaySettings) -> Plan:
    """Return what the flags ask for.

    Raises:
        InputError: a given file can't be used, or two flags exclude each other.
    """
    given = {name: getattr(settings, name) for name in ("primer_notes", "primer_midi")}
    given |= {n: getattr(play, n) for n in ("continue_from", "harmonize", "melody_over")}
    flags = [f"--{name}" for name, value in given.items() if value is not None]
    if len(flags) > 1:
        raise InputError(f"{', '.join(flags)}: give only one of them")
    frame_beats = model.metadata["frame_beats"]
    params, head = sampling_params(settings), model.head
    primer = read_primer(settings, frame_beats, model.metadata["dataset"], model.metadata)
    if play.continue_from is not None:
        roll = _read("--continue_from", play.continue_from, frame_beats, model.metadata)
        primer = primer._replace(roll=roll)
    if play.harmonize is not None:
        if not isinstance(head, ChordHead):
            raise InputError(
                "--harmonize: this model has independent Bernoulli outputs; train one without"
                " --latent_size=0"
            )
        roll, back = _given_music("--harmonize", play.harmonize, model, settings)
        return Plan(primer.roll, len(roll), harmonize(roll, head, params), back)
    if play.melody_over is not None:
        roll, back = _given_music("--melody_over", play.melody_over, model, settings)
        return Plan(primer.roll, len(roll), melody_over(roll, head, params), back)
    return Plan(
        primer.roll,
        count_frames(settings, frame_beats),
        unconditional(head, params),
        primer.shift_back,
        math.ceil(settings.max_hold / frame_beats),
    )


def read_primer(
    settings: SampleSettings, frame_beats: float, dataset: str, reading: Mapping[str, Any]
) -> Primer:
    """Return the primer of the flags --primer_notes and --primer_midi; no frames without either.

    Args:
        settings: the flags.
        frame_beats: length of the model's frame in beats.
        dataset: the model's training data.
        reading: how its MIDI files were read, as `read_music` takes it.

    Raises:
        InputError: both flags are given, a file can't be read, or --key or --program is wrong.
    """
    parse_program(settings.program)  # a wrong one is reported before anything is computed
    if settings.primer_notes is not None and settings.primer_midi is not None:
        raise InputError("--primer_notes, --primer_midi: give only one of them")
    normalize = settings.normalize_key
    if settings.primer_midi is None:
        roll = parse_chords(settings.primer_notes or "", max(1, round(1 / frame_beats)))
        normalize = False  # a few chords do not establish a key
    else:
        roll = _read("--primer_midi", settings.primer_midi, frame_beats, reading)
        roll = roll[: max(1, round(settings.primer_beats / frame_beats))]
    return to_model_key(roll, dataset, in_c=dataset in IN_C, normalize=normalize, key=settings.key)


def _given_music(flag: str, path: str, model: PianoLSTM, settings: SampleSettings) -> Primer:
    """Return the roll of a MIDI file in the model's key, and the shift of the result."""
    dataset = model.metadata["dataset"]
    return to_model_key(
        _read(flag, path, model.metadata["frame_beats"], model.metadata),
        dataset,
        in_c=dataset in IN_C,
        normalize=settings.normalize_key,
        key=settings.key,
    )


def _read(flag: str, path: str, frame_beats: float, reading: Mapping[str, Any]) -> np.ndarray:
    """Return the roll of a MIDI file, and print on stderr what was left out of it."""
    roll, remarks = read_music(flag, path, frame_beats, DataSettings.max_minutes, reading)
    for remark in remarks:
        print(remark, file=sys.stderr)
    return roll


def sampling_params(settings: SampleSettings) -> SamplingParams:
    """Return the part of the settings that the head uses."""
    chords = settings.chord_temperature
    return SamplingParams(
        temperature=settings.temperature,
        chord_temperature=settings.temperature if chords is None else chords,
        top_p=settings.top_p,
        max_polyphony=settings.max_polyphony,
    )


def count_frames(settings: SampleSettings, frame_beats: float) -> int:
    """Return the number of new frames of `frame_beats` beats."""
    beats = settings.seconds * settings.bpm / 60 if settings.beats is None else settings.beats
    beats = beats if settings.bars is None else settings.bars * BEATS_PER_BAR
    return max(1, round(beats / frame_beats))


# ---- the script ----------------------------------------------------------------------------------


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the flags, sample, write the files, print their names; return the exit status."""
    parser = Parser(
        prog="generate.py", description="Generate music with a trained model: MIDI, sound, picture."
    )
    parser.add_argument(
        "weights",
        nargs="?",
        help="a run's folder or a weights file; default: the newest run in runs/, or the pretrained"
        " model if there is no run",
    )
    add_flags(parser, SampleSettings, PlaySettings, MachineSettings)
    flags = parser.parse_args(argv)
    settings = SampleSettings.from_flags(flags, parser)
    play = PlaySettings.from_flags(flags, parser)
    machine = MachineSettings.from_flags(flags, parser)
    if len(lengths := [n for n in ("bars", "beats", "seconds") if hasattr(flags, n)]) > 1:
        parser.error(f"--{', --'.join(lengths)}: give only one of them")
    device = choose_device(machine.device, machine.threads)
    path = find_weights(flags.weights)
    model = PianoLSTM.load(path, device)
    seed = secrets.randbelow(2**31) if play.seed is None else play.seed
    if play.evaluate_samples:
        return evaluate_model(path, model, settings, play, seed, same_length=bool(lengths))
    return write_pieces(path, model, settings, play, machine, seed)


def write_pieces(
    path: Path,
    model: PianoLSTM,
    settings: SampleSettings,
    play: PlaySettings,
    machine: MachineSettings,
    seed: int,
) -> int:
    """Sample pieces and write them and their page; return the exit status.

    Raises:
        InputError: a given file can't be used, or a sample of the same name exists.
    """
    plan = plan_piece(model, settings, play)
    soundfont, remark = find_soundfont(play.soundfont)
    if remark:
        print(f"{remark}; using the built-in sound", file=sys.stderr)
    given = {name: getattr(play, name) for name in ("continue_from", "harmonize", "melody_over")}
    origin = Origin(
        path,
        model.metadata,
        seed,
        asdict(settings) | given,
        parse_formats(play.formats),
        soundfont,
        training_windows(path, model),
    )
    folder = Path(play.output_dir)
    make_folder(folder)
    stems = [origin.stem(folder, number) for number in range(1, settings.num_samples + 1)]
    for stem in stems:
        existing = [*folder.glob(f"{stem.name}.*")]
        if existing and not play.overwrite:
            raise InputError(
                f"{existing[0]}: exists; give another --seed or --output_dir, or --overwrite"
            )
    dataset, where = model.metadata["dataset"], next(model.parameters()).device
    print(f"sampling from {path} (trained on {dataset}) on {where}, seed {seed}")
    with tqdm(
        total=plan.frames * settings.num_samples,
        unit=" frames",
        leave=False,
        disable=None,  # no bar in log files
    ) as bar:
        rolls = plan.sample(model, settings, seed, bar.update, machine.threads)
    for stem, diagnostics in zip(stems, write_samples(rolls, folder, origin), strict=True):
        print(f"{stem}.{origin.formats[0]}  {diagnostics.summary()}")
        for warning in diagnostics.warnings():
            print(f"  {warning}")
    print(f"listen  {write_index(folder, f'Samples from {path.name}', folder)}")
    return 0


def evaluate_model(
    path: Path,
    model: PianoLSTM,
    settings: SampleSettings,
    play: PlaySettings,
    seed: int,
    *,
    same_length: bool,
) -> int:
    """Compare `evaluate_samples` samples with the test split; return the exit status.

    Args:
        path: the weights file.
        model: the model.
        settings: how to sample.
        play: number of samples, and where to write the comparison.
        seed: seed of the samples.
        same_length: whether all samples have the length of the flags, not those of test pieces.

    Raises:
        InputError: the training data can't be read.
    """
    # Imported here because scipy.stats takes a second to import.
    from pianolstm.outputs.report import evaluate_samples, lengths_like, sample_lengths

    corpus = load(training_data(path, model.metadata, {}), named=True)
    if corpus.fingerprint != model.metadata["fingerprint"]:
        raise InputError(f"{path}: its training data are missing; put them back where they were")
    count, frame_beats = play.evaluate_samples, model.metadata["frame_beats"]
    lengths = lengths_like(corpus.splits["test"], count)
    if same_length:
        lengths = [count_frames(settings, frame_beats)] * count
    generators = make_generators(seed, count)
    sample_frame = unconditional(model.head, sampling_params(settings))
    max_hold = math.ceil(settings.max_hold / frame_beats)
    print(f"sampling {count} pieces from {path}, seed {seed}")
    with tqdm(total=count, unit=" pieces", leave=False, disable=None) as bar:

        def sample_some(frames: int, indices: list[int]) -> np.ndarray:
            chosen = [generators[index] for index in indices]
            rolls = sample_rolls(model, frames, chosen, sample_frame, max_hold=max_hold)
            bar.update(len(indices))
            return rolls.numpy()

        rolls = sample_lengths(lengths, sample_some)
    folder = Path(play.output_dir)
    make_folder(folder)
    print(evaluate_samples(rolls, corpus.name, corpus.splits, corpus.frame_beats, seed, folder))
    print(f"{folder}/metrics.md, {folder}/metrics.png")
    return 0


def training_windows(path: Path, model: PianoLSTM) -> np.ndarray | None:
    """Return the hashed windows of a model's training pieces; None if its data are not present."""
    try:
        corpus = load_if_present(training_data(path, model.metadata, {}))
    except InputError:
        return None
    if corpus is None or corpus.fingerprint != model.metadata["fingerprint"]:
        return None
    return window_hashes(corpus.splits["train"])


if __name__ == "__main__":
    run_script(main)
