"""`main.py`, as its users call it: flags in, files and one-line errors out."""

import dataclasses
import json
import os
import pickle
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open

import checkpoint
import corpora
import main
import train
from files import InputError
from helpers_main import SMALL, call, tunes
from machine import choose_precision
from midi import roll_to_midi
from settings import GROUPS, PlaySettings

HOME = Path(__file__).parent.parent


# ---- a run ---------------------------------------------------------------------------------------


def test_a_run_leaves_every_file_that_was_promised(small_set, capsys):
    assert call(main, "--data", small_set, *SMALL) == 0
    [run] = Path("runs").iterdir()
    assert re.fullmatch(r"\d{8}-\d{6}-small-set", run.name)
    samples = [
        f"samples/sample-3111-{i}.{kind}"
        for i in range(1, 5)
        for kind in ("mid", "wav", "png", "json")
    ]
    wanted = [
        "settings.json", "metrics.csv", "times.csv", "loss.png", "model.safetensors",
        "state.safetensors", "results.json", "index.html", *samples,
    ]  # fmt: skip
    found = [str(path.relative_to(run)) for path in run.rglob("*") if path.is_file()]
    assert sorted(found) == sorted(wanted)
    printed = capsys.readouterr().out
    for words in ("copy the previous frame", "constant marginal", "first frame scored", str(run)):
        assert words in printed


def test_results_have_the_promised_keys_and_evaluate_prints_them_again(small_set, capsys):
    call(main, "--data", small_set, *SMALL, "--run_dir=run")
    results = json.loads(Path("run/results.json").read_text())
    assert set(results) == {
        "dataset", "fingerprint", "seed", "best_epoch", "seconds", "valid", "test"
    }  # fmt: skip
    for split in ("valid", "test"):
        assert set(results[split]) == {
            "nll", "nll_first_frame_scored", "nll_per_tune_mean", "marginal", "copy_previous",
            "frame_accuracy", "frames",
        }  # fmt: skip
    assert results["test"]["frames"] == 60
    capsys.readouterr()
    assert call(main, "--evaluate", "run", "--json") == 0
    assert json.loads(capsys.readouterr().out) == results
    assert call(main, "--evaluate", "run/model.safetensors", "--data", small_set) == 0
    assert f"{results['test']['nll']:.3f}" in capsys.readouterr().out


def test_every_flag_is_kept_in_settings_json(small_set):
    flags = {
        "batch_size": 64, "lr": 0.002, "embed_size": 20, "hidden_size": 12, "latent_size": 5,
        "layers": 2, "dropout": 0.1, "epochs": 1, "bptt": 7, "clip": 0.5, "seed": 5, "threads": 1,
        "device": "cpu", "num_samples": 1, "seconds": 1.5, "temperature": 0.9, "bpm": 90.0,
        "velocity": 70, "program": "6", "primer_notes": "C4 E4,G4", "frame_beats": 0.25,
        "max_minutes": 5.0,
        "input_dropout": 0.2, "memory": 9, "views": 2, "heads": 2, "head_size": 3, "match": 5,
        "view_dropout": 0.3, "upper_layers": 1, "transpose": 0.5, "warmup": 0.25,
        "precision": "bfloat16", "max_hold": 4.0,
    }  # fmt: skip
    assert (
        call(main, "--data", small_set, "--run_dir=run", *(f"--{k}={v}" for k, v in flags.items()))
        == 0
    )
    call(main, "--data", small_set, *SMALL, "--run_dir=auto")
    chosen = json.loads(Path("auto/settings.json").read_text())["settings"]["train"]["precision"]
    assert chosen == choose_precision("auto", torch.device("cpu"))
    groups = json.loads(Path("run/settings.json").read_text())["settings"]
    kept = {name: value for group in groups.values() for name, value in group.items()}
    assert flags.items() <= kept.items()
    with safe_open("run/model.safetensors", framework="pt") as weights:
        assert weights.get_slice("lstm.weight_hh_l1").get_shape() == [4 * 12, 12]
        assert weights.get_slice("embedding.weight").get_shape() == [20, 88]
        assert weights.get_slice("head.context.weight").get_shape() == [5, 12]
        assert weights.get_slice("memory.lag").get_shape() == [2 * 2, 9]
        assert weights.get_slice("memory.recent.1.weight").get_shape() == [2 * 3, 5 * 88]
        assert weights.get_slice("upper.weight_hh_l0").get_shape() == [4 * 12, 12]
        assert weights.get_slice("key.weight").get_shape() == [20, 12]


