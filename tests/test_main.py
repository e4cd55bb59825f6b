"""main.py as its users call it: flags in, a run's files, results and one-line errors out."""

import dataclasses
import json
import os
import pickle
import re
import shutil
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import data
import generate
import main
from helpers import SMALL, call, names_in
from helpers_midi import line, write_midi
from helpers_sampling import train_small_run
from model import AttentivePianoLSTM, PianoLSTM
from pianolstm import runtime
from pianolstm.checkpoint import read_weights
from pianolstm.files import InputError
from pianolstm.midi import read_midi, roll_to_midi
from pianolstm.runtime import choose_precision
from settings import PRESETS, Settings
from train import Trainer

KINDS = ("mid", "wav", "png", "json")
SIZES = [flag for flag in SMALL if not flag.startswith("--epochs")]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the path of a small run of two epochs; its data set is beside it."""
    return train_small_run(tmp_path_factory.mktemp("trained"))


@pytest.fixture
def run(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the path of a copy of that run; the current folder is empty but for it."""
    monkeypatch.chdir(tmp_path)
    return shutil.copytree(trained, Path("run"))


def settings_of(run: str | Path) -> dict[str, Any]:
    """Return all settings of a run by name."""
    groups = dataclasses.asdict(Settings.of_run(Path(run)))
    return {name: value for group in groups.values() for name, value in group.items()}


def epochs_of(run: str | Path) -> int:
    return len(Path(run, "metrics.csv").read_text().splitlines()) - 1


def results_of(run: str | Path) -> dict[str, Any]:
    return json.loads(Path(run, "results.json").read_text())


# ---- a run ---------------------------------------------------------------------------------------


