"""Files of a run: what is written comes back, and what can't be read is named in one line."""

import dataclasses
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

import checkpoint
from checkpoint import (
    find_weights,
    git_revision,
    load_model,
    load_state,
    new_run_dir,
    read_json,
    read_settings,
    read_tensors,
    save_model,
    save_state,
    use_machine,
    write_json,
    write_settings,
    write_tensors,
)
from files import InputError
from model import PianoLSTM
from settings import DataSettings, MachineSettings, ModelSettings, Settings, TrainSettings

RECORD = {"dataset": "tiny", "frame_beats": 0.5, "seed": 3, "fingerprint": "abc"}


def make_model(seed: int = 0, **sizes: Any) -> PianoLSTM:
    torch.manual_seed(seed)
    small = {"embed_size": 3, "hidden_size": 4, "latent_size": 2}
    return PianoLSTM(ModelSettings(**{**small, **sizes}))


def saved(folder: Path, **sizes: Any) -> Path:
    path = folder / "model.safetensors"
    save_model(path, make_model(**sizes), RECORD)
    return path


def rewrite(path: Path, change: dict[str, Any], **metadata: Any) -> None:
    """Write a weights file again with other tensors (None = without) and another record."""
    tensors, record = read_tensors(path)
    tensors = {name: tensor for name, tensor in {**tensors, **change}.items() if tensor is not None}
    record = {name: value for name, value in {**record, **metadata}.items() if value is not None}
    save_file(tensors, path, metadata={"pianolstm": json.dumps(record)})


def one_line_naming(path: Path, error: BaseException) -> bool:
    return str(path) in str(error) and "\n" not in str(error)


# ---- weights -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "sizes",
    [{}, {"latent_size": 0}, {"layers": 3, "dropout": 0.25}],
    ids=["chord", "bernoulli", "deep"],
)
def test_model_comes_back_as_it_was(tmp_path: Path, sizes: dict[str, Any]) -> None:
    model = make_model(**sizes)
    path = tmp_path / "new" / "model.safetensors"
    save_model(path, model, RECORD)
    loaded, record = load_model(path)
    assert loaded.settings == model.settings
    weights = loaded.state_dict()
    assert list(weights) == list(model.state_dict())
    for name, tensor in model.state_dict().items():
        assert torch.equal(weights[name], tensor), name
    assert {name: record[name] for name in RECORD} == RECORD
    assert record["model"] == dataclasses.asdict(model.settings)


def test_loaded_model_is_ready_to_evaluate_and_to_train(tmp_path: Path) -> None:
    loaded, _ = load_model(saved(tmp_path, dropout=0.5))
    assert not loaded.training
    frames = torch.ones(1, 3, 88)
    hidden, _ = loaded(frames)
    assert torch.equal(hidden, make_model(dropout=0.5).eval()(frames)[0])
    loaded.head.nll(hidden[0], frames[0]).sum().backward()
    assert all(weights.grad is not None for weights in loaded.parameters())


def test_loading_draws_no_random_number(tmp_path: Path) -> None:
    path = saved(tmp_path)
    before = torch.get_rng_state()
    load_model(path)
    assert torch.equal(torch.get_rng_state(), before)


def test_same_weights_are_the_same_bytes(tmp_path: Path) -> None:
    save_model(tmp_path / "a", make_model(), RECORD)
    save_model(tmp_path / "b", make_model(), RECORD)
    save_model(tmp_path / "c", make_model(seed=1), RECORD)
    one, two, other = ((tmp_path / name).read_bytes() for name in "abc")
    assert one == two
    assert one != other


def test_loading_and_saving_again_is_the_same_bytes(tmp_path: Path) -> None:
    path = saved(tmp_path)
    model, record = load_model(path)
    save_model(tmp_path / "again", model, {name: record[name] for name in RECORD})
    assert (tmp_path / "again").read_bytes() == path.read_bytes()


def test_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = saved(tmp_path)
    before = path.read_bytes()

    def full_disk(tensors: Any, file: Path, metadata: Any) -> None:
        Path(file).write_bytes(b"half")
        raise OSError("no space left on device")

    monkeypatch.setattr(checkpoint, "save_file", full_disk)
    with pytest.raises(OSError, match="no space"):
        save_model(path, make_model(seed=1), RECORD)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


# ---- weights that can't be used ------------------------------------------------------------------


