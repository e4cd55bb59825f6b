"""Weights and training's state come back as written; what can't be read is named in one line."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

import checkpoint
from checkpoint import load_model, load_state, read_tensors, save_model, save_state, write_tensors
from files import InputError
from helpers import one_line_naming
from helpers_train import MEMORY, same, stir, weights_of
from model import PianoLSTM
from settings import ModelSettings

RECORD = {"dataset": "tiny", "frame_beats": 0.5, "seed": 3, "fingerprint": "abc"}


def make_model(seed: int = 0, **sizes: Any) -> PianoLSTM:
    torch.manual_seed(seed)
    small = {"embed_size": 3, "hidden_size": 4, "latent_size": 2}
    model = PianoLSTM(ModelSettings(**{**small, **sizes}))
    stir(model)
    return model


def saved(folder: Path, **sizes: Any) -> Path:
    path = folder / "model.safetensors"
    save_model(path, make_model(**sizes), RECORD)
    return path


def rewrite(path: Path, change: dict[str, Any], **metadata: Any) -> None:
    """Write a weights file again with other tensors (None = without) and another record."""
    tensors, record = read_tensors(path)
    tensors = {name: tensor for name, tensor in {**tensors, **change}.items() if tensor is not None}
    record = {name: value for name, value in {**record, **metadata}.items() if value is not None}
    record["sha256"] = checkpoint.digest_of(tensors, record)
    save_file(tensors, path, metadata={"pianolstm": json.dumps(record)})


# ---- weights -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "sizes",
    [{}, {"latent_size": 0}, {"layers": 3, "dropout": 0.25}, MEMORY, MEMORY | {"transpose": 0.5}],
    ids=["chord", "bernoulli", "deep", "memory", "memory and key"],
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


@pytest.mark.parametrize("memory", [{}, MEMORY | {"transpose": 0.5}], ids=["none", "memory"])
def test_loaded_model_is_ready_to_evaluate_and_to_train(
    tmp_path: Path, memory: dict[str, Any]
) -> None:
    sizes = {"dropout": 0.5, "input_dropout": 0.5, **memory}
    loaded, _ = load_model(saved(tmp_path, **sizes))
    assert not loaded.training
    frames = torch.ones(1, 3, 88)
    hidden, _ = loaded(frames)
    assert torch.equal(hidden, make_model(**sizes).eval()(frames)[0])
    loaded.head.nll(hidden[0], frames[0]).sum().backward()
    assert all(weights.grad is not None for weights in loaded.parameters())


def test_loading_draws_no_random_number(tmp_path: Path) -> None:
    path = saved(tmp_path)
    before = torch.get_rng_state()
    load_model(path)
    assert torch.equal(torch.get_rng_state(), before)


def test_weights_of_a_plain_model_have_the_names_they_always_had(tmp_path: Path) -> None:
    tensors, record = read_tensors(saved(tmp_path))
    assert {name.split(".")[0] for name in tensors} == {"embedding", "lstm", "head"}
    # A file from before there was a memory says nothing of it.
    old = {"embed_size", "hidden_size", "layers", "latent_size", "dropout"}
    settings = {name: value for name, value in record["model"].items() if name in old}
    rewrite(tmp_path / "model.safetensors", {}, model=settings)
    loaded, _ = load_model(tmp_path / "model.safetensors")
    assert loaded.settings == make_model().settings
    assert torch.equal(loaded.embedding.weight, make_model().embedding.weight)


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
        case "older format":
            rewrite(path, {}, format=checkpoint.OLDEST - 1)
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
            rewrite(path, {}, model={"hidden_size": 16384, "embed_size": 16384, "layers": 64})
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
        "older format",
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


def test_a_flipped_bit_anywhere_is_noticed(tmp_path: Path) -> None:
    path = saved(tmp_path)
    whole = path.read_bytes()
    chance, header = np.random.default_rng(1), 8 + int.from_bytes(whole[:8], "little")
    in_header = chance.integers(header * 8, size=300).tolist()
    for place in in_header + chance.integers(header * 8, len(whole) * 8, size=300).tolist():
        flipped = bytearray(whole)
        flipped[place // 8] ^= 1 << place % 8
        path.write_bytes(flipped)
        with pytest.raises(InputError) as refused:
            load_model(path)
        assert one_line_naming(path, refused.value), place


def test_weights_of_before_the_checksum_are_read_and_it_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = saved(tmp_path)
    before = weights_of(load_model(path)[0])
    tensors, record = read_tensors(path)
    save_file(tensors, path, metadata={"pianolstm": json.dumps({**record, "format": 4})})
    assert capsys.readouterr().err == ""
    assert same(weights_of(load_model(path)[0]), before)
    assert capsys.readouterr().err == f"note: {path}: of an older version, without a checksum\n"


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


def test_older_format_asks_for_another_training(tmp_path: Path) -> None:
    path = saved(tmp_path)
    damage("older format", path)
    with pytest.raises(InputError, match=r"older version.*train"):
        load_model(path)


# ---- the state of training -----------------------------------------------------------------------


Trained = tuple[PianoLSTM, torch.optim.Optimizer]


def trained(seed: int, steps: int, **sizes: Any) -> Trained:
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


@pytest.mark.parametrize("sizes", [{}, MEMORY], ids=["plain", "memory"])
def test_training_goes_on_from_a_state_as_if_never_stopped(
    tmp_path: Path, sizes: dict[str, Any]
) -> None:
    path = tmp_path / "state.safetensors"
    whole = trained(0, steps=3, **sizes)
    save_state(path, *whole, {"history": [1, 2]})
    resumed = trained(1, steps=5, **sizes)
    record = load_state(path, *resumed)
    assert record["history"] == [1, 2]
    take_steps(*whole, 4)
    take_steps(*resumed, 4)
    for name, tensor in whole[0].state_dict().items():
        assert torch.equal(resumed[0].state_dict()[name], tensor), name
    steps = {int(moments["step"]) for moments in resumed[1].state_dict()["state"].values()}
    assert steps == {7}


def test_state_of_a_run_just_begun_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "state.safetensors"
    begun, other = trained(0, steps=0), trained(1, steps=0)
    save_state(path, *begun, {})
    load_state(path, *other)
    assert torch.equal(other[0].embedding.weight, begun[0].embedding.weight)
    assert not other[1].state_dict()["state"]


def test_state_of_another_model_is_refused_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "state.safetensors"
    save_state(path, *trained(0, steps=1), {})
    for sizes in (
        {"hidden_size": 5},
        {"latent_size": 0},
        {"layers": 2},
        MEMORY,
        {"transpose": 1.0},
    ):
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


def test_a_disk_that_fails_is_an_os_error_and_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise SafetensorError("No space left on device")

    path = saved(tmp_path)
    before = path.read_bytes()
    monkeypatch.setattr(checkpoint, "save_file", full)
    with pytest.raises(OSError, match="No space left"):
        checkpoint.write_tensors(path, {}, {})
    assert path.read_bytes() == before
    assert [found.name for found in tmp_path.iterdir()] == [path.name]
