"""Settings as dataclasses, and command-line flags made from them.

A group of settings is a frozen dataclass whose fields know their help text and their allowed
range. `settings.py` defines the groups; this module checks values and builds argparse flags.
"""

import argparse
import dataclasses
import math
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Self, TypeVar

from pianolstm.files import InputError

T = TypeVar("T")

_COMPARISONS = {
    "at least": lambda value, bound: value >= bound,
    "above": lambda value, bound: value > bound,
    "at most": lambda value, bound: value <= bound,
    "below": lambda value, bound: value < bound,
}


def setting(
    default: Any,
    help: str,
    *,
    at_least: float | None = None,
    above: float | None = None,
    at_most: float | None = None,
    below: float | None = None,
    choices: tuple[str, ...] | None = None,
) -> Any:
    """Return a dataclass field with a help text and an allowed range.

    Args:
        default: the value, or a function without arguments that returns it.
        help: what the setting does, readable on its own; also the flag's help.
        at_least: smallest allowed value.
        above: the value must be larger than this.
        at_most: largest allowed value.
        below: the value must be smaller than this.
        choices: the allowed values, for text.
    """
    bounds = {"at least": at_least, "above": above, "at most": at_most, "below": below}
    limits = {word: bound for word, bound in bounds.items() if bound is not None}
    metadata = {"help": help, "limits": limits, "choices": choices}
    if callable(default):
        return dataclasses.field(default_factory=default, metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def value_type(annotation: Any) -> type:
    """Return `int` for `int | None`, and any other type unchanged."""
    arguments = typing.get_args(annotation)
    return next((arg for arg in arguments if arg is not type(None)), annotation)


@dataclass(frozen=True)
class SettingsGroup:
    """Base class of all groups of settings; checks every value when an instance is made.

    Raises:
        ValueError: a value has the wrong type or is out of range. The message names the flag and
            the range.
    """

    def __post_init__(self) -> None:
        """Check every value against its type and range."""
        annotations = typing.get_type_hints(type(self))
        for field in dataclasses.fields(self):
            annotation = annotations[field.name]
            _check(field, annotation, getattr(self, field.name))

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Make the group from the output of `dataclasses.asdict`.

        Raises:
            ValueError: a name that is no setting of this group, or a value out of range.
        """
        known = {field.name for field in dataclasses.fields(cls)}
        if unknown := set(values) - known:
            raise ValueError(f"unknown setting {', '.join(sorted(unknown))}")
        return cls(**values)

    @classmethod
    def given(cls, flags: argparse.Namespace) -> dict[str, Any]:
        """Return the settings of this group that the user gave as flags."""
        names = [field.name for field in dataclasses.fields(cls)]
        return {name: getattr(flags, name) for name in names if hasattr(flags, name)}

    @classmethod
    def from_flags(
        cls,
        flags: argparse.Namespace,
        parser: argparse.ArgumentParser,
        preset: Mapping[str, Any] | None = None,
    ) -> Self:
        """Return the group: the user's flags override the preset, the preset the defaults.

        A value out of range ends the program with one line on stderr and exit status 2.
        """
        names = {field.name for field in dataclasses.fields(cls)}
        values = {name: value for name, value in (preset or {}).items() if name in names}
        try:
            return cls(**(values | cls.given(flags)))
        except ValueError as error:
            parser.error(str(error))


def _check(field: dataclasses.Field[Any], annotation: Any, value: Any) -> None:
    """Raise ValueError unless the value has the field's type and lies in its range."""
    kind, flag = value_type(annotation), f"--{field.name}"
    if value is None and annotation is not kind:
        return
    allowed = (int, float) if kind is float else (kind,)
    if not isinstance(value, allowed) or (isinstance(value, bool) and kind is not bool):
        raise ValueError(f"{flag}: {value!r} is not of type {kind.__name__}")
    if value == "":
        raise ValueError(f"{flag}: empty; give a value or leave the flag out")
    choices, limits = field.metadata["choices"], field.metadata["limits"]
    if choices and value not in choices:
        raise ValueError(f"{flag}: {value!r} is not one of {', '.join(choices)}")
    if value == math.inf:
        raise ValueError(f"{flag}: inf is out of range; it must be finite")
    # NaN fails every comparison, so it is refused here as well.
    if not all(_COMPARISONS[word](value, bound) for word, bound in limits.items()):
        wanted = " and ".join(f"{word} {bound}" for word, bound in limits.items())
        raise ValueError(f"{flag}: {value} is out of range; it must be {wanted}")


class Parser(argparse.ArgumentParser):
    """An argument parser with one-line errors; it accepts no abbreviated flags."""

    def __init__(self, **options: Any) -> None:
        """Take the options of `argparse.ArgumentParser`."""
        super().__init__(allow_abbrev=False, **options)

    def error(self, message: str) -> typing.NoReturn:
        """Print the message on one line of stderr and exit with status 2."""
        self.exit(2, f"{self.prog}: {message} (see --help)\n")


def add_flags(parser: argparse.ArgumentParser, *groups: type[SettingsGroup]) -> None:
    """Add a flag for every field of the groups, with its default and effect in the help text."""
    for group in groups:
        section = parser.add_argument_group(str(group.__doc__).strip().rstrip("."))
        annotations, defaults = typing.get_type_hints(group), group()
        for field in dataclasses.fields(group):
            kind, default = value_type(annotations[field.name]), getattr(defaults, field.name)
            text = field.metadata["help"]
            if default is not None and default is not False:
                text += f" (default: {default})"
            # SUPPRESS: a flag that was not given leaves no attribute, so `given` sees what was.
            options: dict[str, Any] = {
                "default": argparse.SUPPRESS,
                "help": text.replace("%", "%%"),  # argparse formats help texts with %
            }
            if kind is bool:
                options["action"] = argparse.BooleanOptionalAction  # --no-... overrides a preset
            else:
                choices = field.metadata["choices"]
                options |= {"type": kind, "choices": choices}
                options["metavar"] = None if choices else kind.__name__.upper()
            section.add_argument(f"--{field.name}", **options)


def parse_value(flag: str, parse: Callable[[str], T], text: str) -> T:
    """Return the value of a flag.

    Raises:
        InputError: the text is not one; the message names the flag.
    """
    try:
        return parse(text)
    except ValueError as error:
        raise InputError(f"{flag} {error}") from None
