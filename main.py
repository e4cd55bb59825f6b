"""Train a recurrent model on piano-rolls, evaluate it, and sample from it.

python main.py                         the default recipe on Nottingham
python main.py --batch_size=64 --lr=0.002
python main.py --preset best           a lower NLL in 21 minutes on two cores
python main.py --data DIR --inspect    show what a folder of music holds
python main.py --data DIR --init_from nottingham    learn it in minutes, from trained weights
python main.py --resume runs/NAME      continue a stopped run
python main.py --evaluate runs/NAME    evaluate again, from the files
"""

import argparse
import hashlib
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from data import RollDataset, load, read_like, training_data
from generate import measure_surprise, plan_piece, read_given_music, sample_plan
from model import PianoLSTM, adapt, build_model
from pianolstm import checkpoint
from pianolstm.checkpoint import Metadata
from pianolstm.cli import Parser, add_flags
from pianolstm.files import InputError, atomic_write, one_line, read_json, write_json
from pianolstm.inputs.datasets import Corpus, recognise
from pianolstm.inputs.folders import content_hash
from pianolstm.inputs.metres import count_metres
from pianolstm.inputs.midi_folder import find_midi_files
from pianolstm.layers.key_average import KeyAverage, average_keys
from pianolstm.metrics.baselines import Baselines
from pianolstm.metrics.copying import KnownPieces
from pianolstm.metrics.form import loop_bounds
from pianolstm.metrics.surprise import PieceNLLs, nlls_per_frame
from pianolstm.outputs.events import epoch_log, load_summary_writer
from pianolstm.outputs.inspection import inspect_splits, inspection_text
from pianolstm.outputs.plots import plot_inspection, plot_losses
from pianolstm.outputs.report import corpus_summary, results_table
from pianolstm.outputs.samples import Origin, write_index, write_samples
from pianolstm.runtime import (
    World,
    bfloat16_speedup,
    choose_device,
    choose_precision,
    join_world,
    run_script,
)
from settings import (
    ADAPTABLE,
    GROUPS,
    PRESETS,
    DataSettings,
    MachineSettings,
    ModelSettings,
    PlaySettings,
    RunSettings,
    SampleSettings,
    Settings,
    fine_tuning,
    with_preset,
    with_values,
)
from train import DivergedError, Epoch, Trainer, count_epochs, evaluate, fit_ends

# --resume may change the length of training, and where things are; the rest is the run's own.
RESUMABLE = {"epochs", "patience", "data", "data_dir", "device", "threads", "tensorboard"}

Datasets = dict[str, RollDataset]  # by split


@dataclass(frozen=True)
class Source:
    """The trained weights that a run starts from."""

    record: (
        Metadata  # what identifies them, and their NLLs; settings.json and the new weights keep it
    )
    model: PianoLSTM | None  # None where a resumed run has a state of its own


def main(argv: Sequence[str] | None = None) -> int:
    """Train, or evaluate; return the exit status."""
    flags, parser = parse_flags(argv)
    if flags.evaluate is not None:
        return evaluate_files(flags, parser)
    if flags.inspect:
        return inspect_data(flags, parser)
    if flags.resume is not None:
        return train_run(resumed_settings(flags, parser), flags)
    return train_run(Settings.build(lambda _, group: group.from_flags(flags, parser)), flags)


