"""Train a recurrent model on piano-rolls, score it, and hear what it plays.

python main.py                                 Nottingham, the default recipe
python main.py --batch_size=64 --lr=0.002      any setting of settings.py is a flag
python main.py --preset best                   a larger model and a longer training
python main.py --data my-midi-folder           other data
python main.py --resume runs/NAME              go on with a run that was stopped
python main.py --evaluate runs/NAME --json     the scores of a run again, from its files
"""

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

import checkpoint
from corpora import Corpus, load
from data import RollDataset
from distributed import World, joined
from evaluation import Baselines, evaluate
from files import InputError, one_line, run_program
from flags import Parser, add_flags
from generate import data_of, free_piece, sample_rolls
from machine import choose_precision, use_machine
from measures import known_windows
from model import PianoLSTM
from presets import PRESETS
from prompt import read_prompt
from rolls import Rolls
from samples import Origin, write_index, write_samples
from settings import (
    GROUPS,
    DataSettings,
    MachineSettings,
    Settings,
)
from train import DivergedError, Trainer, count_epochs, plot_losses

# What --resume may change: how long, and where things are. All else is the run's own.
RESUMABLE = {"epochs", "data", "data_dir", "device", "threads"}


def read_flags(argv: Sequence[str] | None) -> tuple[argparse.Namespace, Parser]:
    """Parse the command line; what settings come of it depends on what is to be done."""
    parser = Parser(
        prog="main.py",
        description="Train a recurrent model on piano-rolls, score it, and hear what it plays.",
    )
    parser.add_argument("--resume", metavar="RUN", help="go on with the stopped run in this folder")
    parser.add_argument(
        "--evaluate", metavar="RUN_OR_WEIGHTS", help="score a run or a weights file, train nothing"
    )
    parser.add_argument("--json", action="store_true", help="with --evaluate: print JSON, no table")
    parser.add_argument(
        "--preset",
        choices=tuple(PRESETS),
        help="values for the settings below, other than their defaults; presets.py explains them",
    )
    add_flags(parser, *GROUPS.values())
    flags = parser.parse_args(argv)
    if flags.resume is not None and flags.evaluate is not None:
        parser.error("--resume and --evaluate exclude each other")
    if flags.json and flags.evaluate is None:
        parser.error("--json goes with --evaluate")
    if flags.preset is not None and (flags.resume, flags.evaluate) != (None, None):
        parser.error("--preset: a run has its own settings; it goes with neither of these flags")
    if "" in (flags.resume, flags.evaluate):
        parser.error("--resume, --evaluate: the name is empty")
    return flags, parser


def main(argv: Sequence[str] | None = None) -> int:
    """Do what the flags ask for; return the exit status."""
    flags, parser = read_flags(argv)
    if flags.evaluate is not None:
        return evaluate_files(flags, parser)
    if flags.resume is not None:
        resumed = resumed_settings(flags, parser)
        return train_run(lambda frames: resumed, named=True, resumed=Path(flags.resume))

    def settings_for(frames: int) -> Settings:
        preset = PRESETS[flags.preset or "default"](frames)
        if "epochs" in flags:
            preset.pop("steps", None)  # the user has said how long
        return Settings.of(lambda _, group: group.from_flags(flags, parser, preset))

    return train_run(settings_for, named="dataset" in flags, resumed=None)


# ---- training a run ------------------------------------------------------------------------------


def resumed_settings(flags: argparse.Namespace, parser: Parser) -> Settings:
    """Return the settings of the run to go on with, and the few that may be changed for it.

    Raises:
        InputError: the folder is no run.
    """
    saved = checkpoint.read_settings(Path(flags.resume))
    for group in GROUPS.values():
        for name in group.given(flags).keys() - RESUMABLE:
            parser.error(
                f"--{name}: a run that goes on keeps its own; start a new one to change it"
            )
    try:
        return Settings.of(lambda name, group: replace(getattr(saved, name), **group.given(flags)))
    except ValueError as error:
        parser.error(str(error))


def train_run(settings_for: Callable[[int], Settings], *, named: bool, resumed: Path | None) -> int:
    """Train, then score and play the best weights; return the exit status.

    Args:
        settings_for: the settings, given how many frames there are to learn from.
        named: the user named the data set.
        resumed: the folder of the run to go on with.
    """
    settings = settings_for(1)  # a wrong one is better known before anything is loaded
    with joined(use_machine(settings.machine)) as (world, device):
        with world.first_goes_first():
            corpus = load(settings.data, named=named)
        return train_corpus(settings_for, corpus, world, device, resumed)


