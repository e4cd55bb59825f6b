"""Train a recurrent model on piano-rolls, evaluate it, and sample from it.

python main.py                         the default recipe on Nottingham
python main.py --batch_size=64 --lr=0.002
python main.py --preset best           a lower NLL in 18 minutes on two cores
python main.py --resume runs/NAME      continue a stopped run
python main.py --evaluate runs/NAME    evaluate again, from the files
"""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from data import RollDataset, load, training_data
from generate import check_settings, plan_piece, read_given
from model import PianoLSTM, build_model
from pianolstm import checkpoint
from pianolstm.cli import Parser, add_flags
from pianolstm.files import InputError, one_line, read_json, write_json
from pianolstm.inputs.datasets import Corpus
from pianolstm.metrics.baselines import Baselines
from pianolstm.metrics.copying import window_hashes
from pianolstm.metrics.form import loop_bounds
from pianolstm.outputs.plots import plot_losses
from pianolstm.outputs.report import corpus_summary, results_table
from pianolstm.outputs.samples import Origin, write_index, write_samples
from pianolstm.runtime import World, choose_device, choose_precision, join_world, run_script
from settings import (
    GROUPS,
    PRESETS,
    DataSettings,
    MachineSettings,
    PlaySettings,
    Settings,
    with_preset,
)
from train import DivergedError, Trainer, count_epochs, evaluate

# --resume may change the length of training, and where things are; the rest is the run's own.
RESUMABLE = {"epochs", "data", "data_dir", "device", "threads"}

Datasets = dict[str, RollDataset]  # by split


def main(argv: Sequence[str] | None = None) -> int:
    """Train, or evaluate; return the exit status."""
    flags, parser = parse_flags(argv)
    if flags.evaluate is not None:
        return evaluate_files(flags, parser)
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
    parser.add_argument("--json", action="store_true", help="with --evaluate: print JSON")
    parser.add_argument(
        "--preset",
        choices=tuple(PRESETS),
        help="recipe whose values replace the defaults below; settings.py explains them",
    )
    add_flags(parser, *GROUPS.values())
    flags = parser.parse_args(argv)
    if flags.resume is not None and flags.evaluate is not None:
        parser.error("--resume, --evaluate: give only one of them")
    if flags.json and flags.evaluate is None:
        parser.error("--json: only with --evaluate")
    if flags.preset is not None and (flags.resume, flags.evaluate) != (None, None):
        parser.error("--preset: not with --resume or --evaluate; a run has its own settings")
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
    with join_world(choose_device(machine.device, machine.threads)) as (world, device):
        named = flags.resume is not None or "dataset" in flags
        with world.main_process_first():
            corpus = load(settings.data, named=named)
        if world.is_main:
            _print_remarks(corpus)
            print(corpus_summary(corpus.name, corpus.splits))
        check_settings(settings.sample)  # reports what is wrong before the training
        read_given(settings.sample, PlaySettings(), corpus.reading)
        datasets, corpus = _make_datasets(corpus)
        settings = resolve(settings, flags, corpus, datasets["train"], device)
        baselines = Baselines(datasets["train"].rolls)
        folder = world.broadcast(_open_run(settings, flags, corpus) if world.is_main else None)
        trainer = make_trainer(settings, corpus, datasets, baselines, device, folder, world)
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
) -> Settings:
    """Return the final settings: those that depend on the corpus or the device are filled in.

    These are the preset's values, the number of epochs, the precision, and absolute paths, with
    which the run can be resumed from any folder.

    Raises:
        InputError: --max_steps amounts to too many epochs.
    """
    if flags.resume is None:
        frames = int(train.lengths.sum())
        settings = with_preset(settings, flags.preset or "default", vars(flags).keys(), frames)
    recipe, data = settings.train, settings.data
    try:
        recipe = replace(
            recipe,
            epochs=count_epochs(recipe, train.lengths),
            max_steps=0,
            precision=choose_precision(recipe.precision, device),
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
    return replace(settings, data=data, train=recipe)


def make_trainer(
    settings: Settings,
    corpus: Corpus,
    datasets: Datasets,
    baselines: Baselines,
    device: torch.device,
    folder: Path,
    world: World,
) -> Trainer:
    """Return a trainer, in the state that the run's folder has.

    A new model is initialised from the seed, and its output biases from the unigram distribution.
    """
    torch.manual_seed(settings.run.seed)
    try:
        model = build_model(settings.model)
    except RuntimeError as error:  # PyTorch has no error class of its own for lack of memory
        raise InputError(f"--hidden_size, --layers: out of memory ({one_line(error)})") from None
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
        },
        plot=lambda history: plot_losses(
            folder / "loss.png", history, f"PianoLSTM on {corpus.name}", references
        ),
        world=world,
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
        details = {**_identity(corpus), **machine}
        checkpoint.write_run_settings(folder, asdict(settings), details)
    count = sum(parameter.numel() for parameter in trainer.model.parameters())
    precision = settings.train.precision
    numbers = "" if precision == "float32" else f" in {precision}"
    device = trainer.device
    where = str(device) if world.size == 1 else f"{device.type} in {world.size} processes"
    print(f"training {count:,} weights on {where}{numbers}; files go to {folder}/")
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
    """Evaluate the best weights, plot the losses, sample, and print where everything is."""
    folder, seed = trainer.folder, settings.run.seed
    model = PianoLSTM.load(trainer.weights_path, trainer.device)
    results = _identity(corpus) | compute_results(model, datasets, baselines, trainer.device)
    results["seconds"] = sum(epoch.seconds for epoch in trainer.history)
    write_json(folder / "results.json", results)
    if trainer.history:
        trainer.plot(trainer.history)
    table, rows = results_table(results, corpus.name, corpus.published)
    print(table)
    plan = plan_piece(model, settings.sample, PlaySettings())
    for remark in plan.remarks:
        print(remark, file=sys.stderr)
    pieces = plan.sample(model, settings.sample, seed, threads=settings.machine.threads)
    known = window_hashes(datasets["train"].rolls)
    origin = Origin(
        trainer.weights_path, model.metadata, seed, asdict(settings.sample), known=known
    )
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


# ---- evaluation ----------------------------------------------------------------------------------


def compute_results(
    model: PianoLSTM, datasets: Datasets, baselines: Baselines, device: torch.device
) -> dict[str, Any]:
    """Return the contents of `results.json` for a loaded model, but for the training time."""
    results = {name: model.metadata.get(name) for name in ("seed", "best_epoch", "seconds")}
    for split in ("valid", "test"):
        results[split] = {
            **asdict(evaluate(model, datasets[split], device)),
            "unigram": baselines.unigram(datasets[split].rolls),
            "first_order_markov": baselines.first_order_markov(datasets[split].rolls),
        }
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
    corpus = load(training_data(path, model.metadata, DataSettings.given(flags)), named=True)
    if corpus.fingerprint != model.metadata["fingerprint"]:
        dataset = model.metadata["dataset"]
        print(f"note: {path} was trained on other data: {dataset}", file=sys.stderr)
    _print_remarks(corpus)
    datasets, corpus = _make_datasets(corpus)
    baselines = Baselines(datasets["train"].rolls)
    results = _identity(corpus) | compute_results(model, datasets, baselines, device)
    if (path.parent / "results.json").is_file():
        results["seconds"] = read_json(path.parent / "results.json").get("seconds")
    if flags.json:
        print(json.dumps(results, indent=2))
    else:
        print(results_table(results, corpus.name, corpus.published)[0])
    return 0


if __name__ == "__main__":
    run_script(main)