def parse_flags(argv: Sequence[str] | None) -> tuple[argparse.Namespace, Parser]:
    """Parse the command line."""
    parser = Parser(
        prog="main.py",
        description="Train a recurrent model on piano-rolls, evaluate it, and sample from it.",
    )
    parser.add_argument("--resume", metavar="RUN", help="continue the stopped run in this folder")
    parser.add_argument(
        "--evaluate",
        metavar="RUN_OR_WEIGHTS",
        help="evaluate a run or a weights file without training",
    )
    parser.add_argument(
        "--inspect",
        action="store_true",
        help="print and draw what the data hold, in inspect-<name>.png, without training",
    )
    parser.add_argument("--json", action="store_true", help="with --evaluate: print JSON")
    parser.add_argument(
        "--average_keys",
        action="store_true",
        help="with --evaluate: average the probabilities of each frame over twelve transpositions;"
        " for models trained with --transpose_prob",
    )
    parser.add_argument(
        "--surprise",
        metavar="FILE",
        help="with --evaluate: measure also how surprising the model finds this MIDI, MusicXML or"
        " ABC file; see generate.py --surprise",
    )
    parser.add_argument(
        "--preset",
        choices=tuple(PRESETS),
        help="recipe whose values replace the defaults below; settings.py explains them",
    )
    add_flags(parser, *GROUPS.values())
    flags = parser.parse_args(argv)
    if flags.resume is not None and flags.evaluate is not None:
        parser.error("--resume, --evaluate: give only one of them")
    for name in ("json", "average_keys", "surprise"):
        if getattr(flags, name) and flags.evaluate is None:
            parser.error(f"--{name}: only with --evaluate")
    if flags.average_keys and flags.surprise is not None:
        parser.error("--average_keys, --surprise: give only one of them")
    if flags.preset is not None and (flags.resume, flags.evaluate) != (None, None):
        parser.error("--preset: not with --resume or --evaluate; a run has its own settings")
    if flags.preset is not None and "init_from" in flags:
        parser.error("--preset: not with --init_from, which has sizes and a schedule of its own")
    if flags.inspect and (flags.resume, flags.evaluate, flags.preset) != (None, None, None):
        parser.error("--inspect: not with --resume, --evaluate or --preset; it trains nothing")
    if "" in (flags.resume, flags.evaluate):
        parser.error("--resume, --evaluate: the name is empty")
    if hasattr(flags, "frame_beats") and hasattr(flags, "frame_seconds"):
        parser.error("--frame_beats, --frame_seconds: give only one of them")
    return flags, parser


# ---- training a run ------------------------------------------------------------------------------


def resumed_settings(flags: argparse.Namespace, parser: Parser) -> Settings:
    """Return the settings of the run to resume, with the few that flags may change.

    Raises:
        InputError: the folder is no run.
    """
    saved = Settings.of_run(Path(flags.resume))
    for group in GROUPS.values():
        for name in group.given(flags).keys() - RESUMABLE:
            parser.error(f"--{name}: a resumed run keeps its own; start a new run to change it")
    try:
        return Settings.build(
            lambda name, group: replace(getattr(saved, name), **group.given(flags))
        )
    except ValueError as error:
        parser.error(str(error))


def train_run(settings: Settings, flags: argparse.Namespace) -> int:
    """Train, then evaluate and sample the best weights; return the exit status.

    Args:
        settings: the user's settings over the defaults, or those of the run to resume.
        flags: the command line, which names a preset or the run to resume.
    """
    machine = settings.machine
    if settings.run.tensorboard:
        load_summary_writer()  # reports early that it is missing
    with join_world(choose_device(machine.device, machine.threads)) as (world, device):
        source = open_source(settings, flags)
        if source is not None and source.model is not None and flags.resume is None:
            data = read_like(settings.data, source.model.metadata, vars(flags).keys())
            settings = replace(settings, data=data)
        named = flags.resume is not None or "dataset" in flags
        with world.main_process_first():
            corpus = load(settings.data, named=named)
        if world.is_main:
            _print_remarks(corpus)
            if source is not None and source.model is not None:
                _print_other_frames(corpus, source.model)
            print(corpus_summary(corpus.name, corpus.splits))
        # Reports what is wrong with the settings of the samples before the training.
        read_given_music(settings.sample, PlaySettings(), corpus.reading)
        datasets, corpus = _make_datasets(corpus)
        settings = resolve(settings, flags, corpus, datasets["train"], device, world, source)
        baselines = Baselines(datasets["train"].rolls)
        if source is not None and flags.resume is None:
            source = evaluate_source(source, datasets, device, world)
        folder = world.broadcast(_open_run(settings, flags, corpus) if world.is_main else None)
        events = folder if settings.run.tensorboard and world.is_main else None
        with epoch_log(events) as log:
            trainer = make_trainer(
                settings, corpus, datasets, baselines, device, folder, world, source, log
            )
            status = _fit(trainer, settings, corpus)
        if world.is_main:
            if trainer.weights_path.is_file():
                finish_run(settings, corpus, datasets, baselines, trainer)
            elif status == 0:
                raise InputError(f"{trainer.weights_path}: missing, and no epoch is left to train")
    return status