def train_corpus(
    settings_for: Callable[[int], Settings],
    corpus: Corpus,
    world: World,
    device: torch.device,
    resumed: Path | None,
) -> int:
    """Train on a corpus, as `train_run` does."""
    settings = settings_for(1)
    if world.first:
        report(corpus)
    data = as_loaded(settings.data, corpus)
    read_prompt(settings.sample, corpus.frame_beats, corpus.name)
    datasets, corpus = datasets_of(corpus)
    settings = settings_for(int(datasets["train"].lengths.sum()))
    epochs = count_epochs(settings.train, datasets["train"].lengths)
    precision = choose_precision(settings.train.precision, device)
    try:
        train = replace(settings.train, epochs=epochs, steps=0, precision=precision)
    except ValueError as error:
        raise InputError(
            f"--steps {settings.train.steps}: too many for these data ({error})"
        ) from None
    settings = replace(settings, data=data, train=train)
    baselines = Baselines(datasets["train"])
    folder = world.agree(open_run(settings, corpus, resumed) if world.first else None)
    trainer = make_trainer(settings, corpus, datasets, baselines, device, folder, world)
    trainer.resume()
    if settings.train.epochs < len(trainer.history):
        raise InputError(f"--epochs: {len(trainer.history)} are done already; give as many or more")
    if world.first:
        machine = {"device": str(device), "processes": world.size}
        checkpoint.write_settings(folder, settings, {**identity(corpus), **machine})
    weights = sum(parameter.numel() for parameter in trainer.model.parameters())
    numbers = "" if precision == "float32" else f" in {precision}"
    where = str(device) if world.size == 1 else f"{device.type} in {world.size} processes"
    print(f"training {weights:,} weights on {where}{numbers}; files go to {folder}/")
    try:
        status = 0 if trainer.fit() else 130
    except DivergedError as error:
        print(f"main.py: {error}", file=sys.stderr)
        status = 1
    except (MemoryError, RuntimeError) as error:
        if "memory" not in str(error):  # how PyTorch says that it is short
            raise
        raise InputError(
            f"no memory ({one_line(error)}); give less --batch_size, --bptt, --hidden_size or"
            f" --embed_size; what was learnt before is in {folder}/"
        ) from None
    if not world.first:
        return status
    if trainer.weights_path.is_file():
        finish_run(settings, corpus, datasets, baselines, trainer)
    elif status == 0:
        raise InputError(f"{trainer.weights_path}: is gone, and there is nothing left to train")
    return status


def as_loaded(settings: DataSettings, corpus: Corpus) -> DataSettings:
    """Return where the data were found, so that the run can be gone on with from anywhere."""
    data_dir = str(Path(settings.data_dir).resolve())
    if settings.data is not None:
        return replace(settings, data=str(Path(settings.data).resolve()), data_dir=data_dir)
    # The set that was named, or the one that stands in for it.
    return replace(settings, dataset=corpus.name, data_dir=data_dir)


def datasets_of(corpus: Corpus) -> tuple[dict[str, RollDataset], Corpus]:
    """Return the splits as datasets, and the corpus without them: frames are held once."""
    datasets = {split: RollDataset(rolls) for split, rolls in corpus.splits.items()}
    return datasets, replace(corpus, splits={})


def make_trainer(
    settings: Settings,
    corpus: Corpus,
    datasets: dict[str, RollDataset],
    baselines: Baselines,
    device: torch.device,
    folder: Path,
    world: World,
) -> Trainer:
    """Return a trainer of a fresh model, drawn from the seed, that starts from the marginals."""
    torch.manual_seed(settings.run.seed)
    try:
        model = PianoLSTM(settings.model)
    except RuntimeError as error:  # how PyTorch says that memory is short
        raise InputError(f"--hidden_size, --layers: no memory ({one_line(error)})") from None
    model.head.set_marginals(baselines.marginals.float())
    model.to(device)

    levels = [
        ("constant marginal", baselines.marginal(datasets["valid"])),
        ("copy the previous frame", baselines.copy_previous(datasets["valid"])),
        *((f"{name}, test", nll) for name, nll in corpus.published[:1]),
    ]
    return Trainer(
        model,
        datasets["train"],
        lambda model: evaluate(model, datasets["valid"], device, accuracy=False).nll,
        settings.train,
        settings.run.seed,
        device,
        folder,
        record={
            **identity(corpus),
            "frame_beats": corpus.frame_beats,
            "seed": settings.run.seed,
            "train": asdict(settings.train),
        },
        draw=lambda history: plot_losses(
            folder / "loss.png", history, f"PianoLSTM on {corpus.name}", levels
        ),
        world=world,
    )


def identity(corpus: Corpus) -> dict[str, str]:
    """Return what says which data a run or a weights file belongs to."""
    return {"dataset": corpus.name, "fingerprint": corpus.fingerprint}


def open_run(settings: Settings, corpus: Corpus, resumed: Path | None) -> Path:
    """Make the run's folder, or see that the data are those of the one to go on with; return it.

    Raises:
        InputError: the folder is taken, or the resumed run was trained on other data.
    """
    if resumed is None:
        folder = checkpoint.new_run_dir(settings.run.run_dir, corpus.name)
    else:
        folder = resumed
        for left in folder.rglob(".*.tmp"):  # half-written when the run was killed
            left.unlink(missing_ok=True)
        if checkpoint.read_json(folder / "settings.json").get("fingerprint") != corpus.fingerprint:
            raise InputError(f"--resume {folder}: trained on other data; name them with --data")
    return folder


