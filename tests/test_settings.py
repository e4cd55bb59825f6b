"""The settings: their defaults, their flags, their ranges, and what they are kept as."""

import argparse
import dataclasses
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers import parse, parser_of
from settings import (
    GROUPS,
    DataSettings,
    Group,
    MachineSettings,
    ModelSettings,
    PlaySettings,
    RunSettings,
    SampleSettings,
    Settings,
    TrainSettings,
)

ROOT = Path(__file__).parent.parent

# What each command has: main.py the groups of a run, generate.py those of playing.
COMMANDS: dict[str, list[type[Group]]] = {
    "main.py": list(GROUPS.values()),
    "generate.py": [SampleSettings, PlaySettings, MachineSettings],
}

# For every field a flag's text that is not its default, and the value that it stands for.
OTHER: dict[type[Group], dict[str, tuple[str, Any]]] = {
    DataSettings: {
        "dataset": ("jsb", "jsb"),
        "data": ("my tunes.pickle", "my tunes.pickle"),
        "data_dir": ("elsewhere", "elsewhere"),
        "frame_beats": ("0.25", 0.25),
        "max_minutes": ("90", 90.0),
    },
    ModelSettings: {
        "embed_size": ("7", 7),
        "hidden_size": ("8", 8),
        "layers": ("3", 3),
        "latent_size": ("0", 0),
        "dropout": ("0.5", 0.5),
        "input_dropout": ("0.25", 0.25),
        "memory": ("9", 9),
        "views": ("2", 2),
        "heads": ("2", 2),
        "head_size": ("5", 5),
        "match": ("3", 3),
        "view_dropout": ("0.3", 0.3),
        "upper_layers": ("2", 2),
        "intervals": ("", True),
        "transpose": ("1", 1.0),
    },
    TrainSettings: {
        "batch_size": ("5", 5),
        "lr": ("2e-3", 0.002),
        "epochs": ("1", 1),
        "steps": ("7", 7),
        "bptt": ("0", 0),
        "clip": ("0", 0.0),
        "warmup": ("0.3", 0.3),
        "precision": ("bfloat16", "bfloat16"),
    },
    RunSettings: {"seed": ("0", 0), "run_dir": ("here", "here")},
    MachineSettings: {"device": ("cpu", "cpu"), "threads": ("2", 2)},
    SampleSettings: {
        "num_samples": ("2", 2),
        "seconds": ("1.5", 1.5),
        "beats": ("8", 8.0),
        "bars": ("2", 2.0),
        "temperature": ("0", 0.0),
        "chord_temperature": ("0.7", 0.7),
        "top_p": ("0.9", 0.9),
        "max_notes": ("4", 4),
        "max_hold": ("0", 0.0),
        "primer_notes": ("C4,E4 G4", "C4,E4 G4"),
        "primer_midi": ("a.mid", "a.mid"),
        "primer_beats": ("8", 8.0),
        "include_primer": ("", False),
        "match_key": ("", False),
        "key": ("G", "G"),
        "bpm": ("90", 90.0),
        "velocity": ("127", 127),
        "program": ("127", "127"),
    },
    PlaySettings: {
        "seed": ("11", 11),
        "continue_from": ("a.mid", "a.mid"),
        "harmonize": ("b.mid", "b.mid"),
        "melody_over": ("c.mid", "c.mid"),
        "measure": ("9", 9),
        "output_dir": ("out", "out"),
        "formats": ("mid", "mid"),
        "soundfont": ("a.sf2", "a.sf2"),
        "force": ("", True),
    },
}

FIELDS = [(group, name) for group, names in OTHER.items() for name in names]


def words_of(group: type[Group], name: str) -> list[str]:
    text, value = OTHER[group][name]
    if isinstance(value, bool):
        return [f"--{name}" if value else f"--no-{name}"]
    return [f"--{name}", text]


# ---- defaults ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("group", "name", "default"),
    [
        (ModelSettings, "embed_size", 300),
        (ModelSettings, "hidden_size", 256),
        (ModelSettings, "latent_size", 16),
        (ModelSettings, "layers", 1),
        (ModelSettings, "dropout", 0.0),
        (ModelSettings, "input_dropout", 0.0),
        (ModelSettings, "memory", 0),
        (ModelSettings, "transpose", 0.0),
        (TrainSettings, "lr", 0.001),
        (TrainSettings, "batch_size", 32),
        (TrainSettings, "epochs", 20),
        (TrainSettings, "bptt", 60),
        (TrainSettings, "clip", 0.25),
        (TrainSettings, "steps", 0),
        (TrainSettings, "warmup", 0.0),
        (RunSettings, "seed", 3111),
        (DataSettings, "dataset", "nottingham"),
        (DataSettings, "frame_beats", 0.5),
        (MachineSettings, "device", "auto"),
        (MachineSettings, "threads", 0),
        (SampleSettings, "num_samples", 4),
        (SampleSettings, "temperature", 1.0),
        (SampleSettings, "bpm", 120.0),
    ],
)
def test_default_of_the_recipe(group: type[Group], name: str, default: Any) -> None:
    assert getattr(group(), name) == default
    assert type(getattr(group(), name)) is type(default)


def test_data_dir_follows_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PIANO_DATA_DIR", raising=False)
    assert DataSettings().data_dir == "datasets"
    monkeypatch.setenv("PIANO_DATA_DIR", "elsewhere")
    assert DataSettings().data_dir == "elsewhere"
    assert parse(DataSettings, "--data_dir", "flag").data_dir == "flag"


def test_settings_can_not_be_changed_in_place() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        TrainSettings().lr = 1.0  # type: ignore[misc]