def test_the_same_seed_gives_the_same_files(small_set):
    for name, seed in (("one", 4), ("two", 4), ("other", 5)):
        call(
            main,
            "--data",
            small_set,
            *SMALL,
            f"--seed={seed}",
            f"--run_dir={name}",
            "--dropout=0.2",
        )
    for file in ("model.safetensors", "samples/sample-4-2.mid", "samples/sample-4-2.wav"):
        assert Path("one", file).read_bytes() == Path("two", file).read_bytes()
    assert (
        Path("one/model.safetensors").read_bytes() != Path("other/model.safetensors").read_bytes()
    )


def test_a_run_that_was_stopped_goes_on_as_if_it_had_not_been(small_set):
    call(main, "--data", small_set, *SMALL, "--dropout=0.2", "--epochs=4", "--run_dir=whole")
    call(main, "--data", small_set, *SMALL, "--dropout=0.2", "--epochs=2", "--run_dir=halves")
    assert call(main, "--resume", "halves", "--epochs=4") == 0

    def losses(run):
        lines = Path(run, "metrics.csv").read_text().splitlines()
        return [line.split(",")[:3] for line in lines]  # the rest is time

    assert losses("halves") == losses("whole")
    assert len(losses("whole")) == 5
    for file in ("samples/sample-3111-1.mid", "samples/sample-3111-4.wav"):
        assert Path("whole", file).read_bytes() == Path("halves", file).read_bytes()
    for file in ("model.safetensors", "state.safetensors"):
        whole, _ = checkpoint.read_tensors(Path("whole", file))
        halves, _ = checkpoint.read_tensors(Path("halves", file))
        assert whole.keys() == halves.keys()
        assert all((whole[name] == halves[name]).all() for name in whole)


def test_resuming_refuses_another_recipe_and_other_data(small_set, capsys):
    call(main, "--data", small_set, *SMALL, "--run_dir=run")
    other = small_set.with_name("other.pickle")
    other.write_bytes(pickle.dumps({split: tunes(9, 2) for split in ("train", "valid", "test")}))
    capsys.readouterr()
    assert call(main, "--resume", "run", "--lr=0.1") == 2
    assert "--lr" in capsys.readouterr().err
    assert call(main, "--resume", "run", "--data", other, "--epochs=3") == 2
    assert "other data" in capsys.readouterr().err
    assert call(main, "--resume", "nowhere") == 2


def test_resuming_refuses_fewer_epochs_than_are_done(small_set, capsys):
    call(main, "--data", small_set, *SMALL, "--run_dir=run")
    before = Path("run/settings.json").read_text()
    capsys.readouterr()
    assert call(main, "--resume=run", "--epochs=1") == 2
    assert "--epochs" in capsys.readouterr().err
    assert Path("run/settings.json").read_text() == before


