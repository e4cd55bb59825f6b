"""Train the models of the tables in docs/results.md, and print the tables as Markdown.

    python benchmarks/results.py                       the results: hours on two CPU cores
    python benchmarks/results.py sets                  --preset best on the five sets, all counts
    python benchmarks/results.py ablation              --preset best without one part at a time
    python benchmarks/results.py --only jsb-best       only the rows with these names
    python benchmarks/results.py sets --finished_only  only what is there already, training nothing
    python benchmarks/results.py --jobs 2 --threads 1  two runs side by side

Each run is one `main.py` command, in its own folder, --output_dir/NAME/SEED. A finished run is not
repeated, so a table that was stopped can be continued, and a run that was trained elsewhere can be
put there; name another folder to train all again. The validation split chooses the weights of each
run; the test split is evaluated once, at its end, and once more averaged over keys. Times are those
of whole commands, and comparable only with --jobs 1.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Results = dict[str, Any]  # the contents of results.json

HOME = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Row:
    """A row of a table: one command, run with several seeds."""

    name: str
    flags: str  # of main.py
    seeds: tuple[int, ...] = (3111, 1, 2)


SETS = {
    "nottingham": "best",  # the names of the rows of the results that have the same command
    "jsb": "jsb-best",
    "musedata": "musedata-best",
    "piano_midi": "piano_midi-best",
    "jsb16": "jsb16-best",
}
# The recipe of all ablations. The preset takes 3,600 steps on JSB Chorales, 9,000 on MuseData.
SHORT = "--preset best --max_steps=3000"
TABLES = {
    "results": (
        Row("default", ""),
        Row("bernoulli", "--latent_size=0"),
        Row("best", "--preset best"),
        Row("best-short", "--preset best --epochs=14", (3111,)),
        Row("best-bernoulli", "--preset best --latent_size=0"),
        Row("jsb", "--dataset jsb --epochs=100"),
        Row("jsb-bernoulli", "--dataset jsb --epochs=100 --latent_size=0"),
        Row("jsb-best", "--preset best --dataset jsb"),
        Row("jsb-best-short", "--preset best --dataset jsb --consistency=0 --epochs=75", (3111,)),
        Row("jsb-best-bernoulli", "--preset best --dataset jsb --latent_size=0"),
    ),
    "sets": tuple(
        Row(name, f"--preset best --dataset {dataset}") for dataset, name in SETS.items()
    ),
    # On the set with the fewest frames, and on that with the most.
    "ablation": tuple(
        Row(f"{dataset}-{name}", f"{SHORT} --dataset {dataset} {flags}".strip())
        for dataset in ("jsb", "musedata")
        for name, flags in (
            ("whole", ""),
            ("no-attention", "--attention_window=0"),
            ("one-query-frame", "--query_frames=1"),
            ("one-viewpoint", "--viewpoints=1 --attention_heads=6"),  # as many heads in all
            ("no-relative-pitch", "--no-relative_pitch"),
            ("no-metrical-position", "--no-metrical_position"),
            ("no-voice-leading", "--no-voice_leading"),
            ("no-copies", "--copy_candidates=0"),
            ("no-recurrent-dropout", "--recurrent_dropout=0"),
            ("no-consistency", "--consistency=0"),
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

HEADINGS = {
    "results": (
        "| command | seeds | valid | test | first frame scored | frame accuracy | time |\n"
        "| --- | --- | --- | --- | --- | --- | --- |"
    ),
    "sets": (
        "| set | seeds | validation | test | test, averaged over keys | first frame scored"
        " | mean per piece | expected frame accuracy | time |\n"
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |"
    ),
}


def train(row: Row, seed: int, options: argparse.Namespace) -> Path | None:
    """Run one command, unless its run has finished; return its folder.

    With `finished_only`, nothing is trained; None = the run is missing.
    """
    folder: Path = options.output_dir / row.name / str(seed)
    if (folder / "results.json").is_file():
        return folder
    if options.finished_only:
        return None
    flags = [*row.flags.split(), f"--seed={seed}", f"--run_dir={folder}"]
    print(f"{time.strftime('%H:%M')}  {row.name}, seed {seed}", file=sys.stderr, flush=True)
    start = time.perf_counter()
    with (options.output_dir / f"{row.name}-{seed}.log").open("w", encoding="utf-8") as log:
        subprocess.run(command(flags, options), check=True, stdout=log, stderr=log)
    seconds = f"{time.perf_counter() - start:.0f}\n"
    (folder / "seconds.txt").write_text(seconds, encoding="utf-8")
    return folder


def command(flags: Sequence[str], options: argparse.Namespace) -> list[str]:
    """Return the command of main.py with these flags, and those of the machine."""
    words = [sys.executable, str(HOME / "main.py"), *flags]
    words += [f"--threads={options.threads}", f"--device={options.device}"]
    return words + ([f"--data_dir={options.data_dir}"] if options.data_dir else [])


def read_results(folder: Path, options: argparse.Namespace) -> tuple[Results, Results]:
    """Return the results of a run, and those averaged over keys, which are evaluated if missing."""
    plain: Results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    path = folder / "results-12-keys.json"
    if not path.is_file():
        flags = ["--evaluate", str(folder), "--average_keys", "--json"]
        ended = subprocess.run(
            command(flags, options), check=True, stdout=subprocess.PIPE, text=True
        )
        path.write_text(ended.stdout, encoding="utf-8")
    averaged: Results = json.loads(path.read_text(encoding="utf-8"))
    return plain, averaged


def minutes(folder: Path) -> float:
    """Return the time of a run: of the whole command, or of its training alone if it's unknown."""
    path = folder / "seconds.txt"
    if path.is_file():
        return float(path.read_text(encoding="utf-8")) / 60
    results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    return float(results["seconds"]) / 60


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
    time_taken = statistics.mean(minutes(folder) for folder in folders)
    words = f"`python main.py {row.flags}".strip() + "`"
    seeds = ", ".join(folder.name for folder in folders)
    return (
        f"| {words} | {seeds} | {mean_and_range(valid)} | {mean_and_range(test)}"
        f" | {first:.3f} | {accuracy:.1%} | {time_taken:.1f} min |"
    )