def resolve(
    settings: Settings,
    flags: argparse.Namespace,
    corpus: Corpus,
    train: RollDataset,
    device: torch.device,
    world: World,
    source: Source | None,
) -> Settings:
    """Return the final settings: those that depend on the corpus or the device are filled in.

    These are the preset's values, or the sizes of the weights to start from and the recipe of
    fine-tuning; the number of epochs, the precision, and absolute paths, with which the run can be
    resumed from any folder.

    Raises:
        InputError: --max_steps amounts to too many epochs.
    """
    frames, given = int(train.lengths.sum()), vars(flags).keys()
    start = None if source is None else source.model
    if flags.resume is None and start is not None:
        sizes = asdict(start.settings)
        settings = with_values(settings, sizes | fine_tuning(frames), given)
    elif flags.resume is None:
        settings = with_preset(settings, flags.preset or "default", given, frames)
    recipe, data, run = settings.train, settings.data, settings.run
    precision = None
    if world.is_main:  # a measurement could differ between processes
        precision = choose_precision(recipe.precision, device)
        if recipe.precision == "auto" and device.type == "cpu" and (speedup := bfloat16_speedup()):
            print(f"bfloat16 is {speedup:.1f} times as fast as float32 here: taking {precision}")
    try:
        recipe = replace(
            recipe,
            epochs=count_epochs(recipe, train.lengths),
            max_steps=0,
            precision=world.broadcast(precision),
        )
    except ValueError as error:
        raise InputError(
            f"--max_steps {recipe.max_steps}: too many for these data ({error})"
        ) from None
    data = replace(data, data_dir=str(Path(data.data_dir).resolve()))
    if data.data is not None:
        data = replace(data, data=str(Path(data.data).resolve()))
    else:
        data = replace(data, dataset=corpus.name)  # the named set, or the chorales in its place
    if start is not None and run.init_from not in checkpoint.pretrained_names():
        run = replace(run, init_from=str(checkpoint.find_weights(run.init_from).resolve()))
    return replace(settings, data=data, train=recipe, run=run)


def make_trainer(
    settings: Settings,
    corpus: Corpus,
    datasets: Datasets,
    baselines: Baselines,
    device: torch.device,
    folder: Path,
    world: World,
    source: Source | None,
    log: Callable[[Epoch], None],
) -> Trainer:
    """Return a trainer, in the state that the run's folder has.

    A new model is initialised from the seed, and its output biases from the unigram distribution;
    or it has the weights of `source`.
    """
    torch.manual_seed(settings.run.seed)
    start = None if source is None else source.model
    try:
        model = build_model(settings.model) if start is None else adapt(start, settings.model)
    except RuntimeError as error:  # PyTorch has no error class of its own for lack of memory
        raise InputError(f"--hidden_size, --layers: out of memory ({one_line(error)})") from None
    if start is None:
        model.head.set_unigram(baselines.marginals.float())
        lengths = datasets["train"].lengths
        model.end_head.set_rate(len(lengths) / float(lengths.sum()))
    model.to(device)
    valid = datasets["valid"]
    references = [
        ("unigram", baselines.unigram(valid.rolls)),
        ("first-order Markov", baselines.first_order_markov(valid.rolls)),
        *((f"{name}, test", nll) for name, nll in corpus.published[:1]),
    ]
    if source is not None:
        references.append(("weights before training", source.record["valid_nll"]))
    trainer = Trainer(
        model,
        datasets["train"],
        lambda model: evaluate(model, valid, device, accuracy=False).nll,
        settings.train,
        settings.run.seed,
        device,
        folder,
        metadata={
            **_identity(corpus),
            "frame_beats": corpus.frame_beats,
            **corpus.reading,
            "seed": settings.run.seed,
            "train": asdict(settings.train),
            "loop_bounds": loop_bounds(datasets["train"].rolls)._asdict(),
            **({"init_from": source.record} if source is not None else {}),
        },
        plot=lambda history: plot_losses(
            folder / "loss.png", history, f"PianoLSTM on {corpus.name}", references
        ),
        world=world,
        log=log,
    )
    trainer.resume()
    return trainer