def damage(kind: str, path: Path) -> None:
    """Make the weights file unusable."""
    whole = path.read_bytes()
    size, numbers = int.from_bytes(whole[:8], "little"), torch.zeros(2)
    header = whole[8 : 8 + size]
    match kind:
        case "truncated":
            path.write_bytes(whole[:-10])
        case "cut in the header":
            path.write_bytes(whole[:60])
        case "longer than it says":
            path.write_bytes(whole + b"more")
        case "text":
            path.write_text("a shopping list\nmilk\n" * 9)
        case "empty":
            path.write_bytes(b"")
        case "folder":
            path.unlink()
            path.mkdir()
        case "missing":
            path.unlink()
        case "no metadata":
            save_file({"a": numbers}, path)
        case "metadata of another program":
            save_file({"a": numbers}, path, metadata={"format": "pt"})
        case "our metadata, no JSON":
            save_file({"a": numbers}, path, metadata={"pianolstm": "{"})
        case "our metadata, not a dict":
            save_file({"a": numbers}, path, metadata={"pianolstm": "[1]"})
        case "our metadata, a number":
            save_file({"a": numbers}, path, metadata={"pianolstm": "5"})
        case "no format":
            rewrite(path, {}, format=None)
        case "a format that is no number":
            rewrite(path, {}, format="one")
        case "newer format":
            rewrite(path, {}, format=checkpoint.FORMAT + 1)
        case "no settings":
            rewrite(path, {}, model=None)
        case "settings not a dict":
            rewrite(path, {}, model=7)
        case "unknown setting":
            rewrite(path, {}, model={"embed_size": 3, "hidden_size": 4, "heads": 2})
        case "setting out of range":
            rewrite(path, {}, model={"embed_size": 3, "hidden_size": -4})
        case "wrong shapes":
            rewrite(path, {}, model={"embed_size": 3, "hidden_size": 5, "latent_size": 2})
        case "another head":
            rewrite(path, {}, model={"embed_size": 3, "hidden_size": 4, "latent_size": 0})
        case "sizes beyond all memory":
            rewrite(path, {}, model={"hidden_size": 65536, "embed_size": 65536, "layers": 64})
        case "missing tensor":
            rewrite(path, {"embedding.bias": None})
        case "one tensor more":
            rewrite(path, {"extra": numbers})
        case "one shape wrong":
            rewrite(path, {"embedding.bias": torch.zeros(4)})
        case "integers":
            rewrite(path, {"embedding.bias": torch.zeros(3, dtype=torch.int64)})
        case "float64":
            rewrite(path, {"embedding.bias": torch.zeros(3, dtype=torch.float64)})
        case "a flipped header":
            path.write_bytes(whole[:8] + header[::-1] + whole[8 + size :])
        case _:
            raise ValueError(kind)


@pytest.mark.parametrize(
    "kind",
    [
        "truncated",
        "cut in the header",
        "longer than it says",
        "text",
        "empty",
        "folder",
        "missing",
        "no metadata",
        "metadata of another program",
        "our metadata, no JSON",
        "our metadata, not a dict",
        "our metadata, a number",
        "no format",
        "a format that is no number",
        "newer format",
        "no settings",
        "settings not a dict",
        "unknown setting",
        "setting out of range",
        "wrong shapes",
        "another head",
        "sizes beyond all memory",
        "missing tensor",
        "one tensor more",
        "one shape wrong",
        "integers",
        "a flipped header",
    ],
)
def test_unusable_weights_are_named_in_one_line(tmp_path: Path, kind: str) -> None:
    path = saved(tmp_path)
    damage(kind, path)
    with pytest.raises(InputError) as refused:
        load_model(path)
    assert one_line_naming(path, refused.value)
    assert len(str(refused.value)) < len(str(path)) + 300


def test_weights_in_float64_are_refused_or_made_float32(tmp_path: Path) -> None:
    path = saved(tmp_path)
    damage("float64", path)
    try:
        model, _ = load_model(path)
    except InputError as error:
        assert one_line_naming(path, error)
    else:
        assert {weights.dtype for weights in model.parameters()} == {torch.float32}


def test_newer_format_asks_for_an_update(tmp_path: Path) -> None:
    path = saved(tmp_path)
    damage("newer format", path)
    with pytest.raises(InputError, match=r"newer version.*update"):
        load_model(path)


# ---- the state of training -----------------------------------------------------------------------


def trained(seed: int, steps: int, **sizes: Any) -> tuple[PianoLSTM, torch.optim.Optimizer]:
    model = make_model(seed, **sizes)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    take_steps(model, optimizer, steps)
    return model, optimizer