def finish_run(
    settings: Settings,
    corpus: Corpus,
    datasets: dict[str, RollDataset],
    baselines: Baselines,
    trainer: Trainer,
) -> None:
    """Score the best weights, draw the losses, play, and say where everything is."""
    folder = trainer.folder
    model, record = checkpoint.load_model(trainer.weights_path, trainer.device)
    results = identity(corpus) | score(model, record, datasets, baselines, trainer.device)
    results["seconds"] = sum(epoch.seconds for epoch in trainer.history)
    checkpoint.write_json(folder / "results.json", results)
    if trainer.history:
        trainer.draw(trainer.history)
    rows = print_table(results, corpus)
    seed = settings.run.seed
    piece = free_piece(model, record, settings.sample)
    rolls = sample_rolls(model, piece, settings.sample, seed, threads=settings.machine.threads)
    known = known_windows(datasets["train"].rolls)
    origin = Origin(trainer.weights_path, record, seed, settings.sample, known=known)
    samples = folder / "samples"
    write_samples(rolls, samples, origin)
    page = write_index(
        folder,
        f"PianoLSTM on {corpus.name}",
        samples,
        numbers=rows,
        picture="loss.png",
        settings=asdict(settings),
    )
    print(f"loss curve  {folder}/loss.png\nsamples     {samples}/\nlisten      {page}")
    print(f"play more   python generate.py {folder}")


def report_remarks(corpus: Corpus) -> None:
    """Say what was left out."""
    for remark in corpus.remarks:
        print(remark, file=sys.stderr)


def report(corpus: Corpus) -> None:
    """Say what there is to learn from, and what was left out."""
    report_remarks(corpus)
    sizes = ", ".join(
        f"{split} {len(rolls)} tunes / {len(Rolls.of(rolls).packed):,} frames"
        for split, rolls in corpus.splits.items()
    )
    print(f"{corpus.name}: {sizes}")


# ---- scores --------------------------------------------------------------------------------------


def score(
    model: PianoLSTM,
    record: checkpoint.Record,
    datasets: dict[str, RollDataset],
    baselines: Baselines,
    device: torch.device,
) -> dict[str, Any]:
    """Return what `results.json` says of a model; how long it took is not known here."""
    results = {name: record.get(name) for name in ("seed", "best_epoch", "seconds")}
    for split in ("valid", "test"):
        results[split] = {
            **asdict(evaluate(model, datasets[split], device)),
            "marginal": baselines.marginal(datasets[split]),
            "copy_previous": baselines.copy_previous(datasets[split]),
        }
    return results


def evaluate_files(flags: argparse.Namespace, parser: Parser) -> int:
    """Print the scores of a run or a weights file, as `results.json` has them."""
    for group in GROUPS.values():
        if group not in (DataSettings, MachineSettings) and (given := group.given(flags)):
            parser.error(f"--{next(iter(given))}: has nothing to do with --evaluate")
    DataSettings.from_flags(flags, parser)  # what is given is held to its range, here and now
    device = use_machine(MachineSettings.from_flags(flags, parser))
    path = checkpoint.find_weights(flags.evaluate)
    model, record = checkpoint.load_model(path, device)
    corpus = load(data_of(path, record, DataSettings.given(flags)), named=True)
    if corpus.fingerprint != record["fingerprint"]:
        print(f"note: {path} was trained on other data: {record['dataset']}", file=sys.stderr)
    report_remarks(corpus)
    datasets, corpus = datasets_of(corpus)
    baselines = Baselines(datasets["train"])
    results = identity(corpus) | score(model, record, datasets, baselines, device)
    if (path.parent / "results.json").is_file():
        results["seconds"] = checkpoint.read_json(path.parent / "results.json").get("seconds")
    if flags.json:
        print(json.dumps(results, indent=2))
    else:
        print_table(results, corpus)
    return 0


def print_table(results: dict[str, Any], corpus: Corpus) -> list[tuple[str, str, str]]:
    """Print the scores beside those of the baselines and of published models; return the rows."""
    labels = [
        (f"PianoLSTM, epoch {results['best_epoch']}", "nll"),
        ("  first frame scored too", "nll_first_frame_scored"),
        ("copy the previous frame", "copy_previous"),
        ("constant marginal", "marginal"),
    ]
    valid, test = results["valid"], results["test"]
    rows = [(label, f"{valid[key]:.3f}", f"{test[key]:.3f}") for label, key in labels]
    rows += [(label, "", f"{nll:.2f}") for label, nll in corpus.published]
    accuracy = "frame_accuracy"
    rows.append(("frame accuracy", f"{valid[accuracy]:.1%}", f"{test[accuracy]:.1%}"))
    print(f"\n{corpus.name}: NLL in nats per frame, lower is better\n")
    print(f"  {'':28}{'valid':>8}{'test':>8}")
    for row in rows:
        print("  {:28}{:>8}{:>8}".format(*row))
    print()
    return rows


if __name__ == "__main__":
    run_program(main)