def _fit(trainer: Trainer, settings: Settings, corpus: Corpus) -> int:
    """Write the run's settings and train; return the exit status."""
    world, folder, done = trainer.world, trainer.folder, len(trainer.history)
    if settings.train.epochs < done:
        raise InputError(f"--epochs: {done} are already done; give as many or more")
    if world.is_main:
        machine = {"device": str(trainer.device), "processes": world.size}
        start = {key: trainer.metadata[key] for key in trainer.metadata.keys() & {"init_from"}}
        details = {**_identity(corpus), **start, **machine}
        checkpoint.write_run_settings(folder, asdict(settings), details)
    count = sum(parameter.numel() for parameter in trainer.model.parameters())
    device = trainer.device
    where = str(device) if world.size == 1 else f"{device.type} in {world.size} processes"
    numbers = settings.train.precision
    print(f"training {count:,} weights on {where} in {numbers}; files go to {folder}/")
    try:
        return 0 if trainer.fit() else 130
    except DivergedError as error:
        print(f"main.py: {error}", file=sys.stderr)
        return 1
    except (MemoryError, RuntimeError) as error:
        if "memory" not in str(error):
            raise
        raise InputError(
            f"out of memory ({one_line(error)}); reduce --batch_size, --bptt, --hidden_size or"
            f" --embed_size; the epochs so far are in {folder}/"
        ) from None


def finish_run(
    settings: Settings, corpus: Corpus, datasets: Datasets, baselines: Baselines, trainer: Trainer
) -> None:
    """Fit the ends, evaluate the best weights, plot, sample, and print where everything is."""
    folder, seed, path = trainer.folder, settings.run.seed, trainer.weights_path
    model = PianoLSTM.load(path, trainer.device)
    if "end_calibration" not in model.metadata:
        fit_ends(model, datasets["train"], datasets["valid"], trainer.device)
    test = PieceNLLs.of_pieces(nlls_per_frame(model, datasets["test"].rolls))
    model.metadata["test_nlls"] = test._asdict()
    model.save(path, model.metadata)
    results = compute_results(model, corpus, datasets, baselines, trainer.device)
    results["seconds"] = sum(epoch.seconds for epoch in trainer.history)
    results["epochs"] = len(trainer.history)
    results["stopped_early"] = trainer.stopped_early
    results |= {key: trainer.metadata[key] for key in trainer.metadata.keys() & {"init_from"}}
    write_json(folder / "results.json", results)
    if trainer.history:
        trainer.plot(trainer.history)
    table, rows = results_table(results, corpus.name, corpus.published)
    print(table)
    plan = plan_piece(model, settings.sample, PlaySettings())
    for remark in plan.remarks:
        print(remark, file=sys.stderr)
    pieces = sample_plan(model, plan, settings.sample, seed, threads=settings.machine.threads)
    known = KnownPieces(datasets["train"].rolls)
    origin = Origin(path, model.metadata, seed, asdict(settings.sample), known=known)
    samples = folder / "samples"
    write_samples(pieces, samples, origin)
    page = write_index(
        folder,
        f"PianoLSTM on {corpus.name}",
        samples,
        numbers=rows,
        picture="loss.png",
        settings=asdict(settings),
    )
    print(f"loss curve  {folder}/loss.png\nsamples     {samples}/\nlisten      {page}")
    print(f"more music  python generate.py {folder}")


def _open_run(settings: Settings, flags: argparse.Namespace, corpus: Corpus) -> Path:
    """Return the folder of a new run, or of the run to resume."""
    if flags.resume is not None:
        return checkpoint.reopen_run(Path(flags.resume), corpus.fingerprint)
    return checkpoint.new_run_dir(settings.run.run_dir, corpus.name)


