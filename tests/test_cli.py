"""Settings as dataclasses: checked values, dictionaries, and command-line flags made from them."""

import argparse
import dataclasses
import math
import re
from dataclasses import dataclass
from typing import Any

import pytest

from helpers import parse, parser_of
from pianolstm.cli import SettingsGroup, setting


@dataclass(frozen=True)
class Toy(SettingsGroup):
    """Toy: one setting of each kind."""

    size: int = setting(4, "how large", at_least=1, at_most=8)
    rate: float = setting(0.5, "how fast", above=0, below=1)
    color: str = setting("red", "which color", choices=("red", "blue"))
    path: str | None = setting(None, "where, if anywhere")
    loud: bool = setting(False, "whether it is loud")
    fast: bool = setting(True, "whether it is fast")
    folder: str = setting(lambda: "half-50%", "where to")


# ---- values --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value"),
    [("size", 1), ("size", 8), ("rate", 1e-9), ("rate", 0.999), ("color", "blue"), ("path", None)],
)
def test_a_value_within_its_range_is_accepted(name: str, value: Any) -> None:
    assert getattr(Toy(**{name: value}), name) == value


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("size", 0, "0 is out of range; it must be at least 1 and at most 8"),
        ("size", 9, "9 is out of range"),
        ("size", 2.0, "2.0 is not of type int"),
        ("size", "2", "'2' is not of type int"),
        ("size", True, "True is not of type int"),
        ("size", None, "None is not of type int"),
        ("rate", 0, "0 is out of range; it must be above 0 and below 1"),
        ("rate", 1, "1 is out of range"),
        ("rate", math.nan, "nan is out of range"),
        ("rate", math.inf, "inf is out of range"),
        ("rate", False, "False is not of type float"),
        ("rate", [0.1], r"\[0.1\] is not of type float"),
        ("color", "green", "'green' is not one of red, blue"),
        ("path", 3, "3 is not of type str"),
        ("path", "", "empty"),
        ("loud", 1, "1 is not of type bool"),
    ],
)
def test_a_value_out_of_range_or_of_another_type_is_refused_with_flag_and_range(
    name: str, value: Any, reason: str
) -> None:
    with pytest.raises(ValueError, match=rf"^--{name}: {reason}[^\n]*$"):
        Toy(**{name: value})


def test_settings_can_not_be_changed_in_place() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Toy().size = 5  # type: ignore[misc]


# ---- flags ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "given"),
    [
        ("--size=8", {"size": 8}),
        ("--size 4", {"size": 4}),  # the default, but given
        ("--rate 2e-3", {"rate": 0.002}),
        ("--color blue --path here", {"color": "blue", "path": "here"}),
        ("--loud --no-fast", {"loud": True, "fast": False}),
        ("--size 2 --size 3", {"size": 3}),
        ("", {}),
    ],
)
def test_flags_set_their_settings_and_no_others(words: str, given: dict[str, Any]) -> None:
    flags = parser_of(Toy).parse_args(words.split())
    assert Toy.given(flags) == given
    assert flags == argparse.Namespace(**given)
    assert Toy.from_flags(flags, parser_of(Toy)) == Toy(**given)


def test_flags_override_a_preset_and_the_preset_overrides_defaults() -> None:
    parser = parser_of(Toy)
    preset = {"size": 7, "loud": True, "of_another_group": 1}
    flags = parser.parse_args(["--no-loud", "--rate=0.1"])
    assert Toy.from_flags(flags, parser, preset) == Toy(size=7, loud=False, rate=0.1)


@pytest.mark.parametrize(
    "words",
    ["--size=0", "--size=many", "--size", "--rate=nan", "--color=green", "--path=", "--siz=3", "x"],
)
def test_a_wrong_flag_ends_the_program_with_one_line_on_stderr_and_status_2(
    words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exit_:
        parse(Toy, words)
    printed = capsys.readouterr()
    assert exit_.value.code == 2
    assert printed.out == ""
    assert re.fullmatch(rf"program\.py: [^\n]*{words.split('=')[0]}[^\n]*\n", printed.err)


def test_help_shows_each_effect_and_the_defaults_that_are_not_obvious(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    text = " ".join(parser_of(Toy).format_help().split())
    for line in (
        "--size INT how large (default: 4)",
        "--color {red,blue} which color (default: red)",
        "--path STR where, if anywhere --",
        "--loud, --no-loud whether it is loud --",
        "--folder STR where to (default: half-50%)",  # argparse formats help texts with %
    ):
        assert line in text


# ---- dictionaries --------------------------------------------------------------------------------


def test_a_group_is_restored_from_its_dictionary_and_missing_values_are_defaults() -> None:
    changed = Toy(size=2, path="here", loud=True)
    assert Toy.from_dict(dataclasses.asdict(changed)) == changed
    assert Toy.from_dict({"size": 2}) == Toy(size=2)


def test_a_dictionary_with_unknown_names_or_wrong_values_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown setting depth, width"):
        Toy.from_dict({"width": 3, "size": 1, "depth": 2})
    with pytest.raises(ValueError, match="--size"):
        Toy.from_dict({"size": 0})