def stop_by(stop, small_set):
    """Start a run, stop it by a signal after the first epoch; return stderr, stdout and status."""
    command = [sys.executable, HOME / "main.py", "--data", small_set, "--epochs=100000"]
    with subprocess.Popen(
        [*command, "--seconds=2", "--hidden_size=8", "--run_dir=run"],
        env={**os.environ, "PYTHONPATH": str(HOME)}, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        # Tests that run in the background ignore Ctrl-C, and hand that down.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as program:  # fmt: skip
        deadline = time.monotonic() + 60
        while not Path("run/state.safetensors").is_file() and time.monotonic() < deadline:
            time.sleep(0.05)
        program.send_signal(stop)
        printed, complaints = program.communicate(timeout=60)
    return complaints, printed, program.returncode


def test_ctrl_c_ends_training_and_still_scores_keeps_and_plays(small_set):
    complaints, printed, status = stop_by(signal.SIGINT, small_set)
    assert status == 130
    assert "Traceback" not in complaints
    assert "constant marginal" in printed
    assert Path("run/results.json").is_file()
    assert Path("run/samples/sample-3111-4.wav").is_file()


def test_a_run_that_is_told_to_end_leaves_nothing_half_written_and_can_go_on(small_set):
    complaints, _, status = stop_by(signal.SIGTERM, small_set)
    assert status == 143
    assert complaints == ""
    assert not [*Path("run").glob(".*")]
    done = len(Path("run/metrics.csv").read_text().splitlines()) - 1
    assert call(main, "--resume", "run", f"--epochs={done + 1}") == 0


def test_without_nottingham_the_run_goes_on_with_chorales_and_says_so(
    small_set, capsys, monkeypatch
):
    def unreachable(benchmark, folder):
        raise InputError("no network")

    def chorales():
        generator = np.random.default_rng(0)
        for i in range(40):
            yield f"bwv{i}", generator.random((12, 88)) < 0.04

    monkeypatch.setattr(corpora, "download", unreachable)
    monkeypatch.setattr(corpora, "parse_chorales", chorales)
    assert call(main, *SMALL) == 0
    printed = capsys.readouterr()
    notice = [line for line in printed.err.splitlines() if line.startswith("notice: ")]
    assert len(notice) == 3
    assert "--data PATH" in notice[1]
    assert "chorales: NLL in nats per frame" in printed.out
    [run] = Path("runs").iterdir()
    assert run.name.endswith("-chorales")
    assert json.loads((run / "results.json").read_text())["dataset"] == "chorales"
    assert call(main, *SMALL, "--dataset=nottingham") == 2


# ---- what a user did wrong -----------------------------------------------------------------------


class Hostile:
    """Unpickled by an ordinary reader, it makes a file."""

    def __reduce__(self):
        return os.system, ("touch ran-by-the-pickle",)


def wrong_file(content):
    """A flag that names a file of this content."""

    def make():
        Path("wrong").write_bytes(content)
        return ["--data=wrong"]

    return make


def midi_folder(count):
    """A flag that names a folder of files that are MIDI in name alone."""

    def make():
        Path("folder").mkdir()
        for i in range(count):
            Path(f"folder/{i}.mid").write_bytes(b"MThd and no more")
        return ["--data=folder"]

    return make


WRONG = {
    "missing path": lambda: ["--data=nowhere.pickle"],
    "folder without MIDI": midi_folder(0),
    "folder of damaged MIDI": midi_folder(3),
    "text file": wrong_file(b"C4 E4 G4\n"),
    "empty file": wrong_file(b""),
    "truncated pickle": wrong_file(pickle.dumps({"train": tunes(1, 9)})[:500]),
    "hostile pickle": wrong_file(pickle.dumps({"train": Hostile(), "valid": [], "test": []})),
    "pickle of something else": wrong_file(pickle.dumps([1, 2, 3])),
    "notes off the piano": wrong_file(
        pickle.dumps({split: [[(60,), (200,)]] for split in ("train", "valid", "test")})
    ),
    "a single MIDI file": wrong_file(b"MThd\x00\x00\x00\x06"),
    "damaged .mat": wrong_file(b"MATLAB 5.0 MAT-file" + bytes(200)),
    "damaged .npz": wrong_file(b"PK\x03\x04" + bytes(200)),
    "negative size": lambda: ["--hidden_size=-3"],
    "zero batch": lambda: ["--batch_size=0"],
    "learning rate that is no number": lambda: ["--lr=nan"],
    "word for a number": lambda: ["--epochs=many"],
    "unknown device": lambda: ["--device=tpu"],
    "unknown data set": lambda: ["--dataset=beethoven"],
    "unknown flag": lambda: ["--batchsize=3"],
    "flag without its value": lambda: ["--seed"],
    "weights that are not there": lambda: ["--evaluate=nowhere"],
    "two commands at once": lambda: ["--evaluate=a", "--resume=b"],
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_call_gets_one_line_and_status_2(name, small_set, capsys):
    assert call(main, *WRONG[name]()) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1, said
    assert "Traceback" not in said
    assert not Path("ran-by-the-pickle").exists()
    assert not Path("runs").exists()


def test_a_wrong_primer_is_told_before_training(small_set, capsys):
    assert call(main, "--data", small_set, *SMALL, "--primer_notes=H9") == 2
    assert not Path("runs").exists()


def test_a_taken_run_dir_is_refused_and_left_as_it_was(small_set, capsys):
    Path("taken").mkdir()
    Path("taken/thesis.txt").write_text("mine")
    assert call(main, "--data", small_set, *SMALL, "--run_dir=taken") == 2
    assert [path.name for path in Path("taken").iterdir()] == ["thesis.txt"]


def test_foreign_frames_under_a_sets_name_are_refused(small_set, capsys):
    Path("sets").mkdir()
    small_set.rename("sets/Nottingham.pickle")
    assert call(main, "--data_dir=sets", "--dataset=nottingham", *SMALL) == 2
    assert "not the frames of nottingham" in capsys.readouterr().err


def test_own_data_never_goes_by_the_name_of_a_set(small_set):
    small_set.rename("nottingham.pickle")
    assert call(main, "--data=nottingham.pickle", *SMALL, "--run_dir=run") == 0
    assert json.loads(Path("run/results.json").read_text())["dataset"] == "nottingham-data"


def test_a_run_is_scored_and_gone_on_with_from_another_folder(small_set, capsys, monkeypatch):
    assert call(main, "--data", small_set.name, *SMALL, "--run_dir=run") == 0
    Path("elsewhere").mkdir()
    monkeypatch.chdir("elsewhere")
    assert call(main, "--evaluate=../run") == 0
    assert call(main, "--resume=../run", "--epochs=3") == 0
    assert len(Path("../run/metrics.csv").read_text().splitlines()) == 4


def test_evaluate_refuses_flags_that_it_has_no_use_for(small_set, capsys):
    call(main, "--data", small_set, *SMALL, "--run_dir=run")
    capsys.readouterr()
    assert call(main, "--evaluate=run", "--hidden_size=999") == 2
    assert "--hidden_size" in capsys.readouterr().err


def test_evaluate_keeps_the_frame_length_of_the_training(tmp_path, small_set, capsys):
    for split in ("train", "valid", "test"):
        Path("tunes", split).mkdir(parents=True)
        for i in range(2):
            roll = np.random.default_rng(i).random((40, 88)) < 0.05
            roll_to_midi(roll, 0.25).write(f"tunes/{split}/{i}.mid")
    assert call(main, "--data=tunes", "--frame_beats=0.25", *SMALL, "--run_dir=run") == 0
    results = json.loads(Path("run/results.json").read_text())
    capsys.readouterr()
    for weights in ("run", "run/model.safetensors"):
        assert call(main, "--evaluate", weights, "--data=tunes", "--json") == 0
        assert json.loads(capsys.readouterr().out)["test"] == results["test"]


def test_a_reader_that_leaves_early_is_no_trouble(small_set):
    call(main, "--data", small_set, *SMALL, "--run_dir=run")
    environment = {key: text for key, text in os.environ.items() if key != "PYTHONUNBUFFERED"}
    command = [sys.executable, HOME / "main.py", "--evaluate", "run"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, env=environment, stdout=pipe, stderr=pipe) as program:
        program.stdout.close()
        assert program.stderr.read() == b""


@pytest.mark.parametrize("flag", ["--resume=", "--evaluate=", "--data="])
def test_an_empty_name_starts_nothing(flag, small_set, capsys):
    assert call(main, flag) == 2
    assert not Path("runs").exists()


def test_too_little_memory_for_a_step_is_one_line(small_set, monkeypatch, capsys):
    def learn(*_):
        raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried")

    monkeypatch.setattr(train.Trainer, "learn", learn)
    assert call(main, "--data", small_set, *SMALL, "--run_dir=run") == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "--batch_size" in error


def test_other_errors_of_a_step_keep_their_traceback(small_set, monkeypatch):
    def learn(*_):
        raise RuntimeError("shapes cannot be multiplied")

    monkeypatch.setattr(train.Trainer, "learn", learn)
    with pytest.raises(RuntimeError, match="multiplied"):
        call(main, "--data", small_set, *SMALL, "--run_dir=run")


# ---- README --------------------------------------------------------------------------------------


def test_the_readme_has_every_flag_with_its_default():
    readme = (HOME / "README.md").read_text(encoding="utf-8")
    for group in (*GROUPS.values(), PlaySettings):
        for field in dataclasses.fields(group):
            row = re.search(rf"^\| `--{field.name}` \| ([^|]*) \|", readme, re.MULTILINE)
            assert row, f"--{field.name} is not in the README"
            if isinstance(field.default, (int, float, str)) and field.default is not False:
                assert f"`{field.default}`" in row.group(1), field.name


def test_the_commands_of_the_readme_have_flags_that_exist():
    readme = (HOME / "README.md").read_text(encoding="utf-8")
    commands = re.findall(r"^(?:pipenv run )?python (main|generate)\.py(.*)$", readme, re.MULTILINE)
    assert len(commands) >= 8
    known = {}
    for program in ("main", "generate"):
        help_ = [sys.executable, HOME / f"{program}.py", "--help"]
        known[program] = subprocess.run(help_, capture_output=True, text=True, check=True).stdout
    for program, words in commands:
        for flag in re.findall(r"--[\w-]+", words.split("#")[0]):
            assert re.search(rf"{flag}[ ,\n]", known[program]), flag


def test_what_a_killed_run_left_half_written_is_cleared_away(small_set):
    assert call(main, "--data", small_set, *SMALL, "--run_dir=run") == 0
    for half in (".model.safetensors.abc.tmp", "samples/.sample-1.wav.xyz.tmp"):
        Path("run", half).write_bytes(b"half")
    assert call(main, "--resume", "run") == 0
    assert not list(Path("run").rglob("*.tmp"))
