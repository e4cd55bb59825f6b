"""Weights, training state and settings return as written; unusable files are refused."""

import dataclasses
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from helpers import names_in, one_line_naming
from helpers_train import DROPOUT, VARIANTS, copy_weights, make_model, same
from model import PianoLSTM
from pianolstm import checkpoint
from pianolstm.checkpoint import (
    FORMAT,
    find_weights,
    git_revision,
    load_training_state,
    new_run_dir,
    read_weights,
    reopen_run,
    save_training_state,
    write_run_settings,
    write_weights,
)
from pianolstm.files import InputError, read_json
from settings import DataSettings, ModelSettings, Settings, TrainSettings

METADATA = {"dataset": "tiny", "frame_beats": 0.5, "seed": 3, "fingerprint": "abc"}
SIZES = {"embed_size": 3, "hidden_size": 4, "latent_size": 2}


def save_model(path: Path, seed: int = 0, **sizes: Any) -> PianoLSTM:
    model = make_model(seed, **SIZES | sizes)
    model.save(path, METADATA)
    return model


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """Return the path of a weights file, alone in its folder."""
    path = tmp_path / "model.safetensors"
    save_model(path)
    return path


# ---- weights -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["Bernoulli", "plain", "all"])
def test_a_loaded_model_equals_the_saved_one_and_is_ready_for_evaluation_and_training(
    tmp_path: Path, name: str
) -> None:
    path = tmp_path / "new" / "model.safetensors"
    model = save_model(path, **DROPOUT | VARIANTS[name])
    state = torch.get_rng_state()
    loaded = PianoLSTM.load(path)
    assert torch.equal(torch.get_rng_state(), state)
    assert type(loaded) is type(model)
    assert loaded.settings == model.settings
    assert same(copy_weights(loaded), copy_weights(model))
    assert METADATA.items() <= loaded.metadata.items()
    assert loaded.metadata["model"] == dataclasses.asdict(model.settings)
    frames = torch.ones(1, 3, 88)
    vectors, _ = loaded(frames)
    assert torch.equal(vectors, model.eval()(frames)[0])
    ends = loaded.end_head(vectors[0], frames[0]).sum()
    (loaded.head.nll(vectors[0], frames[0]).sum() + ends).backward()
    assert all(weights.grad is not None for weights in loaded.parameters())


def test_the_same_weights_are_the_same_bytes(tmp_path: Path, weights: Path) -> None:
    save_model(tmp_path / "again")
    save_model(tmp_path / "other", seed=1)
    loaded = PianoLSTM.load(weights)
    loaded.save(tmp_path / "loaded", {name: loaded.metadata[name] for name in METADATA})
    assert (tmp_path / "again").read_bytes() == weights.read_bytes()
    assert (tmp_path / "loaded").read_bytes() == weights.read_bytes()
    assert (tmp_path / "other").read_bytes() != weights.read_bytes()