def take_steps(model: PianoLSTM, optimizer: torch.optim.Optimizer, steps: int) -> None:
    frames = torch.eye(88)[None, 30:36]
    for _ in range(steps):
        hidden, _ = model(frames)
        optimizer.zero_grad()
        model.head.nll(hidden[0], frames[0]).mean().backward()
        optimizer.step()


def test_training_goes_on_from_a_state_as_if_never_stopped(tmp_path: Path) -> None:
    path = tmp_path / "state.safetensors"
    whole, optimizer = trained(0, steps=3)
    save_state(path, whole, optimizer, {"history": [1, 2]})
    resumed, fresh = trained(1, steps=5)
    record = load_state(path, resumed, fresh)
    assert record["history"] == [1, 2]
    take_steps(whole, optimizer, 4)
    take_steps(resumed, fresh, 4)
    for name, tensor in whole.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], tensor), name
    steps = {int(moments["step"]) for moments in fresh.state_dict()["state"].values()}
    assert steps == {7}


def test_state_of_a_run_just_begun_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "state.safetensors"
    model, optimizer = trained(0, steps=0)
    save_state(path, model, optimizer, {})
    other, fresh = trained(1, steps=0)
    load_state(path, other, fresh)
    assert torch.equal(other.embedding.weight, model.embedding.weight)
    assert not fresh.state_dict()["state"]


def test_state_of_another_model_is_refused_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "state.safetensors"
    save_state(path, *trained(0, steps=1), {})
    for sizes in ({"hidden_size": 5}, {"latent_size": 0}, {"layers": 2}):
        with pytest.raises(InputError) as refused:
            load_state(path, *trained(0, steps=1, **sizes))
        assert one_line_naming(path, refused.value)


@pytest.mark.parametrize("names", [["extra"], ["optimizer.0"], ["optimizer.x.y"], ["what.0.step"]])
def test_state_with_tensors_of_odd_names_is_refused(tmp_path: Path, names: list[str]) -> None:
    path = tmp_path / "state.safetensors"
    write_tensors(path, {name: torch.zeros(1) for name in names}, {})
    with pytest.raises(InputError) as refused:
        load_state(path, *trained(0, steps=0))
    assert one_line_naming(path, refused.value)


def test_damaged_state_is_refused_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "state.safetensors"
    save_state(path, *trained(0, steps=1), {})
    path.write_bytes(path.read_bytes()[:-7])
    with pytest.raises(InputError) as refused:
        load_state(path, *trained(0, steps=1))
    assert one_line_naming(path, refused.value)


@pytest.mark.parametrize(
    ("moment", "value"),
    [("optimizer.0.exp_avg", torch.zeros(2, 2)), ("optimizer.99.exp_avg", torch.zeros(2))],
    ids=["of another shape", "of no weight"],
)
def test_state_with_moments_of_another_model_is_refused(
    tmp_path: Path, moment: str, value: torch.Tensor
) -> None:
    path = tmp_path / "state.safetensors"
    save_state(path, *trained(0, steps=1), {})
    rewrite(path, {moment: value})
    with pytest.raises(InputError):
        load_state(path, *trained(0, steps=1))


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
        '{"settings": {"model": {"heads": 2}}}',
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


# ---- the machine ---------------------------------------------------------------------------------


def with_devices(monkeypatch: pytest.MonkeyPatch, *there: str) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: "cuda" in there)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: "mps" in there)


@pytest.mark.parametrize(
    ("there", "auto"),
    [((), "cpu"), (("mps",), "mps"), (("cuda",), "cuda"), (("cuda", "mps"), "cuda")],
    ids=["neither", "mps", "cuda", "both"],
)
def test_auto_is_the_first_device_there(
    monkeypatch: pytest.MonkeyPatch, there: tuple[str, ...], auto: str
) -> None:
    with_devices(monkeypatch, *there)
    assert use_machine(MachineSettings("auto")).type == auto
    for name in ("cpu", *there):
        assert use_machine(MachineSettings(name)).type == name


@pytest.mark.parametrize("name", ["cuda", "mps"])
def test_device_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    with_devices(monkeypatch)
    with pytest.raises(InputError, match=f"^--device {name}: [^\n]*cpu"):
        use_machine(MachineSettings(name))


def test_threads_are_as_many_as_asked_for_and_0_leaves_them() -> None:
    use_machine(MachineSettings("cpu", threads=0))
    assert torch.get_num_threads() == 1
    use_machine(MachineSettings("cpu", threads=3))
    assert torch.get_num_threads() == 3
    torch.set_num_threads(1)


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
