"""A run besides its weights: its settings come back, its folder is found, its revision is known."""

import dataclasses
import os
import shutil
import subprocess
from pathlib import Path

import pytest
import torch

import checkpoint
from checkpoint import (
    find_weights,
    git_revision,
    new_run_dir,
    read_json,
    read_settings,
    write_json,
    write_settings,
)
from files import InputError
from helpers import one_line_naming
from settings import DataSettings, ModelSettings, Settings, TrainSettings

# ---- settings and JSON ---------------------------------------------------------------------------


def some_settings() -> Settings:
    made = Settings.of(lambda _, group: group())
    return dataclasses.replace(
        made, model=ModelSettings(layers=2), train=TrainSettings(lr=0.02), data=DataSettings("jsb")
    )


def test_settings_of_a_run_come_back(tmp_path: Path) -> None:
    write_settings(tmp_path, some_settings(), {"fingerprint": "abc"})
    assert read_settings(tmp_path) == some_settings()
    kept = read_json(tmp_path / "settings.json")
    assert kept["fingerprint"] == "abc"
    assert kept["versions"]["torch"] == torch.__version__
    assert {"python", "numpy", "scipy", "pretty_midi"} <= set(kept["versions"])
    assert kept["threads"] == 1
    assert "git_revision" in kept


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "5",
        "{}",
        '{"settings": null}',
        '{"settings": {"model": {"layers": 0}}}',
        '{"settings": {"model": {"width": 2}}}',
        '{"settings": {"modle": {}}}',
        '{"settings": {"model": 5}}',
        '{"settings": []}',
    ],
)
def test_unusable_settings_are_named_in_one_line(tmp_path: Path, text: str) -> None:
    path = tmp_path / "settings.json"
    path.write_text(text)
    with pytest.raises(InputError) as refused:
        read_settings(tmp_path)
    assert one_line_naming(path, refused.value)


@pytest.mark.parametrize(("average", "read"), [(0.0, True), (0.998, False)])
def test_runs_with_settings_of_older_versions_go_on_where_these_did_nothing(
    tmp_path: Path, average: float, read: bool
) -> None:
    write_settings(tmp_path, some_settings(), {})
    kept = read_json(tmp_path / "settings.json")
    kept["settings"]["train"] |= {"weight_decay": 0.0, "average": average}
    write_json(tmp_path / "settings.json", kept)
    if read:
        assert read_settings(tmp_path) == some_settings()
        return
    with pytest.raises(InputError, match=r"--average 0.998 is no more"):
        read_settings(tmp_path)


def test_folder_that_is_no_run_is_named(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "missing"):
        with pytest.raises(InputError) as refused:
            read_settings(folder)
        assert one_line_naming(folder, refused.value)


def test_json_comes_back_and_binary_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    write_json(path, {"nll": 2.5, "names": ["é", None]})
    assert read_json(path) == {"nll": 2.5, "names": ["é", None]}
    path.write_bytes(b"\xff\xfe\x00")
    for bad in (path, tmp_path / "missing.json"):
        with pytest.raises(InputError) as refused:
            read_json(bad)
        assert one_line_naming(bad, refused.value)


# ---- folders of runs -----------------------------------------------------------------------------


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in an empty folder, with no model that came with the program."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(checkpoint, "PRETRAINED", tmp_path / "pretrained" / "none.safetensors")
    return tmp_path


def test_runs_of_one_second_get_a_folder_each(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint.time, "strftime", lambda _: "20260102-030405")
    folders = [new_run_dir(None, "jsb") for _ in range(3)]
    assert [folder.as_posix() for folder in folders] == [
        "runs/20260102-030405-jsb",
        "runs/20260102-030405-jsb-2",
        "runs/20260102-030405-jsb-3",
    ]
    assert all((here / folder).is_dir() for folder in folders)


def test_run_is_named_after_date_time_and_dataset(here: Path) -> None:
    assert (here / new_run_dir(None, "musedata")).match("runs/20[0-9]*-[0-9]*-musedata")


def test_run_dir_may_be_new_or_empty(here: Path) -> None:
    (here / "empty").mkdir()
    for wanted in ("empty", "a/b/new"):
        assert new_run_dir(wanted, "jsb") == Path(wanted)
        assert (here / wanted).is_dir()
    assert not (here / "runs").exists()


def test_run_dir_with_something_in_it_is_refused(here: Path) -> None:
    (here / "full").mkdir()
    (here / "full" / "thesis.txt").write_text("mine")
    (here / "file").write_text("mine")
    for wanted in ("full", "file"):
        with pytest.raises(InputError) as refused:
            new_run_dir(wanted, "jsb")
        assert one_line_naming(Path(wanted), refused.value)
        assert "--run_dir" in str(refused.value)
    assert (here / "full" / "thesis.txt").read_text() == "mine"


def make_run(folder: Path, name: str, age: float) -> Path:
    path = folder / "runs" / name / "model.safetensors"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"weights")
    os.utime(path, (1e9 - age, 1e9 - age))
    return path


def test_newest_run_is_found_by_the_time_of_its_weights(here: Path) -> None:
    make_run(here, "z-old", age=100)
    newest = make_run(here, "a-new", age=1)
    make_run(here, "m-older", age=50)
    (here / "runs" / "zz-no-weights-yet").mkdir()
    assert find_weights(None).resolve() == newest.resolve()


def test_run_folder_and_weights_file_are_found(here: Path) -> None:
    make_run(here, "new", age=1)
    path = make_run(here, "old", age=9)
    for where in ("runs/old", "runs/old/", str(path)):
        assert find_weights(where).resolve() == path.resolve()


def test_model_that_comes_with_the_program_plays_where_no_run_is(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretrained = here / "pretrained.safetensors"
    pretrained.write_bytes(b"weights")
    monkeypatch.setattr(checkpoint, "PRETRAINED", pretrained)
    assert find_weights(None) == pretrained
    run = make_run(here, "mine", age=1e6)
    assert find_weights(None).resolve() == run.resolve()


def test_missing_weights_are_named(here: Path) -> None:
    (here / "empty").mkdir()
    for where in ("nowhere", "empty", "nowhere/model.safetensors"):
        with pytest.raises(InputError) as refused:
            find_weights(where)
        assert one_line_naming(Path(where), refused.value)
    with pytest.raises(InputError, match=r"main\.py"):
        find_weights(None)


# ---- the revision --------------------------------------------------------------------------------


def git(folder: Path, *words: str) -> str:
    name = ["-c", "user.name=T", "-c", "user.email=t@example.org"]
    ran = subprocess.run(
        ["git", *name, *words], cwd=folder, capture_output=True, text=True, check=True
    )
    return ran.stdout.strip()


def test_git_revision_is_none_outside_git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "HOME", tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert git_revision() is None


def test_git_revision_is_none_without_git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert git_revision() is None


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
def test_git_revision_is_the_commit_and_says_if_files_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint, "HOME", tmp_path)
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    git(tmp_path, "init", "--quiet")
    (tmp_path / "model.py").write_text("1\n")
    git(tmp_path, "add", "model.py")
    git(tmp_path, "commit", "--quiet", "--message=One")
    git(tmp_path, "tag", "v1")
    commit = git(tmp_path, "rev-parse", "HEAD")
    assert git_revision() == commit
    (tmp_path / "model.py").write_text("2\n")
    assert git_revision() == commit + "+"