@pytest.mark.parametrize("error", [OSError, SafetensorError])
def test_a_failed_write_is_an_os_error_and_leaves_the_old_file(
    weights: Path, monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    def full_disk(tensors: Any, path: Path, metadata: Any) -> None:
        path.write_bytes(b"half")
        raise error("No space left on device")

    before = weights.read_bytes()
    monkeypatch.setattr(checkpoint, "save_file", full_disk)
    with pytest.raises(OSError, match="No space left"):
        save_model(weights, seed=1)
    assert weights.read_bytes() == before
    assert names_in(weights.parent) == [weights.name]


def damage_bytes(path: Path, kind: str) -> None:
    whole = path.read_bytes()
    header = 8 + int.from_bytes(whole[:8], "little")
    match kind:
        case "cut off":
            path.write_bytes(whole[:-10])
        case "cut off in the header":
            path.write_bytes(whole[:60])
        case "too long":
            path.write_bytes(whole + b"more")
        case "with a reversed header":
            path.write_bytes(whole[:8] + whole[8:header][::-1] + whole[header:])
        case "text":
            path.write_text("a shopping list\nmilk\n" * 9)
        case "empty":
            path.write_bytes(b"")


@pytest.mark.parametrize(
    "kind",
    [
        "cut off",
        "cut off in the header",
        "too long",
        "with a reversed header",
        "text",
        "empty",
    ],
)
def test_a_file_that_is_damaged_is_refused_in_one_line(weights: Path, kind: str) -> None:
    damage_bytes(weights, kind)
    assert_refused(weights)


def assert_refused(path: Path) -> None:
    with pytest.raises(InputError) as refused:
        PianoLSTM.load(path)
    assert one_line_naming(path, refused.value)
    assert len(str(refused.value)) < len(str(path)) + 300


def test_any_flipped_bit_is_detected(weights: Path) -> None:
    whole = weights.read_bytes()
    generator, header = np.random.default_rng(1), 8 + int.from_bytes(whole[:8], "little")
    in_header = generator.integers(header * 8, size=150).tolist()
    in_numbers = generator.integers(header * 8, len(whole) * 8, size=150).tolist()
    for bit in in_header + in_numbers:
        flipped = bytearray(whole)
        flipped[bit // 8] ^= 1 << bit % 8
        weights.write_bytes(flipped)
        assert_refused(weights)


@pytest.mark.parametrize(
    "metadata",
    [None, {"format": "pt"}, {"pianolstm": "{"}, {"pianolstm": "[1]"}, {"pianolstm": "5"},
     {"pianolstm": "{}"}, {"pianolstm": '{"format": "one"}'}],
    ids=str,
)  # fmt: skip
def test_a_file_of_another_program_is_refused_in_one_line(
    tmp_path: Path, metadata: dict[str, str] | None
) -> None:
    save_file({"a": torch.zeros(2)}, tmp_path / "weights", metadata=metadata)
    assert_refused(tmp_path / "weights")


@pytest.mark.parametrize(
    ("written_as", "message"),
    [(FORMAT + 1, "newer version.*update"), (FORMAT - 1, "older version.*train")],
)
def test_weights_of_another_version_are_refused_with_the_remedy(
    weights: Path, written_as: int, message: str
) -> None:
    tensors, metadata = read_weights(weights)
    write_weights(weights, tensors, {**metadata, "format": written_as})
    with pytest.raises(InputError, match=message):
        PianoLSTM.load(weights)
    assert_refused(weights)


@pytest.mark.parametrize(
    "metadata",
    [
        {"model": None},
        {"model": 7},
        {"model": SIZES | {"width": 2}},
        {"model": SIZES | {"hidden_size": -4}},
        {"model": SIZES | {"hidden_size": 5}},
        {"model": SIZES | {"latent_size": 0}},
        {"model": SIZES | {"upper_layers": 1}},
        {"model": {"hidden_size": 16384, "embed_size": 16384, "layers": 64}},  # beyond any RAM
        {"frame_beats": "fast"},
        {"frame_beats": 99},
        {"dataset": None},
        {"fingerprint": 5},
    ],
    ids=str,
)
def test_settings_that_do_not_fit_the_weights_are_refused_in_one_line(
    weights: Path, metadata: dict[str, Any]
) -> None:
    tensors, before = read_weights(weights)
    write_weights(weights, tensors, before | metadata)
    assert_refused(weights)


@pytest.mark.parametrize(
    "changes",
    [
        {"embedding.bias": None},
        {"extra": torch.zeros(2)},
        {"embedding.bias": torch.zeros(4)},
        {"embedding.bias": torch.zeros(3, dtype=torch.int64)},
        {"embedding.bias": torch.zeros(3, dtype=torch.float64)},
        {"embedding.bias": torch.tensor([0, torch.nan, 0])},
    ],
    ids=["missing", "too many", "of another shape", "of integers", "of float64", "with NaN"],
)
def test_tensors_that_do_not_fit_the_settings_are_refused_in_one_line(
    weights: Path, changes: dict[str, Tensor | None]
) -> None:
    tensors, metadata = read_weights(weights)
    changed = {name: t for name, t in {**tensors, **changes}.items() if t is not None}
    write_weights(weights, changed, metadata)
    assert_refused(weights)


# ---- training state ------------------------------------------------------------------------------

Trained = tuple[PianoLSTM, torch.optim.Optimizer]


def train(seed: int, steps: int, **sizes: Any) -> Trained:
    model = make_model(seed, **SIZES | sizes)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    take_steps(model, optimizer, steps)
    return model, optimizer


def take_steps(model: PianoLSTM, optimizer: torch.optim.Optimizer, steps: int) -> None:
    frames = torch.eye(88)[None, 30:36]
    for _ in range(steps):
        vectors, _ = model(frames)
        optimizer.zero_grad()
        model.head.nll(vectors[0], frames[0]).mean().backward()
        optimizer.step()


@pytest.mark.parametrize("steps", [0, 3])
def test_training_continues_from_a_state_as_if_never_stopped(tmp_path: Path, steps: int) -> None:
    path = tmp_path / "state.pt"
    whole, resumed = train(0, steps), train(1, steps)
    save_training_state(path, *whole, [{"epoch": 1}])
    assert load_training_state(path, *resumed) == [{"epoch": 1}]
    for trained in (whole, resumed):
        take_steps(*trained, 4)
    assert same(copy_weights(resumed[0]), copy_weights(whole[0]))
    moments = resumed[1].state_dict()["state"].values()
    assert {int(values["step"]) for values in moments} == {steps + 4}


@pytest.mark.parametrize(
    "sizes", [{"hidden_size": 5}, {"latent_size": 0}, {"layers": 2}, {"upper_layers": 1}], ids=str
)
def test_a_state_of_another_model_is_refused_in_one_line(
    tmp_path: Path, sizes: dict[str, Any]
) -> None:
    path = tmp_path / "state.pt"
    save_training_state(path, *train(0, 1), [])
    with pytest.raises(InputError) as refused:
        load_training_state(path, *train(0, 1, **sizes))
    assert one_line_naming(path, refused.value)


class Hostile:
    """Runs code when a pickle of it is loaded without precautions."""

    def __reduce__(self) -> Any:
        return os.mkdir, ("hostile",)


@pytest.mark.parametrize(
    "state",
    [None, b"", b"text", [1], {}, {"format": 1}, {"format": FORMAT + 1, "history": []}, Hostile()],
    ids=["cut off", "empty", "text", "a list", "no format", "no history", "newer", "hostile"],
)
def test_an_unusable_state_is_refused_in_one_line_and_runs_no_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, state: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "state.pt"
    trained = train(0, 1)
    if state is None:
        save_training_state(path, *trained, [])
        path.write_bytes(path.read_bytes()[:-7])
    elif isinstance(state, bytes):
        path.write_bytes(state)
    else:
        torch.save(state, path)
    with pytest.raises(InputError) as refused:
        load_training_state(path, *trained)
    assert one_line_naming(path, refused.value)
    assert names_in(tmp_path) == [path.name]


# ---- the folder of a run -------------------------------------------------------------------------


def some_settings() -> Settings:
    defaults = Settings.build(lambda _, group: group())
    return dataclasses.replace(
        defaults,
        model=ModelSettings(layers=2),
        train=TrainSettings(lr=0.02),
        data=DataSettings("jsb"),
    )


def test_the_settings_of_a_run_return_with_all_that_decides_its_numbers(tmp_path: Path) -> None:
    write_run_settings(tmp_path, dataclasses.asdict(some_settings()), {"fingerprint": "abc"})
    assert Settings.of_run(tmp_path) == some_settings()
    written = read_json(tmp_path / "settings.json")
    assert written["fingerprint"] == "abc"
    assert written["versions"]["torch"] == torch.__version__
    assert {"python", "numpy", "scipy", "pretty_midi"} <= set(written["versions"])
    assert written["threads"] == 1
    assert "git_revision" in written


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"settings": null}',
        '{"settings": []}',
        '{"settings": {"model": 5}}',
        '{"settings": {"modle": {}}}',
        '{"settings": {"model": {"layers": 0}}}',
        '{"settings": {"model": {"width": 2}}}',
    ],
)
def test_unusable_settings_are_refused_in_one_line(tmp_path: Path, text: str) -> None:
    path = tmp_path / "settings.json"
    path.write_text(text)
    with pytest.raises(InputError) as refused:
        Settings.of_run(tmp_path)
    assert one_line_naming(path, refused.value)


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "missing"):
        with pytest.raises(InputError) as refused:
            Settings.of_run(folder)
        assert one_line_naming(folder, refused.value)


