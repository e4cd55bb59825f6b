"""Train the models of the tables in docs/results.md, and print the tables as Markdown.

    python benchmarks/results.py                       the results: hours on two CPU cores
    python benchmarks/results.py ablation              --preset best without one part at a time
    python benchmarks/results.py --only jsb-best       only the rows with these names
    python benchmarks/results.py --jobs 2 --threads 1  two runs side by side

Each run is one `main.py` command, in its own folder below --output_dir. A finished run is not
repeated, so a table that was stopped can be continued; name another folder to train all again. The
validation split chooses the weights of each run; the test split is evaluated once, at its end.
Times are those of whole commands, and comparable only with --jobs 1.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

HOME = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Row:
    """A row of a table: one command, run with several seeds."""

    name: str
    flags: str  # of main.py
    seeds: tuple[int, ...] = (3111, 1, 2)


# The recipe of all ablations: about half of the preset's training.
SHORT = "--preset best --max_steps=3000"
TABLES = {
    "results": (
        Row("default", ""),
        Row("bernoulli", "--latent_size=0"),
        Row("best", "--preset best"),
        Row("best-bernoulli", "--preset best --latent_size=0"),
        Row("jsb", "--dataset jsb --epochs=100"),
        Row("jsb-bernoulli", "--dataset jsb --epochs=100 --latent_size=0"),
        Row("jsb-best", "--preset best --dataset jsb"),
        Row("jsb-best-bernoulli", "--preset best --dataset jsb --latent_size=0"),
    ),
    "ablation": tuple(
        Row(f"{dataset}-{name}", f"{SHORT} --dataset {dataset} {flags}".strip())
        for dataset in ("nottingham", "jsb")
        for name, flags in (
            ("whole", ""),
            ("no-attention", "--attention_window=0"),
            ("one-query-frame", "--query_frames=1"),
            ("one-viewpoint", "--viewpoints=1 --attention_heads=6"),  # as many heads in all
            ("no-relative-pitch", "--no-relative_pitch"),
            ("no-attention-dropout", "--attention_dropout=0"),
            ("no-upper-lstm", "--upper_layers=0"),
            ("no-transposition", "--transpose_prob=0"),
            ("no-dropout", "--dropout=0"),
            ("constant-lr", "--lr_schedule constant"),
            ("hidden-256", "--hidden_size=256"),
            ("latent-16", "--latent_size=16"),
        )
    ),
}


def train(row: Row, seed: int, options: argparse.Namespace) -> Path:
    """Run one command, unless its run has finished; return its folder, with seconds.txt in it."""
    folder: Path = options.output_dir / row.name / str(seed)
    done = folder / "seconds.txt"
    if not done.is_file():
        command = [sys.executable, str(HOME / "main.py"), *row.flags.split(), f"--seed={seed}"]
        command += [f"--threads={options.threads}", f"--run_dir={folder}"]
        if options.data_dir:
            command += [f"--data_dir={options.data_dir}"]
        print(f"{time.strftime('%H:%M')}  {row.name}, seed {seed}", file=sys.stderr, flush=True)
        start = time.perf_counter()
        with (options.output_dir / f"{row.name}-{seed}.log").open("w", encoding="utf-8") as log:
            subprocess.run(command, check=True, stdout=log, stderr=log)
        done.write_text(f"{time.perf_counter() - start:.0f}\n", encoding="utf-8")
    return folder


def mean_and_range(values: list[float]) -> str:
    """Return the mean and, of several values, the range."""
    if len(values) == 1:
        return f"{values[0]:.3f}"
    return f"{statistics.mean(values):.3f} ({min(values):.3f} to {max(values):.3f})"


def format_row(row: Row, folders: list[Path]) -> str:
    """Return a row of the table, from the files of its runs."""
    results = [json.loads((folder / "results.json").read_text()) for folder in folders]
    valid, test = ([result[split]["nll"] for result in results] for split in ("valid", "test"))
    first, accuracy = (
        statistics.mean(result["test"][name] for result in results)
        for name in ("nll_first_frame_scored", "frame_accuracy")
    )
    seconds = statistics.mean(float((folder / "seconds.txt").read_text()) for folder in folders)
    command = f"`python main.py {row.flags}".strip() + "`"
    seeds = ", ".join(folder.name for folder in folders)
    return (
        f"| {command} | {seeds} | {mean_and_range(valid)} | {mean_and_range(test)}"
        f" | {first:.3f} | {accuracy:.1%} | {seconds / 60:.1f} min |"
    )


def main() -> None:
    """Train the missing runs and print the table."""
    parser = argparse.ArgumentParser(description="Train the models of a table and print it.")
    parser.add_argument("table", nargs="?", default="results", choices=TABLES)
    parser.add_argument("--only", nargs="+", metavar="NAME", help="names of the rows; default: all")
    parser.add_argument("--seeds", nargs="+", type=int, help="in place of each row's own seeds")
    parser.add_argument("--jobs", type=int, default=1, help="runs side by side (default: 1)")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads of each run; 0 = all")
    parser.add_argument("--data_dir", help="folder of the data sets")
    parser.add_argument("--output_dir", type=Path, default=Path("runs-of-tables"))
    options = parser.parse_args()
    rows = [row for row in TABLES[options.table] if not options.only or row.name in options.only]
    if not rows:
        names = ", ".join(row.name for row in TABLES[options.table])
        parser.error(f"--only: the rows of this table are {names}")
    options.output_dir.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(options.jobs) as pool:
        runs = {
            row.name: [
                pool.submit(train, row, seed, options) for seed in options.seeds or row.seeds
            ]
            for row in rows
        }
        print("| command | seeds | valid | test | first frame scored | frame accuracy | time |")
        print("| --- | --- | --- | --- | --- | --- | --- |")
        for row in rows:
            print(format_row(row, [run.result() for run in runs[row.name]]), flush=True)


if __name__ == "__main__":
    main()
