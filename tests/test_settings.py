"""The settings of the program: their flags and ranges, `settings.json`, and the presets."""

import dataclasses
import json
import subprocess
import sys
import typing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers import ROOT, parse
from pianolstm.cli import SettingsGroup, value_type
from settings import (
    GROUPS,
    PRESETS,
    DataSettings,
    MachineSettings,
    ModelSettings,
    PlaySettings,
    RunSettings,
    SampleSettings,
    Settings,
    TrainSettings,
    with_preset,
)

DEFAULTS = Settings.build(lambda _, group: group())
NUMBERS = [
    (group, field.name)
    for group in (*GROUPS.values(), PlaySettings)
    for field in dataclasses.fields(group)
    if value_type(typing.get_type_hints(group)[field.name]) in (int, float)
]

# ---- flags ---------------------------------------------------------------------------------------


def test_the_environment_sets_the_data_folder_and_a_flag_overrides_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("PIANO_DATA_DIR", raising=False)
    assert DataSettings().data_dir == "datasets"
    monkeypatch.setenv("PIANO_DATA_DIR", "elsewhere")
    assert DataSettings().data_dir == "elsewhere"
    assert parse(DataSettings, "--data_dir", "flag").data_dir == "flag"


@pytest.mark.parametrize(
    "groups", [tuple(GROUPS.values()), (SampleSettings, PlaySettings, MachineSettings)]
)
def test_no_two_settings_of_a_program_share_a_flag(groups: tuple[type[SettingsGroup], ...]) -> None:
    names = [field.name for group in groups for field in dataclasses.fields(group)]
    assert len(names) == len(set(names))


@pytest.mark.parametrize(("group", "name"), NUMBERS)
def test_no_number_may_be_negative_infinite_or_no_number(
    group: type[SettingsGroup], name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for text in ("-1", "nan", "inf", "many"):
        with pytest.raises(SystemExit):
            parse(group, f"--{name}={text}")
        assert f"--{name}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("group", "name", "value"),
    [
        (ModelSettings, "hidden_size", 0),
        (ModelSettings, "dropout", 1.0),  # would leave nothing
        (ModelSettings, "transpose_prob", 1.1),
        (ModelSettings, "viewpoints", 4),
        (TrainSettings, "batch_size", 0),
        (TrainSettings, "lr", 0.0),
        (TrainSettings, "epochs", 0),
        (RunSettings, "seed", 2**63),
        (SampleSettings, "num_samples", 0),
        (SampleSettings, "max_polyphony", 89),
        (SampleSettings, "velocity", 128),  # MIDI has 7 bits
        (PlaySettings, "seed", 2**63),
    ],
)
def test_values_without_a_meaning_are_refused(
    group: type[SettingsGroup], name: str, value: Any
) -> None:
    with pytest.raises(ValueError, match=rf"^--{name}: "):
        group(**{name: value})


def test_importing_the_settings_imports_no_torch() -> None:
    program = "import settings, sys; print('torch' in sys.modules)"
    command = [sys.executable, "-c", program]
    assert subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout == b"False\n"


# ---- settings.json -------------------------------------------------------------------------------


@given(
    hidden_size=st.integers(1, 16384),
    dropout=st.floats(0, 1, exclude_max=True),
    lr=st.floats(0, 10, exclude_min=True),
    seed=st.integers(0, 2**63 - 1),
    data=st.none() | st.text(st.characters(codec="utf-8"), min_size=1),
)
def test_settings_are_restored_from_json(
    hidden_size: int, dropout: float, lr: float, seed: int, data: str | None
) -> None:
    settings = dataclasses.replace(
        DEFAULTS,
        data=DataSettings(data=data),
        model=ModelSettings(hidden_size=hidden_size, dropout=dropout),
        train=TrainSettings(lr=lr),
        run=RunSettings(seed=seed),
    )
    assert Settings.from_dict(json.loads(json.dumps(dataclasses.asdict(settings)))) == settings


def test_the_settings_of_a_run_are_read_and_missing_ones_are_defaults(tmp_path: Path) -> None:
    (tmp_path / "settings.json").write_text('{"settings": {"model": {"layers": 2}}, "threads": 1}')
    expected = dataclasses.replace(DEFAULTS, model=ModelSettings(layers=2))
    assert Settings.of_run(tmp_path) == expected


# ---- presets -------------------------------------------------------------------------------------


@pytest.mark.parametrize("frames", [1, 13_807, 176_561, 10**9])
@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_changes_settings_of_one_group_each_within_their_ranges(
    preset: str, frames: int
) -> None:
    values = PRESETS[preset](frames)
    names = [field.name for group in GROUPS.values() for field in dataclasses.fields(group)]
    assert all(names.count(name) == 1 for name in values)
    settings = with_preset(DEFAULTS, preset, (), frames)
    made = {
        name: value for group in GROUPS for name, value in vars(getattr(settings, group)).items()
    }
    assert made.items() >= values.items()


def test_the_best_preset_has_more_dropout_and_transposition_and_fewer_steps_for_fewer_frames() -> (
    None
):
    frames = [2**10, 2**14, 2**15, 2**16, 2**17, 2**18, 2**20]
    recipes = [PRESETS["best"](count) for count in frames]
    follow_frames = {name for name in recipes[0] if len({recipe[name] for recipe in recipes}) > 1}
    numbers = {"dropout", "attention_dropout", "transpose_prob", "max_steps"}
    small, large = {"consistency", "recurrent_dropout", "voice_leading"}, {"metrical_position"}
    assert follow_frames == numbers | small | large
    for name in small | large:
        values = [recipe[name] for recipe in recipes]
        assert values == sorted(values, reverse=name in small), "one threshold"
        assert len(set(values)) == 2
    for name in numbers:
        values = [recipe[name] for recipe in recipes]
        assert values == sorted(values, reverse=name != "max_steps")
        assert values[0] == values[1], "the same below 2**14 frames"
        assert values[-2] == values[-1], "the same above 2**18 frames"
        assert len(set(values)) == 5


def test_flags_override_a_preset() -> None:
    settings = dataclasses.replace(DEFAULTS, train=TrainSettings(lr=0.5))
    best = with_preset(settings, "best", {"lr", "relative_pitch"}, 10**5)
    assert best.train.lr == 0.5
    assert not best.model.relative_pitch
    assert best.model.attention_window == 1024


def test_epochs_that_the_user_gives_override_the_steps_of_a_preset() -> None:
    settings = dataclasses.replace(DEFAULTS, train=TrainSettings(epochs=3))
    best = with_preset(settings, "best", {"epochs"}, 10**5)
    assert (best.train.epochs, best.train.max_steps) == (3, 0)


def test_the_default_preset_changes_nothing() -> None:
    assert with_preset(DEFAULTS, "default", (), 10**5) == DEFAULTS
