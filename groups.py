"""What a group of settings is: a frozen dataclass whose fields know their range and their effect.

The groups themselves are in settings.py, their flags in flags.py. Nothing here imports torch.
"""

import argparse
import dataclasses
import math
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self


def setting(
    default: Any,
    effect: str,
    *,
    at_least: float | None = None,
    above: float | None = None,
    at_most: float | None = None,
    below: float | None = None,
    choices: tuple[str, ...] | None = None,
) -> Any:
    """Return a dataclass field that knows its help text and its allowed range."""
    bounds = {"at least": at_least, "above": above, "at most": at_most, "below": below}
    limits = {word: bound for word, bound in bounds.items() if bound is not None}
    metadata = {"effect": effect, "limits": limits, "choices": choices}
    if callable(default):
        return dataclasses.field(default_factory=default, metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


WITHIN = {
    "at least": lambda value, bound: value >= bound,
    "above": lambda value, bound: value > bound,
    "at most": lambda value, bound: value <= bound,
    "below": lambda value, bound: value < bound,
}


def plain(kind: Any) -> type:
    """Return `int` for `int | None`, and every other type as it is."""
    return next((arg for arg in typing.get_args(kind) if arg is not type(None)), kind)


@dataclass(frozen=True)
class Group:
    """What all groups of settings share: values are checked when one is made.

    Raises:
        ValueError: a value is out of its range; the message names the flag and the range.
    """

    def __post_init__(self) -> None:
        """Hold every value to its type and its range."""
        types = typing.get_type_hints(type(self))
        for field in dataclasses.fields(self):
            value, limits = getattr(self, field.name), field.metadata["limits"]
            if value is None and types[field.name] is not plain(types[field.name]):
                continue
            kind = plain(types[field.name])
            allowed = (int, float) if kind is float else (kind,)
            if not isinstance(value, allowed) or (isinstance(value, bool) and kind is not bool):
                raise ValueError(f"--{field.name}: {value!r} is not of type {kind.__name__}")
            if value == "":
                raise ValueError(f"--{field.name}: it is empty; give a value or leave the flag out")
            choices = field.metadata["choices"]
            if choices and value not in choices:
                raise ValueError(f"--{field.name}: {value!r} is not one of {', '.join(choices)}")
            if value == math.inf:
                raise ValueError(f"--{field.name}: inf is out of range; it must be finite")
            # `not within` also catches NaN, which is within nothing.
            if not all(WITHIN[word](value, bound) for word, bound in limits.items()):
                wanted = " and ".join(f"{word} {bound}" for word, bound in limits.items())
                raise ValueError(f"--{field.name}: {value} is out of range; it must be {wanted}")

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Make the group from what `dataclasses.asdict` gave.

        Raises:
            ValueError: a name that is no setting of this group, or a value out of its range.
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
        """Return the group with the user's flags over the preset's values over the defaults.

        A value out of its range ends the program, with one line and exit status 2.
        """
        names = {field.name for field in dataclasses.fields(cls)}
        values = {name: value for name, value in (preset or {}).items() if name in names}
        try:
            return cls(**(values | cls.given(flags)))
        except ValueError as error:
            parser.error(str(error))
