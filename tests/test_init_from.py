"""--init_from: fine-tuning from trained weights, called as its users call it."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import main
from helpers import SMALL, call, names_in, write_pickle
from helpers_sampling import train_small_run
from helpers_train import VARIANTS, copy_weights, make_model, same
from model import PianoLSTM, adapt
from pianolstm.checkpoint import PRETRAINED
from pianolstm.midi import roll_to_midi
from settings import fine_tuning

SHORT = ["--epochs=2", "--num_samples=1", "--seconds=2"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the path of a small run of two epochs."""
    return train_small_run(tmp_path_factory.mktemp("trained"))


@pytest.fixture
def new_music(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the path of a small set of other pieces; the current folder is empty but for it."""
    monkeypatch.chdir(tmp_path)
    generator = np.random.default_rng(5)
    pieces = {
        split: [[(int(pitch),) for pitch in generator.integers(50, 70, 24)] for _ in range(count)]
        for split, count in (("train", 4), ("valid", 2), ("test", 2))
    }
    return write_pickle(Path("new.pickle"), pieces)


def values_of(run: str | Path) -> dict[str, Any]:
    """Return all settings of a run by name."""
    groups = json.loads(Path(run, "settings.json").read_text())["settings"]
    return {name: value for group in groups.values() for name, value in group.items()}


def read_results(run: str | Path) -> dict[str, Any]:
    return json.loads(Path(run, "results.json").read_text())


# ---- the start -----------------------------------------------------------------------------------


def test_a_run_starts_from_the_weights_with_their_sizes_and_the_recipe_of_fine_tuning(
    trained: Path, new_music: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny_lr = ["--lr=1e-12", "--seconds=2", "--num_samples=1", "--epochs=1"]
    flags = ["--data", new_music, "--init_from", trained, *tiny_lr]
    assert call(main, *flags, "--run_dir=run") == 0
    before, after = PianoLSTM.load(trained), PianoLSTM.load("run")
    for name, weights in before.state_dict().items():
        torch.testing.assert_close(after.state_dict()[name], weights, atol=1e-6, rtol=0)
    values = values_of("run")
    assert [values[name] for name in ("embed_size", "hidden_size", "latent_size")] == [8, 8, 3]
    assert values["init_from"] == str(trained / "model.safetensors")
    recipe = fine_tuning(96)
    assert values["batch_size"] == recipe["batch_size"]
    assert values["lr_schedule"] == recipe["lr_schedule"]
    record = after.metadata["init_from"]
    assert record["dataset"] == "small-set"
    assert record["fingerprint"] == before.metadata["fingerprint"]
    assert len(record["sha256"]) == 64
    # With a learning rate of nearly 0, the weights stay what they were.
    results = read_results("run")
    assert results["init_from"] == record
    assert results["test"]["nll"] == pytest.approx(record["test_nll"], abs=1e-4)
    assert results["valid"]["nll"] == pytest.approx(record["valid_nll"], abs=1e-4)
    assert "weights before training" in capsys.readouterr().out


def test_flags_override_the_recipe_of_fine_tuning_and_dropout_may_change(
    trained: Path, new_music: Path
) -> None:
    given = {"lr": 0.0007, "batch_size": 3, "dropout": 0.4, "transpose_prob": 0.5, "epochs": 1}
    flags = [f"--{name}={value}" for name, value in given.items()]
    flags += ["--data", new_music, "--init_from", trained, "--seconds=2", "--num_samples=1"]
    assert call(main, *flags, "--run_dir=run") == 0
    assert values_of("run").items() >= given.items()
    assert vars(PianoLSTM.load("run").settings).items() >= {"dropout": 0.4}.items()


def test_without_further_flags_fine_tuning_takes_about_its_number_of_steps(
    trained: Path, new_music: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(main, "fine_tuning", lambda frames: {"max_steps": 3, "batch_size": 4})
    flags = ["--data", new_music, "--init_from", trained, "--seconds=2", "--num_samples=1"]
    assert call(main, *flags, "--run_dir=run") == 0  # a step an epoch
    assert read_results("run")["epochs"] == 3


def test_shipped_weights_are_known_by_name(
    new_music: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if not (PRETRAINED / "jsb.safetensors").is_file():
        pytest.skip("this checkout has no pretrained weights")
    flags = ["--data", new_music, "--init_from=jsb", "--epochs=1", "--num_samples=1", "--seconds=2"]
    assert call(main, *flags, "--run_dir=run") == 0
    assert values_of("run").items() >= {"init_from": "jsb", "hidden_size": 384}.items()
    assert PianoLSTM.load("run").metadata["init_from"]["dataset"] == "jsb"


def test_midi_is_read_in_the_frames_of_the_weights_unless_the_user_says_otherwise(
    new_music: Path,
) -> None:
    for split in ("train", "valid", "test"):
        Path("pieces", split).mkdir(parents=True)
        for i in range(2):
            roll = np.random.default_rng(i).random((40, 88)) < 0.05
            roll_to_midi(roll, 0.25).write(f"pieces/{split}/{i}.mid")
    data = ["--data=pieces", *SMALL]
    assert call(main, *data, "--frame_beats=0.25", "--run_dir=first") == 0
    more = ["--data=pieces", "--init_from=first", *SHORT]
    assert call(main, *more, "--run_dir=second") == 0
    assert call(main, *more, "--frame_beats=0.5", "--run_dir=third") == 0
    lengths = [PianoLSTM.load(run).metadata["frame_beats"] for run in ("first", "second", "third")]
    assert lengths == [0.25, 0.25, 0.5]


# ---- resumed -------------------------------------------------------------------------------------


def test_a_fine_tuned_run_that_was_stopped_and_resumed_equals_one_that_was_not(
    trained: Path, new_music: Path
) -> None:
    start = shutil.copytree(trained, "start")
    flags = ["--data", new_music, "--init_from", start, "--lr_schedule=constant", *SHORT]
    assert call(main, *flags, "--epochs=3", "--run_dir=whole") == 0
    assert call(main, *flags, "--epochs=1", "--run_dir=halves") == 0
    shutil.rmtree(start)  # what the run has learnt since is in its own folder
    assert call(main, "--resume=halves", "--epochs=3") == 0
    for name in ("metrics.csv", "samples/sample-3111-1.mid"):
        assert Path("whole", name).read_bytes() == Path("halves", name).read_bytes()
    whole, halves = PianoLSTM.load("whole"), PianoLSTM.load("halves")
    assert same(copy_weights(whole), copy_weights(halves))
    assert whole.metadata["init_from"] == halves.metadata["init_from"]
    assert read_results("halves")["init_from"] == read_results("whole")["init_from"]


def test_a_run_stopped_in_its_first_epoch_starts_again_from_the_same_weights(
    trained: Path, new_music: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    start = shutil.copytree(trained, "start")
    flags = ["--data", new_music, "--init_from", start, *SHORT]
    assert call(main, *flags, "--run_dir=run") == 0
    expected = Path("run/model.safetensors").read_bytes()
    for name in ("state.pt", "model.safetensors"):
        Path("run", name).unlink()
    assert call(main, "--resume=run") == 0
    assert Path("run/model.safetensors").read_bytes() == expected
    Path("run/state.pt").unlink()
    shutil.copy("run/model.safetensors", "start/model.safetensors")  # other weights
    assert call(main, "--resume=run") == 2
    assert "not the weights that run started from" in capsys.readouterr().err


# ---- mistakes of the user ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ("--init_from=nowhere", "--init_from nowhere"),
        ("--init_from=", "--init_from"),
        ("--init_from=RUN --hidden_size=512", "--hidden_size 512: the weights"),
        ("--init_from=RUN --relative_pitch", "--relative_pitch True: the weights"),
        ("--init_from=RUN --preset=best", "--preset"),
        ("--resume=RUN --init_from=RUN", "--init_from"),
        ("--evaluate=RUN --init_from=RUN", "--init_from"),
    ],
)
def test_a_wrong_start_gives_one_line_that_names_it_and_no_files(
    words: str, named: str, trained: Path, new_music: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = names_in(Path())
    flags = [word.replace("RUN", str(trained)) for word in words.split()]
    if "--resume" not in words:
        flags += ["--data", str(new_music)]
    assert call(main, *flags) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert named in error
    assert names_in(Path()) == before


def test_a_mismatch_names_the_sizes_of_both_sides(
    trained: Path, new_music: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(main, "--data", new_music, "--init_from", trained, "--hidden_size=512") == 2
    error = capsys.readouterr().err
    assert "--hidden_size 512" in error
    assert "have hidden_size 8" in error


# ---- the adapted model ---------------------------------------------------------------------------


def frames() -> Tensor:
    return (torch.rand(3, 12, 88, generator=torch.Generator().manual_seed(4)) < 0.1).float()


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("transpose_prob", [0.0, 0.7])
@torch.inference_mode()
def test_an_adapted_model_computes_the_same(name: str, transpose_prob: float) -> None:
    model = make_model(**VARIANTS[name]).eval()
    before = copy_weights(model)
    settings = replace(model.settings, dropout=0.5, transpose_prob=transpose_prob)
    adapted = adapt(model, settings).eval()
    assert adapted.settings == settings
    torch.testing.assert_close(adapted(frames())[0], model(frames())[0], atol=1e-6, rtol=0)
    assert same(copy_weights(model), before)


def test_a_model_is_not_adapted_to_other_sizes() -> None:
    model = make_model(hidden_size=6)
    with pytest.raises(ValueError, match="hidden_size is 6, not 7"):
        adapt(model, replace(model.settings, hidden_size=7))
