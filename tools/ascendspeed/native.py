"""Shows the command of bc2 that a command line of AscendSpeed stands for, and runs it."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from ascendspeed.arguments import DropInError
from bc2_data.command import print_error
from bc2_data.errors import Bc2Error


@dataclass(frozen=True)
class Native:
    """A command of bc2.

    Attributes:
        words: Program, subcommand and what stands before the options.
        options: Each with its values.
        warnings: What bc2 does otherwise than AscendSpeed did, a line each.
    """

    words: tuple[str, ...]
    options: tuple[tuple[str, ...], ...]
    warnings: tuple[str, ...]

    @property
    def command(self) -> list[str]:
        """Program and arguments."""
        return [*self.words, *(word for option in self.options for word in option)]

    def __str__(self) -> str:
        """As it is typed in a shell, an option a line."""
        return " \\\n    ".join(shlex.join(part) for part in (self.words, *self.options))


def carry_out(
    translate: Callable[[Sequence[str] | None], Native], argv: Sequence[str] | None = None
) -> int:
    """Becomes the native command, so that signals and the exit status are its own.

    Args:
        translate: Turns a command line into the native one.
        argv: The command line; None for that of the process.

    Returns:
        The exit status where there is nothing to become: the command line is wrong.
    """
    try:
        native = translate(argv)
        sys.stderr.writelines(f"warning: {warning}\n" for warning in native.warnings)
        sys.stderr.flush()
        print(f"# in bc2's own words:\n{native}", flush=True)
        _become(native.command)
    except Bc2Error as error:
        print_error(error.message, error.hint)
        return error.exit_status


def _become(command: list[str]) -> NoReturn:
    name = command[0]
    beside = Path(sys.executable).with_name(name)
    script = str(beside) if beside.is_file() else shutil.which(name)
    if script is None:
        raise DropInError(
            f"the command {name} is not installed beside {sys.executable}",
            f"python3 -m pip install ./packages/{name}, with the packages that it depends on",
        )
    os.execv(script, [script, *command[1:]])
