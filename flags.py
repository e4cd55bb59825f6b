"""Flags made from the settings, and errors in one line."""

import argparse
import dataclasses
import typing
from typing import Any

from groups import Group, plain


class Parser(argparse.ArgumentParser):
    """An argument parser that says what is wrong in one line, and takes no flag cut short."""

    def __init__(self, **options: Any) -> None:
        """Take the options of argparse's own."""
        super().__init__(allow_abbrev=False, **options)

    def error(self, message: str) -> typing.NoReturn:
        """Print the message on one line of stderr and exit with status 2."""
        self.exit(2, f"{self.prog}: {message} (see --help)\n")


def add_flags(parser: argparse.ArgumentParser, *groups: type[Group]) -> None:
    """Give the parser a flag for every field of the groups, default and effect in its help."""
    for group in groups:
        section = parser.add_argument_group(str(group.__doc__).strip().rstrip("."))
        types, blank = typing.get_type_hints(group), group()
        for field in dataclasses.fields(group):
            kind, default = plain(types[field.name]), getattr(blank, field.name)
            effect = field.metadata["effect"]
            if default is not None and default is not False:
                effect += f" (default: {default})"
            effect = effect.replace("%", "%%")  # argparse would fill it in
            if kind is bool:
                section.add_argument(
                    f"--{field.name}",
                    action=argparse.BooleanOptionalAction,  # --no-... takes back what a preset says
                    default=argparse.SUPPRESS,
                    help=effect,
                )
                continue
            section.add_argument(
                f"--{field.name}",
                type=kind,
                choices=field.metadata["choices"],
                metavar=None if field.metadata["choices"] else kind.__name__.upper(),
                # A flag that was not given leaves no trace, so that what was given is known.
                default=argparse.SUPPRESS,
                help=effect,
            )