def _make_datasets(corpus: Corpus) -> tuple[Datasets, Corpus]:
    """Return the splits as datasets, and the corpus without them, so that none is held twice."""
    datasets = {split: RollDataset(rolls) for split, rolls in corpus.splits.items()}
    return datasets, replace(corpus, splits={})


def _identity(corpus: Corpus) -> dict[str, str]:
    """Return the name and the fingerprint of the data of a run or a weights file."""
    return {"dataset": corpus.name, "fingerprint": corpus.fingerprint}


def _print_remarks(corpus: Corpus) -> None:
    """Print on stderr what was left out of the corpus."""
    for remark in corpus.remarks:
        print(remark, file=sys.stderr)


# ---- weights to start from -----------------------------------------------------------------------


def open_source(settings: Settings, flags: argparse.Namespace) -> Source | None:
    """Return the trained weights that a run starts from; None for a run without.

    Args:
        settings: the user's settings, or those of the run to resume.
        flags: the command line.

    Raises:
        InputError: there are no such weights, their sizes are not those that the user gave, or
            they are not the ones that the run to resume started from.
    """
    name = settings.run.init_from
    if name is None:
        return None
    record = None
    if flags.resume is not None:
        record = read_json(Path(flags.resume) / "settings.json")["init_from"]
        if (Path(flags.resume) / "state.pt").is_file():
            return Source(record, None)
    try:
        path = checkpoint.find_weights(name)
        model = PianoLSTM.load(path)
    except InputError as error:
        raise InputError(f"--init_from {error}") from None
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    if record is not None:
        if record["sha256"] != sha256:
            raise InputError(f"{path}: not the weights that {flags.resume} started from")
        return Source(record, model)
    for key, value in ModelSettings.given(flags).items():
        if key not in ADAPTABLE and value != (own := getattr(model.settings, key)):
            raise InputError(
                f"--{key} {value}: the weights {path} have {key} {own}; leave the flag out"
            )
    identity = {key: model.metadata[key] for key in ("dataset", "fingerprint")}
    return Source({**identity, "sha256": sha256}, model)


def evaluate_source(
    source: Source, datasets: Datasets, device: torch.device, world: World
) -> Source:
    """Return the weights with their NLLs on the valid and the test split, before any training."""
    record = None
    if world.is_main and source.model is not None:
        model = source.model.to(device)
        scores = {
            f"{split}_nll": evaluate(model, datasets[split], device, accuracy=False).nll
            for split in ("valid", "test")
        }
        record = source.record | scores
        print(f"weights before training: valid {record['valid_nll']:.3f} nats/frame")
    return replace(source, record=world.broadcast(record))


def _print_other_frames(corpus: Corpus, model: PianoLSTM) -> None:
    """Print a note on stderr if the frames of the corpus are not those that the weights learned."""
    learned = model.metadata["frame_beats"]
    if corpus.frame_beats != learned:
        print(
            f"note: a frame of {corpus.name} is {corpus.frame_beats:g} beats, one of the weights"
            f" {learned:g}",
            file=sys.stderr,
        )


# ---- evaluation ----------------------------------------------------------------------------------


def compute_results(
    model: PianoLSTM | KeyAverage,
    corpus: Corpus,
    datasets: Datasets,
    baselines: Baselines,
    device: torch.device,
) -> dict[str, Any]:
    """Return the contents of `results.json`, but for the training time.

    A named set has the counts of the papers on it too: of four voices, and on the test pieces
    whose melody is in no training piece.
    """
    results: dict[str, Any] = _identity(corpus)
    results |= {name: model.metadata.get(name) for name in ("seed", "best_epoch", "seconds")}
    results["average_keys"] = isinstance(model, KeyAverage)
    known = recognise(corpus.fingerprint)
    named_set = None if known is None else known[1]
    for split in ("valid", "test"):
        results[split] = asdict(evaluate(model, datasets[split], device))
        if named_set is not None and named_set.voice_nats is not None:
            nats = results[split]["nll_first_frame_scored"]
            results[split]["nll_per_voice"] = nats / 4
            results[split]["nll_per_voice_at_most"] = (nats + named_set.voice_nats) / 4
        results[split]["unigram"] = baselines.unigram(datasets[split].rolls)
        results[split]["first_order_markov"] = baselines.first_order_markov(datasets[split].rolls)
    if named_set is not None and named_set.independent_test:
        pieces = [datasets["test"].rolls[index] for index in named_set.independent_test]
        scores = asdict(evaluate(model, RollDataset(pieces), device))
        results["independent_test"] = {"pieces": len(pieces), **scores}
    return results


