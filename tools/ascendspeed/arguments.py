"""Arguments of AscendSpeed and what bc2 has in their place: tables, from which parsers are made."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn

from bc2_data.errors import Bc2Error, nearest


class DropInError(Bc2Error):
    """An AscendSpeed command line that bc2 cannot carry out."""


@dataclass(frozen=True)
class Argument:
    """One argument.

    Attributes:
        name: As AscendSpeed spells it.
        native: The option or key of bc2, or why none is needed, in one sentence of Markdown.
        parse: How argparse reads it.
        key: The key of bc2-train that takes the value as it is; "" where there is more to it.
        refused: Whether bc2 has nothing in its place.
    """

    name: str
    native: str
    parse: dict[str, Any] = field(default_factory=dict)
    key: str = ""
    refused: bool = False

    @property
    def attribute(self) -> str:
        """Its name in the parsed arguments."""
        return self.name.lstrip("-").replace("-", "_")


def flag(name: str, native: str) -> Argument:
    """Returns an argument without a value."""
    return Argument(name, native, {"action": "store_true"})


def value(name: str, native: str, **parse: Any) -> Argument:
    """Returns an argument with a value; `parse` is what ``add_argument`` takes."""
    return Argument(name, native, parse)


def setting(name: str, key: str, type_: Callable[[str], Any], default: Any = None) -> Argument:
    """Returns an argument whose value is that of one key of bc2-train.

    Args:
        name: Its name.
        key: The key.
        type_: Reads the value.
        default: AscendSpeed's own; None where the recipe says what it is.
    """
    return Argument(name, f"`{key}`", {"type": type_, "default": default}, key=key)


def refused(name: str, reason: str) -> Argument:
    """Returns an argument that stops the command, since bc2 has nothing in its place."""
    return Argument(name, reason, {"nargs": "*", "metavar": "VALUE"}, refused=True)


def parse(
    program: str, summary: str, arguments: Sequence[Argument], argv: Sequence[str] | None
) -> argparse.Namespace:
    """Returns the values of a command line of AscendSpeed.

    Args:
        program: The script.
        summary: What it does; shown first by ``--help``.
        arguments: All that it takes.
        argv: The command line; None for that of the process.

    Raises:
        DropInError: An argument is unknown, bc2 has nothing in its place, or its value is wrong.
    """
    parser = _parser(program, summary, arguments)
    args, rest = parser.parse_known_args(argv)
    if rest:
        close = nearest(rest[0].partition("=")[0], [argument.name for argument in arguments])
        hint = f"{close} " if close else ""
        raise DropInError(f"unknown argument {rest[0]}", f"{hint}{program} --help lists all")
    for argument in arguments:
        if argument.refused and getattr(args, argument.attribute) is not None:
            raise DropInError(f"bc2 has nothing in the place of {argument.name}", argument.native)
    return args


class _Parser(argparse.ArgumentParser):
    """A parser whose errors end as all others do."""

    def error(self, message: str) -> NoReturn:
        raise DropInError(message, f"{self.prog} --help")


def _parser(program: str, summary: str, arguments: Iterable[Argument]) -> argparse.ArgumentParser:
    parser = _Parser(
        prog=program,
        usage="%(prog)s ARGUMENTS",
        description=summary,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    taken = parser.add_argument_group("AscendSpeed's arguments, and what they are in bc2")
    stopping = parser.add_argument_group("AscendSpeed's arguments that bc2 has nothing for")
    for argument in arguments:
        group = stopping if argument.refused else taken
        shown = argument.native.replace("`", "").replace("%", "%%")
        group.add_argument(*_spellings(argument.name), help=shown, **argument.parse)
    return parser


def _spellings(name: str) -> list[str]:
    """Returns an argument's names: torch's launchers take both kinds of dashes."""
    if not name.startswith("-"):
        return [name]
    dashed = "--" + name.lstrip("-").replace("_", "-")
    return list(dict.fromkeys([name, dashed]))
