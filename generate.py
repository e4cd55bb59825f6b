"""Generate music with a trained model: sample frames, write them as MIDI, sound and picture.

python generate.py                                  four pieces from the newest run
python generate.py runs/20260101-120000-nottingham  from this run
python generate.py weights.safetensors --num_samples 8 --temperature 0.9 --seed 7

Frames are sampled one after another: each from the model's distribution given all frames before
it, and then read by the model (RNN-NADE, Boulanger-Lewandowski et al. 2012).
"""

import secrets
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from data import load, load_if_present, training_data
from model import PianoLSTM
from pianolstm.checkpoint import find_weights
from pianolstm.cli import Parser, add_flags, parse_value
from pianolstm.conditioning import (
    FrameSampler,
    frames_to_hold,
    highest_notes,
    onsets_off_grid,
    plan_transposition,
    unconditional,
)
from pianolstm.ending import EndCalibration, Ending, LoopGuard
from pianolstm.files import InputError, make_folder
from pianolstm.given import Given, read_given
from pianolstm.infilling import infill
from pianolstm.inputs.datasets import IN_C, Corpus, octave_shift
from pianolstm.layers.heads import MIN_TEMPERATURE, UNIFORMS_PER_FRAME, SamplingParams
from pianolstm.layers.key_average import KeyAverage, average_keys
from pianolstm.metrics.copying import KnownPieces
from pianolstm.metrics.form import LoopBounds
from pianolstm.metrics.surprise import PieceNLLs, nlls_per_frame, surprise
from pianolstm.midi import parse_program
from pianolstm.outputs.audio import find_soundfont
from pianolstm.outputs.musicxml import can_engrave
from pianolstm.outputs.samples import Origin, parse_formats, write_index, write_samples
from pianolstm.outputs.surprise import describe_surprise, write_surprise
from pianolstm.piece import Metre, Piece, notes_to_roll, parse_metre
from pianolstm.plan import Plan, Request, make_plan
from pianolstm.rolls import PITCHES
from pianolstm.runtime import (
    choose_device,
    make_generators,
    next_generator,
    run_script,
    sampling_threads,
)
from pianolstm.tonality import Key, parse_key, transpose
from settings import DataSettings, MachineSettings, PlaySettings, SampleSettings

NOISE_FRAMES = 16  # frames whose random numbers are drawn at once
RESTARTS = 8  # of a piece that is caught in a loop
# Candidates for --key are sampled so many at once, so many times. Of the samples of the pretrained
# Nottingham model, 3 % are in C minor, and 60 % of those after a cadence in it.
CANDIDATES = 32
CANDIDATE_ROUNDS = 4
# Settings of PlaySettings: music that is given, and all that change what is sampled.
GIVEN_MUSIC = ("continue_from", "harmonize", "melody_over", "chords", "infill")
PLAY_NAMES = (*GIVEN_MUSIC, "from_bar", "to_bar", "particles", "average_keys")

Model = PianoLSTM | KeyAverage


# ---- sampling ------------------------------------------------------------------------------------


