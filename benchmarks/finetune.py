"""Fine-tune on 20 tunes, and compare with training from nothing and with the weights as they are.

    python benchmarks/finetune.py                      three seeds, 40 minutes on one core
    python benchmarks/finetune.py --only fine-tuned    these rows alone
    python benchmarks/finetune.py --tunes FOLDER       keep the tunes as MIDI files there

The tunes are reels of Ryan's Mammoth Collection (Boston 1883), which the package music21 carries as
ABC: those noted in eighths, in a random order, 20 to train on, 30 for validation and 50 kept aside.
music21 writes them as MIDI files, repeats played out, and main.py reads these, a frame an eighth.
Each row of the table is a command, `main.py` in a process of its own; the validation split chooses
the epoch, the test split is read once.
"""

import argparse
import json
import random
import re
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

HOME = Path(__file__).resolve().parents[1]
SIZES = {"train": 20, "valid": 30, "test": 50}
COMMANDS = {  # flags of main.py
    "fine-tuned": "--init_from {weights}",
    "default": "--batch_size 4 --epochs 100 --patience 15",
    "best": "--preset best --batch_size 4 --max_steps 2000",
}


def write_tunes(folder: Path) -> None:
    """Write the reels as MIDI files into train/, valid/ and test/."""
    import music21

    sys.path.insert(0, str(HOME))
    from pianolstm.files import InputError
    from pianolstm.inputs.folders import content_hash
    from pianolstm.midi import read_midi

    abc = Path(music21.__file__).parent / "corpus" / "ryansMammoth"
    reels = [
        path
        for path in sorted(abc.glob("*Reel*.abc"))
        if re.search(r"^L: ?1/8", path.read_text(encoding="utf-8", errors="replace"), re.MULTILINE)
    ]
    random.Random(0).shuffle(reels)  # noqa: S311, no secret
    wanted = [split for split, size in SIZES.items() for _ in range(size)]
    seen: set[str] = set()
    for path in reels:
        if len(seen) == len(wanted):
            return
        target = folder / wanted[len(seen)] / f"{path.stem}.mid"
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                music21.converter.parse(path, format="abc").write("midi", target)
            roll = read_midi(target)[0]
        except (music21.exceptions21.Music21Exception, InputError) as error:
            print(f"{path.name} left out: {error}", file=sys.stderr)  # repeats it can't play out
            continue
        if (digest := content_hash(roll)) in seen:  # the same tune, perhaps in another key
            target.unlink()
        seen.add(digest)
    raise SystemExit(f"music21's corpus has fewer than {len(wanted)} such reels")


def train(name: str, seed: int, tunes: Path, options: argparse.Namespace) -> dict[str, float]:
    """Run one command, and return its results."""
    with tempfile.TemporaryDirectory() as temporary:
        run = Path(temporary) / "run"
        flags = COMMANDS[name].format(weights=options.weights).split()
        command = [sys.executable, str(HOME / "main.py"), "--data", str(tunes), *flags]
        command += [f"--seed={seed}", f"--threads={options.threads}", f"--run_dir={run}"]
        command += ["--num_samples=1", "--seconds=5"]
        began = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        results = json.loads((run / "results.json").read_text(encoding="utf-8"))
    start = results.get("init_from", {})
    return {
        "valid": results["valid"]["nll"],
        "test": results["test"]["nll"],
        "valid before": start.get("valid_nll"),
        "test before": start.get("test_nll"),
        "best epoch": results["best_epoch"],
        "epochs": results["epochs"],
        "seconds": time.perf_counter() - began,
    }


def line(label: str, command: str, runs: list[dict[str, float]], suffix: str = "") -> str:
    """Return a row of the table."""
    cells = []
    for split in ("valid", "test"):
        nlls = [run[f"{split}{suffix}"] for run in runs]
        each = f" ({', '.join(f'{nll:.3f}' for nll in nlls)})" if len(set(nlls)) > 1 else ""
        cells.append(f"{statistics.mean(nlls):.3f}{each}")
    if suffix:
        cells += ["", ""]
    else:
        cells.append(", ".join(f"{run['best epoch']:.0f} of {run['epochs']:.0f}" for run in runs))
        cells.append(f"{statistics.mean(run['seconds'] for run in runs) / 60:.1f} min")
    return f"| {label} | `{command}` | {' | '.join(cells)} |"


def main() -> None:
    """Write the tunes, run the commands and print the table."""
    parser = argparse.ArgumentParser(description="What fine-tuning on 20 tunes is worth.")
    parser.add_argument("--only", nargs="+", choices=COMMANDS, default=list(COMMANDS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[3111, 1, 2])
    parser.add_argument("--weights", default="nottingham", help="weights to start from")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of each run")
    parser.add_argument("--tunes", type=Path, help="folder of the MIDI files; default: temporary")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        tunes = options.tunes or Path(temporary) / "reels"
        if not (tunes / "test").is_dir():
            write_tunes(tunes)
        print("| | flags of main.py | valid | test | best epoch | time |")
        print("| --- | --- | --- | --- | --- | --- |", flush=True)
        for name in options.only:
            runs = [train(name, seed, tunes, options) for seed in options.seeds]
            flags = COMMANDS[name].format(weights=options.weights)
            if name == "fine-tuned":
                print(line("weights as they are", options.weights, runs, " before"))
            print(line(name, flags, runs), flush=True)


if __name__ == "__main__":
    main()