def test_a_run_leaves_these_files_and_prints_its_results_beside_the_baselines(
    small_set: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(main, "--data", small_set, *SMALL, "--num_samples=2") == 0
    [run] = Path("runs").iterdir()
    assert re.fullmatch(r"\d{8}-\d{6}-small-set", run.name)
    expected = [
        "settings.json",
        "metrics.csv",
        "times.csv",
        "loss.png",
        "model.safetensors",
        "state.pt",
        "results.json",
        "index.html",
        *[
            f"samples/sample-3111-{i}.{kind}"
            for i in (1, 2)
            for kind in ["mid", "wav", "png", "musicxml", "svg", "json"]
        ],
    ]
    found = [str(path.relative_to(run)) for path in run.rglob("*") if path.is_file()]
    assert sorted(found) == sorted(expected)
    printed = capsys.readouterr().out
    for words in ("first-order Markov", "unigram", "first frame scored", str(run)):
        assert words in printed


def test_every_setting_that_is_given_is_kept_and_reaches_the_model(small_set: Path) -> None:
    given = {
        "batch_size": 64, "lr": 0.002, "embed_size": 20, "hidden_size": 12, "latent_size": 5,
        "layers": 2, "dropout": 0.1, "epochs": 1, "bptt": 7, "clip": 0.5, "seed": 5, "threads": 1,
        "device": "cpu", "num_samples": 1, "seconds": 1.5, "temperature": 0.9, "bpm": 90.0,
        "velocity": 70, "program": "6", "primer_notes": "C4 E4,G4", "frame_beats": 0.25,
        "max_minutes": 5.0, "embed_dropout": 0.2, "attention_window": 9, "viewpoints": 2,
        "attention_heads": 2, "head_dim": 3, "query_frames": 5, "attention_dropout": 0.3,
        "upper_layers": 1, "transpose_prob": 0.5, "lr_schedule": "onecycle", "warmup_ratio": 0.25,
        "precision": "bfloat16",
    }  # fmt: skip
    flags = [f"--{name}={value}" for name, value in given.items()]
    assert call(main, "--data", small_set, "--run_dir=run", "--relative_pitch", *flags) == 0
    assert settings_of("run").items() >= (given | {"relative_pitch": True}).items()
    model = PianoLSTM.load("run")
    assert isinstance(model, AttentivePianoLSTM)
    assert vars(model.settings).items() <= settings_of("run").items()
    assert model.lstm.weight_hh_l1.shape == (4 * 12, 12)
    assert model.embedding.weight.shape == (20, 88)
    assert model.metadata["train"]["warmup_ratio"] == 0.25
    record = json.loads(Path("run/samples/sample-5-1.json").read_text())
    assert (record["seed"], record["settings"]["velocity"], record["frame_beats"]) == (5, 70, 0.25)


def test_what_auto_chose_and_full_paths_are_kept(run: Path, trained: Path) -> None:
    kept = settings_of(run)
    assert kept["precision"] == choose_precision("auto", torch.device("cpu"))
    assert kept["data"] == str(trained.parent / "small set.pickle")
    assert Path(kept["data_dir"]).is_absolute()


def test_a_resumed_run_keeps_the_precision_that_auto_chose(
    small_set: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for speedup, precision in ((1.5, "bfloat16"), (1.0, "float32")):
        monkeypatch.setattr(runtime, "bfloat16_speedup", lambda speedup=speedup: speedup)
        monkeypatch.setattr("main.bfloat16_speedup", lambda speedup=speedup: speedup)
        flags = [*SMALL, "--epochs=1", f"--run_dir={precision}"]
        assert call(main, "--data", small_set, *flags) == 0
        assert f"{speedup} times as fast as float32 here: taking {precision}" in (
            capsys.readouterr().out
        )
        monkeypatch.setattr(runtime, "bfloat16_speedup", lambda speedup=speedup: 2.5 - speedup)
        assert call(main, f"--resume={precision}", "--epochs=2") == 0
        assert settings_of(precision)["precision"] == precision
        assert f" on cpu in {precision}; files go to" in capsys.readouterr().out


def test_the_same_seed_gives_the_same_files_and_another_seed_others(small_set: Path) -> None:
    for name, seed in (("one", 4), ("two", 4), ("other", 5)):
        flags = [*SMALL, "--dropout=0.2", f"--seed={seed}", f"--run_dir={name}"]
        assert call(main, "--data", small_set, *flags) == 0
    names = ["model.safetensors", "metrics.csv", "loss.png"]
    names += [f"samples/sample-4-1.{kind}" for kind in KINDS]
    for name in names:
        assert Path("one", name).read_bytes() == Path("two", name).read_bytes()
    weights = [Path(name, "model.safetensors").read_bytes() for name in ("one", "other")]
    assert weights[0] != weights[1]


def test_without_nottingham_the_chorales_replace_it_with_a_notice(
    small_set: Path,
    few_chorales: list[int],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def unreachable(*_: Any) -> None:
        raise InputError("no network")

    monkeypatch.setattr(data, "download", unreachable)
    assert call(main, *SMALL) == 0
    printed = capsys.readouterr()
    notice = [line for line in printed.err.splitlines() if line.startswith("notice: ")]
    assert len(notice) == 3
    assert "--data PATH" in notice[1]
    assert "chorales: NLL in nats per frame" in printed.out
    [run] = Path("runs").iterdir()
    assert run.name.endswith("-chorales")
    assert results_of(run)["dataset"] == settings_of(run)["dataset"] == "chorales"
    assert call(main, *SMALL, "--dataset=nottingham") == 2


# ---- stop and resume -----------------------------------------------------------------------------


def test_a_run_that_was_stopped_and_resumed_equals_one_that_was_not(small_set: Path) -> None:
    flags = ["--data", small_set, *SMALL, "--dropout=0.2"]
    assert call(main, *flags, "--epochs=4", "--run_dir=whole") == 0
    assert call(main, *flags, "--epochs=2", "--run_dir=halves") == 0
    assert call(main, "--resume=halves", "--epochs=4") == 0
    assert epochs_of("halves") == 4
    for name in ("metrics.csv", "loss.png", "samples/sample-3111-1.mid"):
        assert Path("whole", name).read_bytes() == Path("halves", name).read_bytes()
    whole, halves = (
        read_weights(Path(name, "model.safetensors"))[0] for name in ("whole", "halves")
    )
    assert whole.keys() == halves.keys()
    assert all(torch.equal(whole[name], halves[name]) for name in whole)


def test_ctrl_c_ends_training_but_the_best_weights_are_evaluated_and_sampled(
    small_set: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    save = Trainer._save

    def save_and_press_ctrl_c(trainer: Trainer, history: Any) -> None:
        save(trainer, history)
        if len(history) == 3:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(Trainer, "_save", save_and_press_ctrl_c)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # background jobs ignore it
    try:
        assert call(main, "--data", small_set, *SIZES, "--epochs=99", "--run_dir=run") == 130
    finally:
        signal.signal(signal.SIGINT, before)
    assert epochs_of("run") == 3
    assert "unigram" in capsys.readouterr().out
    assert {"results.json", "index.html", "loss.png"} <= set(names_in(Path("run")))
    assert "sample-3111-1.wav" in names_in(Path("run/samples"))


def test_a_run_is_evaluated_and_resumed_from_another_folder(
    small_set: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert call(main, "--data", small_set.name, *SMALL, "--run_dir=run") == 0
    Path("elsewhere").mkdir()
    monkeypatch.chdir("elsewhere")
    assert call(main, "--evaluate=../run") == 0
    assert call(main, "--resume=../run", "--epochs=3") == 0
    assert epochs_of("../run") == 3


def test_a_resumed_run_keeps_its_recipe_its_data_and_its_epochs(
    run: Path, trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = Path(run, "settings.json").read_text()
    other = pickle.loads((trained.parent / "small set.pickle").read_bytes())  # noqa: S301, ours
    Path("other.pickle").write_bytes(pickle.dumps(other | {"test": other["train"]}))
    for flags, words in (
        (["--lr=0.1"], "--lr: a resumed run keeps its own"),
        (["--data=other.pickle", "--epochs=3"], "trained on other data"),
        (["--epochs=1"], "--epochs: 2 are already done"),
    ):
        assert call(main, "--resume", run, *flags) == 2
        assert words in capsys.readouterr().err
    assert Path(run, "settings.json").read_text() == before


# ---- evaluation ----------------------------------------------------------------------------------


def test_evaluate_prints_the_results_of_the_run_again(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = results_of(run)
    assert results.keys() == {
        "dataset", "fingerprint", "seed", "best_epoch", "seconds", "epochs", "stopped_early",
        "average_keys", "valid", "test",
    }  # fmt: skip
    for split in ("valid", "test"):
        assert results[split].keys() == {
            "nll", "nll_first_frame_scored", "nll_per_piece_mean",
            "nll_per_piece_mean_first_frame_scored", "end_nll_per_piece",
            "frame_accuracy", "expected_frame_accuracy", "frames",
            "unigram", "first_order_markov",
        }  # fmt: skip
    assert results["test"]["frames"] == 60
    assert call(main, "--evaluate", run, "--json") == 0
    assert json.loads(capsys.readouterr().out) == results
    assert call(main, "--evaluate", run / "model.safetensors") == 0
    assert f"{results['test']['nll']:.3f}" in capsys.readouterr().out


def test_evaluate_averages_over_keys(small_set: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sizes = [*SMALL, "--num_samples=1"]
    assert call(main, "--data", small_set, *sizes, "--transpose_prob=0.5", "--run_dir=run") == 0
    capsys.readouterr()
    assert call(main, "--evaluate=run", "--average_keys", "--json") == 0
    averaged, plain = json.loads(capsys.readouterr().out), results_of(Path("run"))
    assert (averaged["average_keys"], plain["average_keys"]) == (True, False)
    assert averaged["test"]["nll"] != plain["test"]["nll"]
    assert averaged["test"]["unigram"] == plain["test"]["unigram"]
    assert call(main, "--evaluate=run", "--average_keys") == 0
    assert "12 keys" in capsys.readouterr().out


def test_evaluate_uses_the_frame_length_of_training(
    small_set: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for split in ("train", "valid", "test"):
        Path("pieces", split).mkdir(parents=True)
        for i in range(2):
            roll = np.random.default_rng(i).random((40, 88)) < 0.05
            roll_to_midi(roll, 0.25).write(f"pieces/{split}/{i}.mid")
    assert call(main, "--data=pieces", "--frame_beats=0.25", *SMALL, "--run_dir=run") == 0
    capsys.readouterr()
    for weights in ("run", "run/model.safetensors"):
        assert call(main, "--evaluate", weights, "--data=pieces", "--json") == 0
        assert json.loads(capsys.readouterr().out)["test"] == results_of("run")["test"]


def test_a_model_of_frames_of_seconds_is_evaluated_and_played_in_seconds(
    small_set: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pedal = [(0, b"\xb0\x40\x7f")]
    sixty = [(0, b"\xff\x51\x03\x0f\x42\x40")]
    for i in range(5):
        write_midi(Path("pieces", f"{i}.mid"), [*sixty, *line([60, 62, 64 + i, 71])])
    flags = ["--data=pieces", "--frame_seconds=0.25", "--sustain", "--min_frames=1"]
    assert call(main, *flags, *SMALL, "--run_dir=run") == 0
    metadata = read_weights(Path("run/model.safetensors"))[1]
    assert metadata["frame_beats"] == 0.5
    reading = {"frame_seconds": 0.25, "sustain": True, "min_frames": 1}
    assert {name: metadata[name] for name in reading} == reading
    capsys.readouterr()
    assert call(main, "--evaluate", "run/model.safetensors", "--data=pieces", "--json") == 0
    output = capsys.readouterr()
    assert json.loads(output.out)["test"] == results_of("run")["test"]
    assert "other data" not in output.err
    # Two notes of a second and one of a hundredth; after another second the pedal rises.
    short = [(0, b"\x90\x48\x40"), (5, b"\x80\x48\x40"), (475, b"\xb0\x40\x00")]
    write_midi(Path("primer.mid"), [*sixty, *pedal, *line([60, 62]), *short])
    music = ["--primer_midi=primer.mid", "--beats=1", "--num_samples=1", "--formats=mid"]
    assert call(generate, "run", *music, "--seed=1", "--output_dir=out") == 0
    roll, _ = read_midi("out/sample-1-1.mid", 0.5)
    frames = [set((np.flatnonzero(frame) + 21).tolist()) for frame in roll[:12]]
    assert frames == [*[{60}] * 4, *[{60, 62}] * 4, *[{60, 62, 72}] * 4]


def test_evaluating_on_other_data_than_those_of_training_is_noted(
    run: Path, trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = pickle.loads((trained.parent / "small set.pickle").read_bytes())  # noqa: S301, ours
    Path("other.pickle").write_bytes(pickle.dumps(other | {"test": other["train"]}))
    assert call(main, "--evaluate", run, "--data=other.pickle") == 0
    assert "was trained on other data: small-set" in capsys.readouterr().err


# ---- presets -------------------------------------------------------------------------------------


def test_a_run_has_the_values_of_its_preset_but_for_the_flags_given(
    small_set: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    best = PRESETS["best"](180) | {"attention_window": 6, "attention_heads": 1, "head_dim": 2}
    # The preset is given the number of training frames, 180.
    monkeypatch.setitem(PRESETS, "best", lambda frames: dict(best) if frames == 180 else {})
    flags = ["--preset=best", *SIZES, "--dropout=0.25", "--epochs=1", "--run_dir=run"]
    assert call(main, "--data", small_set, *flags) == 0
    given = {"embed_size": 8, "hidden_size": 8, "latent_size": 3, "dropout": 0.25, "epochs": 1}
    # --epochs overrides the max_steps of the preset.
    assert settings_of("run").items() >= (best | given | {"max_steps": 0}).items()
    assert epochs_of("run") == 1


def test_the_default_preset_equals_no_preset(run: Path, trained: Path) -> None:
    flags = [*SMALL, "--preset=default", "--run_dir=named"]
    assert call(main, "--data", trained.parent / "small set.pickle", *flags) == 0
    weights = [Path(name, "model.safetensors").read_bytes() for name in (run, "named")]
    assert weights[0] == weights[1]


def test_max_steps_become_epochs_which_are_kept_and_resumed(small_set: Path) -> None:
    # Six pieces of 30 frames are one step.
    flags = [*SIZES, "--epochs=9", "--max_steps=3", "--run_dir=run"]
    assert call(main, "--data", small_set, *flags) == 0
    assert epochs_of("run") == 3
    assert settings_of("run").items() >= {"epochs": 3, "max_steps": 0}.items()
    before = Path("run/model.safetensors").read_bytes()
    assert call(main, "--resume=run") == 0
    assert epochs_of("run") == 3
    assert Path("run/model.safetensors").read_bytes() == before


# ---- mistakes of the user ------------------------------------------------------------------------


class Hostile:
    """An object that makes a file when an ordinary reader unpickles it."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch run-by-the-pickle",)


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ("--data=nowhere.pickle", "nowhere.pickle"),
        ("--data=hostile.pickle", "hostile.pickle"),
        ("--hidden_size=-3", "--hidden_size"),
        ("--epochs=many", "--epochs"),
        ("--dataset=beethoven", "--dataset"),
        ("--batchsize=3", "--batchsize"),
        ("--seed", "--seed"),
        ("--memory=3", "--memory"),
        ("--max_steps=2000000 --data=SET", "--max_steps 2000000"),
        ("--primer_notes=H9 --data=SET", "--primer_notes"),
        ("--run_dir=taken --data=SET", "--run_dir taken"),
        ("--evaluate=nowhere", "nowhere"),
        ("--evaluate=a --resume=b", "--resume, --evaluate"),
        ("--evaluate=taken --hidden_size=3", "--hidden_size"),
        ("--json", "--json"),
        ("--average_keys", "--average_keys"),
        ("--frame_beats=1 --frame_seconds=1", "--frame_beats, --frame_seconds"),
        ("--frame_seconds=0.001", "--frame_seconds"),
        ("--min_frames=-1", "--min_frames"),
        ("--resume=nowhere", "nowhere"),
        ("--resume=taken", "taken"),
        ("--resume=", "--resume"),
        ("--evaluate=", "--evaluate"),
        ("--data=", "--data"),
        ("--preset=worst", "--preset"),
        ("--preset=best --resume=run", "--preset"),
        ("--preset=best --evaluate=run", "--preset"),
        ("--preset=best --dropout=1", "--dropout"),
    ],
)
def test_a_wrong_call_gives_one_line_that_names_it_status_2_and_no_files(
    words: str, named: str, small_set: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("hostile.pickle").write_bytes(pickle.dumps({"train": Hostile(), "valid": [], "test": []}))
    Path("taken").mkdir()
    Path("taken/thesis.txt").write_text("mine")
    before = names_in(Path())
    assert call(main, *(word.replace("SET", str(small_set)) for word in words.split())) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert named in error
    assert names_in(Path()) == before
    assert names_in(Path("taken")) == ["thesis.txt"]


def test_too_little_memory_for_a_step_is_one_line(
    small_set: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fail(monkeypatch, "[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried")
    assert call(main, "--data", small_set, *SMALL, "--run_dir=run") == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "--batch_size" in error


def test_other_errors_of_a_step_keep_their_traceback(
    small_set: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fail(monkeypatch, "shapes cannot be multiplied")
    with pytest.raises(RuntimeError, match="multiplied"):
        call(main, "--data", small_set, *SMALL, "--run_dir=run")


def fail(monkeypatch: pytest.MonkeyPatch, message: str) -> None:
    """Make every optimizer step raise a RuntimeError."""

    def step(*_: Any) -> None:
        raise RuntimeError(message)

    monkeypatch.setattr(Trainer, "_train_batch", step)