@torch.inference_mode()
def sample_frames(
    model: Model,
    frames: Tensor,
    generators: Sequence[torch.Generator],
    sample_frame: FrameSampler,
    primer: Tensor | None = None,
    ending: Ending | None = None,
    on_frames: Callable[[int], Any] = lambda count: None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Sample frames autoregressively, several pieces side by side.

    Args:
        model: in evaluation mode.
        frames: (B,) int64, new frames of each piece, at most.
        generators: B random generators on the CPU, the only source of randomness. A piece is the
            same whatever other pieces are sampled beside it.
        sample_frame: samples one frame.
        primer: (T, 88) frames that the model reads first; None = silence alone.
        ending: how a piece ends before it has all its frames; None = it does not.
        on_frames: called with the number of frames sampled since the last call.

    Returns:
        (B, T, 88) bool without the primer; the frames of each piece, (B,) int64; and whether it
        ends because its next frame would exceed the bounds, (B,) bool.
    """
    device, rows = next(model.parameters()).device, len(generators)
    inputs = torch.zeros(rows, 1, PITCHES, device=device)  # a piece starts from silence
    if primer is not None:
        inputs = torch.cat([inputs, primer.to(inputs).expand(rows, -1, -1)], dim=1)
    longest, reported = int(frames.max()), 0
    sampled = torch.zeros(rows, longest, PITCHES, dtype=torch.bool, device=device)
    lengths = frames.to(device)
    caught = torch.zeros(rows, dtype=torch.bool, device=device)
    loops = LoopGuard(rows, ending.bounds, device) if ending and ending.bounds else None
    vectors, state = model(inputs)  # (B, T, H)
    for start in range(0, longest, NOISE_FRAMES):
        uniforms = torch.stack(
            [torch.rand(NOISE_FRAMES, UNIFORMS_PER_FRAME, generator=g) for g in generators]
        ).to(device)
        end_uniforms = uniforms  # not used without an ending
        if ending:
            chances = [torch.rand(NOISE_FRAMES, 1, generator=g) for g in generators]
            end_uniforms = torch.stack(chances).to(device)
        block: list[Tensor] = []  # (B, P) each
        # unbind is faster than slicing each frame: a slice takes as long as a small addition.
        for t, uniform in enumerate(uniforms.unbind(1)[: longest - start], start):
            frame = sample_frame(vectors[:, -1], uniform, t)  # (B, P)
            if loops:
                exceeded = loops.add(frame) & (lengths > t)
                lengths = lengths.where(~exceeded, lengths.clamp(max=max(t, 1)))
                caught |= exceeded
            block.append(frame)
            if t < longest - 1:
                vectors, state = model(frame[:, None], state)
                if ending:
                    logit = model.end_head(vectors[:, -1], frame)  # (B,)
                    end = torch.sigmoid(ending.calibration.apply(logit, inputs.shape[1] + t))
                    chance = 0.5 if ending.greedy else end_uniforms[:, t - start, 0]
                    lengths = lengths.where(end <= chance, lengths.clamp(max=t + 1))
        stop = start + len(block)
        sampled[:, start:stop] = torch.stack(block, dim=1)
        done = int(lengths.clamp(max=stop).sum())
        on_frames(done - reported)
        reported = done
        if not (lengths > stop).any():
            break
    return sampled.cpu(), lengths.cpu(), caught.cpu()


def sample_rolls(
    model: Model,
    frames: int,
    generators: Sequence[torch.Generator],
    sample_frame: FrameSampler | None = None,
    *,
    primer: Tensor | None = None,
    ending: Ending | None = None,
    medley: bool = False,
    threads: int = 0,
    on_frames: Callable[[int], Any] = lambda count: None,
) -> list[np.ndarray]:
    """Sample a roll for each generator: one piece, or a medley of pieces.

    Args:
        model: in evaluation mode.
        frames: new frames of each roll, at most.
        generators: B random generators, one per roll.
        sample_frame: samples one frame; None = from the model's distribution.
        primer: (T, 88) frames before the first piece; None = silence alone.
        ending: how a piece ends before it has all its frames; None = it does not.
        medley: fill each roll with one piece after another.
        threads: CPU threads; 0 = one for a few pieces, else PyTorch's number.
        on_frames: called with numbers of frames, B * `frames` in all, for a progress bar.

    Returns:
        Rolls, (T, 88) bool each, T <= `frames`, without the primer.
    """
    sample_frame = sample_frame or unconditional(model.head)
    parts: list[list[np.ndarray]] = [[] for _ in generators]
    sources, left = list(generators), torch.full((len(generators),), frames)
    most = 0 if ending and ending.greedy else RESTARTS
    restarts = [most] * len(generators)
    while rows := [row for row, part in enumerate(parts) if left[row] and (medley or not part)]:
        # The primer comes before first pieces, also where they are sampled again.
        rows = (firsts := [row for row in rows if not parts[row]]) or rows
        chosen = [sources[row] for row in rows]
        with sampling_threads(len(rows), threads):
            pieces, *others = sample_frames(
                model,
                left[rows],
                chosen,
                sample_frame,
                primer if firsts else None,
                ending,
                on_frames,
            )
        for row, piece, length, caught in zip(
            rows, pieces.numpy(), *(part.tolist() for part in others), strict=True
        ):
            sources[row] = next_generator(sources[row])
            if caught and restarts[row]:
                restarts[row] -= 1
                on_frames(-length)
                continue
            parts[row].append(piece[:length])
            left[row] -= length
            restarts[row] = most
    if not medley:
        on_frames(int(left.sum()))
    return [np.concatenate(pieces) for pieces in parts]


def sample_plan(
    model: Model,
    plan: Plan,
    settings: SampleSettings,
    seed: int,
    on_frames: Callable[[int], Any] = lambda count: None,
    threads: int = 0,
) -> list[Piece]:
    """Return `num_samples` pieces of a plan.

    With `plan.wanted`, candidates are sampled for each piece until one is in that key: an exact
    sample from the model's distribution of pieces in the key. If the first 33 are in others, the
    next follow a cadence in the key, which is not in the result. Where none is in the key, the
    first is taken, and the piece's remarks say so.

    Args:
        model: the model of the plan, in evaluation mode.
        plan: what to sample.
        settings: how to sample.
        seed: seed of the samples.
        on_frames: called with numbers of frames, for a progress bar.
        threads: CPU threads; 0 = one for a few pieces, else PyTorch's number.
    """

    def sample_some(
        generators: Sequence[torch.Generator],
        primer: np.ndarray,
        on_frames: Callable[[int], Any] = lambda count: None,
    ) -> list[np.ndarray]:
        if plan.after is not None:
            with sampling_threads(plan.particles, threads):
                filled = infill(
                    model,
                    torch.from_numpy(plan.primer),
                    plan.frames,
                    torch.from_numpy(plan.after),
                    generators,
                    plan.particles,
                    sampling_params(settings),
                    on_frames,
                )
            rolls = list(filled.numpy())
        else:
            rolls = sample_rolls(
                model,
                plan.frames,
                generators,
                plan.sample_frame,
                primer=torch.from_numpy(primer),
                ending=plan.ending,
                medley=plan.medley,
                threads=threads,
                on_frames=on_frames,
            )
        return [highest_notes(roll, settings.max_polyphony) for roll in rolls]

    rounds = CANDIDATE_ROUNDS if settings.temperature >= MIN_TEMPERATURE else 0
    generators, pieces = make_generators(seed, settings.num_samples), []
    firsts = sample_some(generators, plan.primer, on_frames)
    for generator, first in zip(generators, firsts, strict=True):
        chosen = first
        for number in range(rounds):
            if plan.is_wanted(chosen):
                break
            # Many side by side take little longer than one.
            successors = range(2 + number * CANDIDATES, 2 + (number + 1) * CANDIDATES)
            others = [next_generator(generator, index) for index in successors]
            primer = plan.primer if plan.cadence is None or number == 0 else plan.cadence
            candidates = sample_some(others, primer)
            chosen = next((roll for roll in candidates if plan.is_wanted(roll)), first)
        pieces.append(plan.finish(chosen))
    return pieces


def sample(model: PianoLSTM, seed: int = 0, *, threads: int = 0, **settings: Any) -> list[Piece]:
    """Sample pieces as generate.py does; the entry point for notebooks.

        [piece] = sample(PianoLSTM.load(), seed=7, num_samples=1, bars=8, temperature=0.9)

    Args:
        model: a loaded model.
        seed: seed of the samples; sample i of a seed is the same for any `num_samples`.
        threads: CPU threads; 0 = one for a few pieces, else PyTorch's number.
        settings: fields of SampleSettings, and those of PlaySettings in `PLAY_NAMES`.

    Returns:
        The pieces: `roll`, (T, 88) bool, has the generated notes, `given` those of the primer or of
        another file. What can't be done as asked is printed on stderr.

    Raises:
        InputError: a primer or another file can't be used.
        ValueError: a setting is unknown or out of range.
    """
    names = set(settings)
    play = PlaySettings(**{name: settings.pop(name) for name in names & {*PLAY_NAMES}})
    wanted = SampleSettings.from_dict({"num_samples": 1} | settings)
    used = model_of(model, play)
    plan = plan_piece(used, wanted, play)
    pieces = sample_plan(used, plan, wanted, seed, threads=threads)
    remarks = [*without_effect(names, wanted, play), *plan.remarks]
    for remark in (*remarks, *(remark for piece in pieces for remark in piece.remarks)):
        print(remark, file=sys.stderr)
    return pieces


# ---- from flags to a plan ------------------------------------------------------------------------


def model_of(model: PianoLSTM, play: PlaySettings) -> Model:
    """Return the model, averaged over keys with --average_keys.

    Raises:
        InputError: the model can't be averaged, or what is asked would not be exact.
    """
    if not play.average_keys:
        return model
    for name in ("harmonize", "chords", "infill", "surprise"):
        if getattr(play, name) is not None:
            raise InputError(f"--average_keys, --{name}: give only one of them")
    return average_keys(model, model.settings.transpose_prob)


def check_settings(settings: SampleSettings) -> tuple[Key | None, Metre | None]:
    """Report what is wrong with the texts among the settings, before anything is computed.

    Returns:
        The wanted key and metre.

    Raises:
        InputError: --program, --metre or --key is wrong.
    """
    parse_program(settings.program)
    key, metre = settings.key, settings.metre
    return (
        None if key is None else parse_value("--key", parse_key, key),
        None if metre is None else parse_value("--metre", parse_metre, metre),
    )


def read_given_music(
    settings: SampleSettings, play: PlaySettings, reading: Mapping[str, Any]
) -> Given:
    """Return the music of the flags that name some.

    Args:
        settings: how to sample.
        play: further settings.
        reading: the model's metadata, or how its training files were read.

    Raises:
        InputError: there are two of them, or the music can't be read.
    """
    values = {name: getattr(settings, name) for name in ("primer_notes", "primer_midi")}
    values |= {name: getattr(play, name) for name in (*GIVEN_MUSIC, "surprise")}
    return read_given(
        values,
        reading,
        metre=check_settings(settings)[1],
        velocity=settings.velocity,
        primer_beats=settings.primer_beats,
        max_minutes=DataSettings.max_minutes,
    )


def request_of(settings: SampleSettings, play: PlaySettings) -> Request:
    """Return what the flags ask of a piece, beside the music that they give.

    Raises:
        InputError: --program, --metre or --key is wrong.
    """
    key, metre = check_settings(settings)
    return Request(
        seconds=settings.seconds,
        beats=settings.beats,
        bars=settings.bars,
        key=key,
        metre=metre,
        bpm=settings.bpm,
        normalize_key=settings.normalize_key,
        include_primer=settings.include_primer,
        medley=settings.medley,
        first_bar=play.from_bar,
        last_bar=play.to_bar,
        particles=play.particles,
    )


def plan_piece(model: Model, settings: SampleSettings, play: PlaySettings) -> Plan:
    """Return what the flags ask for.

    Raises:
        InputError: a given file can't be used, or two flags exclude each other.
    """
    request = request_of(settings, play)
    given = read_given_music(settings, play, model.metadata)
    params = sampling_params(settings, chords_alone=play.harmonize is not None)
    ending = ending_of(model, settings)
    return make_plan(given, request, model.head, model.metadata, params, ending)


def without_effect(
    names: Collection[str], settings: SampleSettings, play: PlaySettings
) -> list[str]:
    """Return what to say of settings that change nothing, one line each.

    Args:
        names: the settings that the user gave.
        settings: how to sample.
        play: further settings.
    """
    lengths = ("bars", "beats", "seconds")
    primers = ("primer_notes", "primer_midi", "continue_from")
    files = ("primer_midi", *GIVEN_MUSIC, "surprise")
    present = {name for name in ("primer_notes", "primer_midi") if getattr(settings, name)}
    present |= {name for name in (*GIVEN_MUSIC, "surprise") if getattr(play, name)}
    lines = [
        f"--{name}: has no effect with --{flag}, which has a length of its own"
        for flag in ("harmonize", "melody_over", "chords", "infill")
        for name in lengths
        if flag in present and name in names
    ]
    needs = (
        ("include_primer", primers),
        ("primer_beats", ("primer_midi",)),
        ("normalize_key", files),
        *((name, ("infill",)) for name in ("from_bar", "to_bar", "particles")),
    )
    lines += [
        f"--{name}: has no effect without {' or '.join(f'--{flag}' for flag in flags)}"
        for name, flags in needs
        if name in names and not present & {*flags}
    ]
    coldest = max(settings.temperature, settings.chord_temperature or 0.0)
    if coldest < MIN_TEMPERATURE and settings.num_samples > 1:
        lines.append(
            f"--temperature {settings.temperature:g}: always the most probable choice, so the"
            f" {settings.num_samples} pieces are alike"
        )
    return lines


def sampling_params(settings: SampleSettings, *, chords_alone: bool = False) -> SamplingParams:
    """Return the part of the settings that the head uses.

    Chords are sampled at a temperature of at most 1, unless another is given: bolder ones lose the
    bar (docs/generation.md). With `chords_alone` --temperature is theirs, as all else is given.
    """
    chords = settings.chord_temperature
    if chords is None:
        chords = settings.temperature if chords_alone else min(settings.temperature, 1.0)
    return SamplingParams(
        temperature=settings.temperature,
        chord_temperature=chords,
        top_p=settings.top_p,
    )


def ending_of(model: Model, settings: SampleSettings) -> Ending:
    """Return how pieces of this model end: as it predicts, and within the bounds of its data."""
    return Ending(
        greedy=settings.temperature < MIN_TEMPERATURE,
        bounds=LoopBounds.of_metadata(model.metadata),
        calibration=EndCalibration.of_metadata(model.metadata),
    )


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
    used = model_of(model, play)
    if play.evaluate_samples:
        return evaluate_model(path, used, settings, play, seed, same_length=bool(lengths))
    for remark in without_effect(vars(flags), settings, play):
        print(remark, file=sys.stderr)
    if play.surprise is not None:
        print("\n".join(measure_surprise(path, model, settings, play)[1]))
        return 0
    return write_pieces(path, used, settings, play, machine, seed)


def write_pieces(
    path: Path,
    model: Model,
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
    for remark in plan.remarks:
        print(remark, file=sys.stderr)
    soundfont, remark = find_soundfont(play.soundfont)
    formats = parse_formats(play.formats)
    if remark and "wav" in formats:
        print(remark, file=sys.stderr)
    if "svg" in formats and not can_engrave():
        print("Verovio is not installed, so no .svg: `pip install verovio`", file=sys.stderr)
    given = {name: getattr(play, name) for name in PLAY_NAMES}
    corpus = training_corpus(path, model)
    origin = Origin(
        path,
        model.metadata,
        seed,
        asdict(settings) | given,
        formats,
        soundfont,
        None if corpus is None else KnownPieces(corpus.splits["train"]),
    )
    folder = Path(play.output_dir)
    make_folder(folder)
    if not play.overwrite:
        origin = origin.beside(folder)
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
        pieces = sample_plan(model, plan, settings, seed, bar.update, machine.threads)
    all_diagnostics = write_samples(pieces, folder, origin)
    for stem, piece, diagnostics in zip(stems, pieces, all_diagnostics, strict=True):
        print(f"{stem}.{origin.formats[0]}  {diagnostics.summary()}")
        for warning in (*piece.remarks, *diagnostics.warnings()):
            print(f"  {warning}")
    print(f"listen  {write_index(folder, f'Samples from {path.name}', folder)}")
    return 0


def evaluate_model(
    path: Path,
    model: Model,
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
        same_length: whether each sample is a medley of the length that the flags give.

    Raises:
        InputError: the training data can't be read.
    """
    # Imported here because scipy.stats takes a second to import.
    from pianolstm.outputs.report import evaluate_samples

    corpus = load(training_data(path, model.metadata, {}), named=True)
    if corpus.fingerprint != model.metadata["fingerprint"]:
        raise InputError(f"{path}: its training data are missing; put them back where they were")
    count, frame_beats = play.evaluate_samples, model.metadata["frame_beats"]
    frames = max(len(roll) for roll in corpus.splits["train"])
    if same_length:
        frames = request_of(settings, play).frames(frame_beats)
    generators = make_generators(seed, count)
    sample_frame = unconditional(model.head, sampling_params(settings))
    print(f"sampling {count} pieces from {path}, seed {seed}")
    rolls: list[np.ndarray] = []
    with tqdm(total=count, unit=" pieces", leave=False, disable=None) as bar:
        for start in range(0, count, CANDIDATES):
            chosen = generators[start : start + CANDIDATES]
            ending = ending_of(model, settings)
            rolls += sample_rolls(
                model, frames, chosen, sample_frame, ending=ending, medley=same_length
            )
            bar.update(len(chosen))
    folder = Path(play.output_dir)
    make_folder(folder)
    print(evaluate_samples(rolls, corpus.name, corpus.splits, corpus.frame_beats, seed, folder))
    print(f"{folder}/metrics.md, {folder}/metrics.png")
    return 0


def measure_surprise(
    path: Path, model: PianoLSTM, settings: SampleSettings, play: PlaySettings
) -> tuple[dict[str, Any], list[str]]:
    """Write how surprising a model finds a user's file; return the numbers, and lines to print.

    Args:
        path: the weights file.
        model: the model.
        settings: `normalize_key`.
        play: `surprise`, the file; `output_dir`; `overwrite`.

    Raises:
        InputError: the file can't be read, or the result exists.
    """
    given = read_given_music(settings, play, model.metadata)
    frame_beats, dataset = model.metadata["frame_beats"], model.metadata["dataset"]
    in_c = dataset in IN_C and settings.normalize_key
    moves = plan_transposition(given.key, None, in_c=in_c, octave=octave_shift(dataset))
    least = model.metadata.get("min_frames", 0)
    length = frames_to_hold(given.beats, frame_beats)
    context = transpose(notes_to_roll(given.notes, frame_beats, length, least), moves.to_model)
    lost = onsets_off_grid(given.notes, frame_beats)
    for remark in given.remarks:
        print(remark, file=sys.stderr)
    if lost.between:
        print(
            f"{given.flag}: {lost.between} of {lost.onsets} onsets are between the model's"
            f" {frame_beats:g}-beat frames, and count at the nearest",
            file=sys.stderr,
        )
    folder, source = Path(play.output_dir), Path(str(play.surprise))
    stem = folder / f"surprise-{source.stem}"
    existing = sorted(folder.glob(f"{stem.name}[.-]*"))
    if existing and not play.overwrite:
        raise InputError(f"{existing[0]}: exists; give another --output_dir, or --overwrite")
    test = PieceNLLs.of_metadata(model.metadata)
    if test is None and (corpus := training_corpus(path, model)) is not None:
        test = PieceNLLs.of_pieces(nlls_per_frame(model, corpus.splits["test"]))
    found = surprise(model, context).transpose(-moves.to_model)
    numbers, lines = describe_surprise(found, source.name, frame_beats, dataset, test)
    make_folder(folder)
    piece = Piece(found.roll, frame_beats, given.bpm, given.metre, given.key, title=source.name)
    write_surprise(stem, found, piece, lines)
    page = write_index(folder, f"Samples from {path.name}", folder)
    return numbers, [*lines, f"{stem}-frames.csv, {stem}-notes.csv, {stem}.png", f"look  {page}"]


def training_corpus(path: Path, model: Model) -> Corpus | None:
    """Return the training data of a model; None if they are not present."""
    try:
        corpus = load_if_present(training_data(path, model.metadata, {}))
    except InputError:
        return None
    if corpus is None or corpus.fingerprint != model.metadata["fingerprint"]:
        return None
    return corpus


if __name__ == "__main__":
    run_script(main)