def test_importing_the_settings_brings_in_no_library() -> None:
    program = "import settings, sys; print(sorted({'torch', 'numpy'} & set(sys.modules)))"
    ran = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert ran.stdout == "[]\n"


# ---- flags ---------------------------------------------------------------------------------------


def test_this_file_knows_every_field() -> None:
    for group in {*GROUPS.values(), PlaySettings}:
        assert list(OTHER[group]) == [field.name for field in dataclasses.fields(group)]


@pytest.mark.parametrize("command", COMMANDS)
def test_no_two_settings_of_a_command_share_a_flag(command: str) -> None:
    names = [field.name for group in COMMANDS[command] for field in dataclasses.fields(group)]
    assert len(names) == len(set(names))


@pytest.mark.parametrize(("group", "name"), FIELDS)
def test_flag_reaches_its_field_and_no_other(group: type[Group], name: str) -> None:
    expected = OTHER[group][name][1]
    assert getattr(group(), name) != expected, "the test needs a value that is not the default"
    made = parse(group, *words_of(group, name))
    value = getattr(made, name)
    assert value == expected
    assert type(value) is type(expected)
    assert dataclasses.replace(made, **{name: getattr(group(), name)}) == group()


@pytest.mark.parametrize(("group", "name"), FIELDS)
def test_only_the_flags_given_are_known_as_given(group: type[Group], name: str) -> None:
    flags = parser_of(group).parse_args(words_of(group, name))
    assert group.given(flags) == {name: OTHER[group][name][1]}


@pytest.mark.parametrize("command", COMMANDS)
def test_a_flag_not_given_leaves_no_trace(command: str) -> None:
    flags = parser_of(*COMMANDS[command]).parse_args([])
    assert flags == argparse.Namespace()
    for group in COMMANDS[command]:
        assert group.given(flags) == {}


def test_a_flag_given_with_its_default_counts_as_given() -> None:
    flags = parser_of(TrainSettings).parse_args(["--lr=0.001"])
    assert TrainSettings.given(flags) == {"lr": 0.001}


@pytest.mark.parametrize(("group", "name"), FIELDS)
def test_help_shows_effect_and_default(
    group: type[Group], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "1000")
    help_text = parser_of(group).format_help()
    # Up to the next flag: where a flag's choices are long, its effect is on the next line.
    (line,) = re.findall(rf"^  --{name}\b.*(?:\n {{3,}}.*)*$", help_text, re.MULTILINE)
    field = next(field for field in dataclasses.fields(group) if field.name == name)
    assert field.metadata["effect"] in line
    default = getattr(group(), name)
    if default is None or default is False:
        assert "default" not in line
    else:
        assert line.endswith(f"(default: {default})")


def test_help_stands_a_percent_sign_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIANO_DATA_DIR", "half-50%")
    assert "half-50%" in " ".join(parser_of(DataSettings).format_help().split())


@pytest.mark.parametrize(("group", "name"), FIELDS)
def test_every_setting_says_what_it_does(group: type[Group], name: str) -> None:
    field = next(field for field in dataclasses.fields(group) if field.name == name)
    effect = field.metadata["effect"]
    assert len(effect.split()) >= 2
    assert effect == " ".join(effect.split())


# ---- to a dict and back --------------------------------------------------------------------------


def default_settings() -> Settings:
    return Settings.of(lambda _, group: group())


@pytest.mark.parametrize("group", OTHER)
def test_group_comes_back_from_its_dict(group: type[Group]) -> None:
    changed = group(**{name: value for name, (_, value) in OTHER[group].items()})
    for made in (group(), changed):
        assert group.from_dict(dataclasses.asdict(made)) == made
        assert group.from_dict(json.loads(json.dumps(dataclasses.asdict(made)))) == made


@settings(deadline=None, derandomize=True, max_examples=50)
@given(
    hidden=st.integers(1, 16384),
    dropout=st.floats(0, 1, exclude_max=True),
    lr=st.floats(0, 10, exclude_min=True),
    seed=st.integers(0, 2**63 - 1),
    data=st.none() | st.text(st.characters(codec="utf-8"), min_size=1),
)
def test_settings_come_back_from_json(
    hidden: int, dropout: float, lr: float, seed: int, data: str | None
) -> None:
    made = dataclasses.replace(
        default_settings(),
        data=DataSettings(data=data),
        model=ModelSettings(hidden_size=hidden, dropout=dropout),
        train=TrainSettings(lr=lr),
        run=RunSettings(seed=seed),
    )
    assert Settings.from_dict(json.loads(json.dumps(dataclasses.asdict(made)))) == made


def test_settings_hold_every_group_under_its_name() -> None:
    made = default_settings()
    assert [field.name for field in dataclasses.fields(made)] == list(GROUPS)
    for name, group in GROUPS.items():
        assert getattr(made, name) == group()


def test_what_a_dict_leaves_out_is_the_default() -> None:
    assert ModelSettings.from_dict({"layers": 2}) == ModelSettings(layers=2)
    assert Settings.from_dict({"model": {"layers": 2}}) == dataclasses.replace(
        default_settings(), model=ModelSettings(layers=2)
    )


def test_unknown_setting_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="unknown setting depth, width"):
        ModelSettings.from_dict({"width": 3, "layers": 1, "depth": 2})
    with pytest.raises(ValueError, match="unknown setting depth"):
        Settings.from_dict({"model": {"depth": 2}})
    with pytest.raises(ValueError, match="unknown group of settings modle"):
        Settings.from_dict({"modle": {}})


def test_value_out_of_range_is_refused_from_a_dict_too() -> None:
    with pytest.raises(ValueError, match="--layers"):
        Settings.from_dict({"model": {"layers": 0}})