def evaluate_files(flags: argparse.Namespace, parser: Parser) -> int:
    """Print the results of a run or a weights file; return the exit status.

    Raises:
        InputError: the weights or the data can't be read.
    """
    for group in GROUPS.values():
        if group not in (DataSettings, MachineSettings) and (given := group.given(flags)):
            parser.error(f"--{next(iter(given))}: has no effect with --evaluate; leave it out")
    DataSettings.from_flags(flags, parser)  # reports a value out of range
    machine = MachineSettings.from_flags(flags, parser)
    device = choose_device(machine.device, machine.threads)
    path = checkpoint.find_weights(flags.evaluate)
    model = PianoLSTM.load(path, device)
    evaluated = average_keys(model, model.settings.transpose_prob) if flags.average_keys else model
    corpus = load(training_data(path, model.metadata, DataSettings.given(flags)), named=True)
    if corpus.fingerprint != model.metadata["fingerprint"]:
        dataset = model.metadata["dataset"]
        print(f"note: {path} was trained on other data: {dataset}", file=sys.stderr)
    _print_remarks(corpus)
    datasets, corpus = _make_datasets(corpus)
    baselines = Baselines(datasets["train"].rolls)
    results = compute_results(evaluated, corpus, datasets, baselines, device)
    if (path.parent / "results.json").is_file():
        kept = read_json(path.parent / "results.json")
        names = ["seconds", "epochs", "stopped_early"]
        if corpus.fingerprint == model.metadata["fingerprint"]:
            names.append("init_from")  # NLLs on these data
        results |= {name: kept[name] for name in names if name in kept}
    table = results_table(results, corpus.name, corpus.published)[0]
    if flags.surprise is not None:
        play = PlaySettings(surprise=flags.surprise)
        results["surprise"], lines = measure_surprise(path, model, SampleSettings(), play)
        table = "\n".join([table, "", *lines])
    print(json.dumps(results, indent=2) if flags.json else table)
    return 0


# ---- inspection ----------------------------------------------------------------------------------


def inspect_data(flags: argparse.Namespace, parser: Parser) -> int:
    """Print and draw what the data hold; return the exit status."""
    for group in GROUPS.values():
        for name in group.given(flags).keys() - {"run_dir"}:
            if group not in (DataSettings, MachineSettings):
                parser.error(f"--{name}: has no effect with --inspect; leave it out")
    settings = DataSettings.from_flags(flags, parser)
    folder = RunSettings.from_flags(flags, parser).run_dir
    corpus = load(settings, named="dataset" in flags)
    metres = None
    if settings.data is not None and Path(settings.data).is_dir():
        metres = count_metres(find_midi_files(Path(settings.data)))
    write_inspection(corpus, metres, Path(folder or "."))
    return 0


def write_inspection(corpus: Corpus, metres: Mapping[str, int] | None, folder: Path) -> None:
    """Print what a corpus holds, and draw it in a folder.

    Args:
        corpus: the corpus.
        metres: its MIDI files by metre; None = not known.
        folder: the folder of the picture.

    Raises:
        InputError: the folder is not writable.
    """
    contents = inspect_splits(corpus.splits, content_hash)
    title = f"{corpus.name}: {sum(len(rolls) for rolls in corpus.splits.values()):,} pieces"
    figure = plot_inspection(contents, corpus.splits["train"][0], corpus.frame_beats, title)
    path = folder / f"inspect-{corpus.name}.png"
    with atomic_write(path) as temporary:
        figure.savefig(temporary, format="png", dpi=120)
    print(inspection_text(corpus.name, contents, corpus.frame_beats, metres, corpus.remarks))
    print(f"\npicture  {path}")


if __name__ == "__main__":
    run_script(main)