def test_reopening_a_run_removes_half_written_files_and_refuses_other_data(tmp_path: Path) -> None:
    write_run_settings(tmp_path, {}, {"fingerprint": "abc"})
    (tmp_path / "samples").mkdir()
    for leftover in (tmp_path / ".state.pt.x1.tmp", tmp_path / "samples" / ".a.mid.x2.tmp"):
        leftover.write_bytes(b"half")
    assert reopen_run(tmp_path, "abc") == tmp_path
    assert names_in(tmp_path) == ["samples", "settings.json"]
    assert names_in(tmp_path / "samples") == []
    with pytest.raises(InputError, match=f"^--resume {tmp_path}: trained on other data.*--data$"):
        reopen_run(tmp_path, "xyz")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return an empty folder, which is the current one; there is no pretrained model."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(checkpoint, "PRETRAINED", tmp_path / "pretrained")
    return tmp_path


def test_a_run_is_named_after_its_time_and_data_set_with_a_number_if_taken(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert (here / new_run_dir(None, "musedata")).match("runs/20[0-9]*-[0-9]*-musedata")
    monkeypatch.setattr(checkpoint.time, "strftime", lambda _: "20260102-030405")
    folders = [new_run_dir(None, "jsb").as_posix() for _ in range(3)]
    assert folders == [f"runs/20260102-030405-jsb{end}" for end in ("", "-2", "-3")]
    assert all((here / folder).is_dir() for folder in folders)


def test_run_dir_is_a_new_or_an_empty_folder(here: Path) -> None:
    (here / "empty").mkdir()
    for wanted in ("empty", "a/b/new"):
        assert new_run_dir(wanted, "jsb") == Path(wanted)
        assert (here / wanted).is_dir()
    (here / "full").mkdir()
    for file in ("full/thesis.txt", "file"):
        (here / file).write_text("mine")
    for wanted in ("full", "file", "two\nlines"):
        with pytest.raises(InputError, match=r"^--run_dir \S.*$"):
            new_run_dir(wanted, "jsb")
    assert names_in(here) == ["a", "empty", "file", "full"]
    assert (here / "full" / "thesis.txt").read_text() == "mine"


def make_run(name: str, age: float) -> Path:
    """Make a run in the current folder whose weights are this many seconds old; return them."""
    path = Path("runs") / name / "model.safetensors"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"weights")
    os.utime(path, (1e9 - age, 1e9 - age))
    return path


