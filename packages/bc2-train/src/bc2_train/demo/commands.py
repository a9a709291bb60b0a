"""Runs bc2's own command lines one after the other, in a form that a reader can repeat."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bc2_train.errors import TrainError

_WIDTH = 96
_CONTINUATION = " \\\n    "


class StepFailedError(TrainError):
    """A command of a step ended with an error, which it has printed itself.

    Attributes:
        exit_status: The command's own where that means something to a user of bc2, else 1.
    """

    def __init__(self, command: Sequence[str], status: int) -> None:
        ended = f"was killed by signal {-status}" if status < 0 else f"ended with status {status}"
        super().__init__(
            f"this command {ended}; its own message stands above:\n{command_line(command)}",
            "mend what it names and run the command again by itself",
        )
        self.exit_status = status if status in (1, 2) else 1


@dataclass(frozen=True)
class Step:
    """One step: a heading and what is done under it."""

    title: str
    run: Callable[[], None]


def run_steps(steps: Sequence[Step]) -> None:
    """Carries out steps in order, each under its heading and followed by its time.

    The first error ends them all.
    """
    for number, step in enumerate(steps, 1):
        with _timed(f"[{number}/{len(steps)}] {step.title}"):
            step.run()


def run_command(name: str, *arguments: str | Path) -> None:
    """Prints a command line of bc2 and carries it out; its output goes where ours goes.

    Args:
        name: A console script such as ``bc2-data``.
        *arguments: Its arguments.

    Raises:
        StepFailedError: It ended with another status than 0.
        TrainError: It is not installed.
    """
    command = [find_script(name), *map(str, arguments)]
    say(f"$ {command_line(command)}")
    status = subprocess.run(command, check=False).returncode
    if status:
        raise StepFailedError(command, status)


def command_line(command: Sequence[str]) -> str:
    """Returns a command as it is typed in a shell, broken before an option where it is long.

    A script that the shell finds by its name is written as that name.
    """
    program, *arguments = command
    lines = [shlex.quote(_shortest(program))]
    for option in _with_values(arguments):
        if len(lines[-1]) + 1 + len(option) > _WIDTH:
            lines.append(option)
        else:
            lines[-1] += f" {option}"
    return _CONTINUATION.join(lines)


def find_script(name: str) -> str:
    """Returns the path of a console script, first of those beside the running Python.

    Raises:
        TrainError: It is neither there nor on the PATH.
    """
    beside = Path(sys.executable).with_name(name)
    found = str(beside) if beside.is_file() else shutil.which(name)
    if found is None:
        raise TrainError(
            f"the command {name} is not installed beside {sys.executable}",
            "install the four packages of bc2 into one environment",
        )
    return found


def say(text: str = "") -> None:
    """Prints a line at once, so that it stands above what a command prints next."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def _with_values(arguments: Sequence[str]) -> list[str]:
    """Returns the quoted arguments, an option's values joined to it."""
    options: list[str] = []
    for argument in arguments:
        if options and not argument.startswith("--"):
            options[-1] += f" {shlex.quote(argument)}"
        else:
            options.append(shlex.quote(argument))
    return options


def _shortest(program: str) -> str:
    name = Path(program).name
    if shutil.which(name) == program:
        return name
    relative = os.path.relpath(program)
    return program if relative.startswith("..") else relative


@contextmanager
def _timed(heading: str) -> Iterator[None]:
    say(f"\n{heading}\n{'-' * len(heading)}")
    started = time.perf_counter()
    yield
    say(f"({time.perf_counter() - started:.1f} s)")
