"""Presets: values in the place of the defaults, over which the user's flags go."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

import main
from flags import Parser, add_flags
from groups import Group
from helpers_main import SMALL, call, write_tunes
from presets import PRESETS
from settings import GROUPS, ModelSettings, TrainSettings

SIZES = [flag for flag in SMALL if not flag.startswith("--epochs")]
FRAMES = 180  # six tunes of 30, the training split of `tunes`
BEST = PRESETS["best"](FRAMES)


@pytest.fixture
def tunes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the path of a small set of piano-rolls; the program runs in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PIANO_DATA_DIR", raising=False)
    return write_tunes(tmp_path)


def kept(run: str) -> dict[str, Any]:
    """Return every setting of a run by its name."""
    groups = json.loads(Path(run, "settings.json").read_text())["settings"]
    return {name: value for group in groups.values() for name, value in group.items()}


def epochs_of(run: str) -> int:
    return len(Path(run, "metrics.csv").read_text().splitlines()) - 1


# ---- the values ----------------------------------------------------------------------------------


@pytest.mark.parametrize("frames", [1, 13_807, 176_561, 10**9])
@pytest.mark.parametrize("preset", PRESETS)
def test_every_value_is_that_of_one_setting_and_in_its_range(preset: str, frames: int) -> None:
    values = PRESETS[preset](frames)
    owners: dict[str, list[type[Group]]] = {name: [] for name in values}
    for group in GROUPS.values():
        names = {field.name for field in dataclasses.fields(group)} & values.keys()
        for name in names:
            owners[name].append(group)
        made = group(**{name: values[name] for name in names})
        assert all(getattr(made, name) == values[name] for name in names)
        for name in names:
            assert getattr(made, name) != getattr(group(), name), "a default needs no saying"
    assert all(len(groups) == 1 for groups in owners.values())


def test_the_fewer_frames_there_are_the_more_is_dropped_and_moved_in_fewer_steps() -> None:
    names = ("dropout", "view_dropout", "transpose", "steps")
    table = {
        2**20: (0.48, 0.38, 0.53, 9_200),
        2**18: (0.48, 0.38, 0.53, 9_200),
        2**16: (0.59, 0.44, 0.765, 6_400),  # half of the way
        2**14: (0.7, 0.5, 1.0, 3_600),
        2**10: (0.7, 0.5, 1.0, 3_600),
    }
    for frames, expected in table.items():
        values = PRESETS["best"](frames)
        assert [values[name] for name in names] == pytest.approx(expected, abs=0.0051)
        assert values.keys() == BEST.keys()
        assert {name for name in values if values[name] != BEST[name]} <= set(names)


def test_default_preset_changes_nothing() -> None:
    assert PRESETS["default"](FRAMES) == {}


def test_flags_go_over_the_preset_and_the_preset_over_the_defaults() -> None:
    parser = Parser(prog="program.py")
    add_flags(parser, TrainSettings)
    preset = {"lr": 0.5, "clip": 3.0, "hidden_size": 7}  # the last is of another group
    flags = parser.parse_args(["--lr=0.001", "--bptt=9"])
    made = TrainSettings.from_flags(flags, parser, preset)
    assert made == TrainSettings(lr=0.001, clip=3.0, bptt=9)
    assert TrainSettings.from_flags(flags, parser) == TrainSettings(lr=0.001, bptt=9)
    assert preset == {"lr": 0.5, "clip": 3.0, "hidden_size": 7}


def test_what_a_preset_switches_on_a_flag_switches_off() -> None:
    parser = Parser(prog="program.py")
    add_flags(parser, ModelSettings)
    flags = parser.parse_args(["--no-intervals"])
    assert BEST["intervals"] is True
    assert ModelSettings.from_flags(flags, parser, BEST).intervals is False


# ---- runs ----------------------------------------------------------------------------------------


def test_run_of_a_preset_keeps_its_values_and_a_flag_beside_it_wins(
    tunes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = {**BEST, "steps": 3}  # should they be taken after all
    monkeypatch.setitem(PRESETS, "best", lambda frames: dict(few) if frames == FRAMES else {})
    flags = [*SIZES, "--dropout=0.25", "--epochs=1"]
    assert call(main, "--data", tunes, "--preset", "best", *flags, "--run_dir=run") == 0
    assert epochs_of("run") == 1, "--epochs is how long, in place of the preset's steps"
    given = {"embed_size": 8, "hidden_size": 8, "latent_size": 3, "dropout": 0.25, "epochs": 1}
    assert kept("run").items() >= {**BEST, **given, "steps": 0}.items()


def test_steps_become_epochs_that_are_kept_and_resumed(tunes: Path, capsys: Any) -> None:
    flags = [*SIZES, "--memory=6", "--steps=3", "--run_dir=run"]
    # Six tunes of 30 frames are one step of Adam.
    assert call(main, "--data", tunes, "--preset=best", *flags) == 0
    assert epochs_of("run") == 3
    assert (kept("run")["epochs"], kept("run")["steps"]) == (3, 0)
    before = Path("run/model.safetensors").read_bytes()
    assert call(main, "--resume=run") == 0
    assert epochs_of("run") == 3
    assert Path("run/model.safetensors").read_bytes() == before
    capsys.readouterr()
    results = json.loads(Path("run/results.json").read_text())
    assert call(main, "--evaluate=run", "--json") == 0
    assert json.loads(capsys.readouterr().out) == results


def test_default_preset_is_no_preset(tunes: Path) -> None:
    for name, flags in (("none", []), ("named", ["--preset=default"])):
        assert call(main, "--data", tunes, *SMALL, "--epochs=1", *flags, f"--run_dir={name}") == 0
    assert kept("none") == {**kept("named"), "run_dir": "none"}
    none, named = (Path(run, "model.safetensors").read_bytes() for run in ("none", "named"))
    assert none == named


def test_steps_given_by_the_user_go_before_epochs(tunes: Path) -> None:
    assert call(main, "--data", tunes, *SMALL, "--epochs=9", "--steps=2", "--run_dir=run") == 0
    assert epochs_of("run") == 2


def test_more_steps_than_any_run_has_are_refused(
    tunes: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(main, "--data", tunes, *SIZES, "--steps=2000000") == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "--steps 2000000" in error
    assert not Path("runs").exists()


# ---- wrong calls ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "flags",
    [
        ["--preset=worst"],
        ["--preset="],
        ["--preset"],
        ["--preset=best", "--resume=run"],
        ["--preset=best", "--evaluate=run"],
        ["--preset=default", "--resume=run"],
        ["--preset=best", "--dropout=1"],
    ],
)
def test_a_wrong_call_gets_one_line_and_status_2(
    flags: list[str], tunes: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(main, *flags) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.count("\n") == 1
    assert "--preset" in printed.err or "--dropout" in printed.err
    assert sorted(path.name for path in Path().iterdir()) == [tunes.name]