def format_set(dataset: str, folders: list[Path], runs: list[tuple[Results, Results]]) -> str:
    """Return the rows of a set: all test pieces, and what papers count on this set alone.

    Args:
        dataset: its name.
        folders: of the runs.
        runs: their results, plain and averaged over keys.
    """
    plain, averaged = [run[0] for run in runs], [run[1] for run in runs]

    def mean(results: list[Results], split: str, key: str, form: str = ".3f") -> str:
        return format(statistics.mean(result[split][key] for result in results), form)

    time_taken = statistics.mean(minutes(folder) for folder in folders)
    cells = [
        dataset,
        ", ".join(folder.name for folder in folders),
        mean_and_range([result["valid"]["nll"] for result in plain]),
        mean_and_range([result["test"]["nll"] for result in plain]),
        mean_and_range([result["test"]["nll"] for result in averaged]),
        mean(plain, "test", "nll_first_frame_scored"),
        mean(plain, "test", "nll_per_piece_mean_first_frame_scored"),
        mean(plain, "test", "expected_frame_accuracy", ".1%"),
        f"{time_taken:.1f} min",
    ]
    rows = [cells]
    if "independent_test" in plain[0]:
        pieces = plain[0]["independent_test"]["pieces"]
        nlls = [
            mean_and_range([result["independent_test"]["nll"] for result in results])
            for results in (plain, averaged)
        ]
        others = [
            mean(plain, "independent_test", key)
            for key in ("nll_first_frame_scored", "nll_per_piece_mean_first_frame_scored")
        ]
        accuracy = mean(plain, "independent_test", "expected_frame_accuracy", ".1%")
        label = f"{dataset}, {pieces} independent pieces"
        rows.append([label, cells[1], "", *nlls, *others, accuracy, ""])
    if "nll_per_voice" in plain[0]["test"]:
        for label, key in (
            ("nats per voice token", "nll_per_voice"),
            ("the same, at most", "nll_per_voice_at_most"),
        ):
            first = [mean(results, "test", key, ".4f") for results in (plain, averaged)]
            rows.append([f"{dataset}, {label}", cells[1], "", "", first[1], first[0], "", "", ""])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def main() -> None:
    """Train the missing runs and print the table."""
    parser = argparse.ArgumentParser(description="Train the models of a table and print it.")
    parser.add_argument("table", nargs="?", default="results", choices=TABLES)
    parser.add_argument("--only", nargs="+", metavar="NAME", help="names of the rows; default: all")
    parser.add_argument("--seeds", nargs="+", type=int, help="in place of each row's own seeds")
    parser.add_argument("--jobs", type=int, default=1, help="runs side by side (default: 1)")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads of each run; 0 = all")
    parser.add_argument("--device", default="auto", help="of each run (default: auto)")
    parser.add_argument("--data_dir", help="folder of the data sets")
    parser.add_argument(
        "--finished_only", action="store_true", help="train nothing; print the finished runs"
    )
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
        print(HEADINGS["sets" if options.table == "sets" else "results"])
        for row in rows:
            folders = [folder for run in runs[row.name] if (folder := run.result())]
            if not folders:
                continue  # with --finished_only
            if options.table == "sets":
                dataset = row.flags.split()[-1]
                results = [read_results(folder, options) for folder in folders]
                print(format_set(dataset, folders, results), flush=True)
            else:
                print(format_row(row, folders), flush=True)


if __name__ == "__main__":
    main()