def test_without_a_name_the_newest_weights_are_found_and_else_the_pretrained_ones(
    here: Path,
) -> None:
    with pytest.raises(InputError, match=r"main\.py"):
        find_weights(None)
    pretrained = here / "pretrained" / checkpoint.DEFAULT_WEIGHTS
    pretrained.parent.mkdir()
    pretrained.write_bytes(b"weights")
    assert find_weights(None) == pretrained
    make_run("z-old", age=100)
    newest = make_run("a-new", age=1)
    Path("runs", "zz-no-weights-yet").mkdir()
    assert find_weights(None) == newest


def test_weights_are_found_by_the_folder_of_their_run_or_their_own_name(here: Path) -> None:
    path = make_run("old", age=9)
    for where in ("runs/old", "runs/old/", str(path)):
        assert find_weights(where) == path
    (here / "empty").mkdir()
    for where in ("nowhere", "empty", "nowhere/model.safetensors"):
        with pytest.raises(InputError) as refused:
            find_weights(where)
        assert one_line_naming(Path(where), refused.value)


# ---- the revision --------------------------------------------------------------------------------


def test_there_is_no_git_revision_outside_a_repository_or_without_git(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint, "HOME", tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert git_revision() is None
    monkeypatch.setattr(checkpoint, "HOME", Path(__file__).parent)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert git_revision() is None


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
def test_the_git_revision_is_the_commit_with_a_plus_if_files_have_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint, "HOME", tmp_path)
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")

    def git(*words: str) -> str:
        command = ["git", "-c", "user.name=T", "-c", "user.email=t@example.org", *words]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    git("init", "--quiet")
    (tmp_path / "model.py").write_text("1\n")
    git("add", "model.py")
    git("commit", "--quiet", "--message=One")
    git("tag", "v1")
    commit = git("rev-parse", "HEAD")
    assert git_revision() == commit
    (tmp_path / "model.py").write_text("2\n")
    assert git_revision() == commit + "+"
