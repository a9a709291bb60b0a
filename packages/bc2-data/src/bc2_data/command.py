"""What the command lines of all four packages share: parsing, errors, exit status.

A command line is an argparse parser made by `make_parser`, whose subcommands are added with
`add_command`, and a `main` that ends in `run`. Heavy imports belong into the functions that carry
the subcommands out, so that ``--help`` answers at once.
"""

from __future__ import annotations

import argparse
import os
import select
import sys
import traceback
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NoReturn

from bc2_data.errors import Bc2Error, nearest

Run = Callable[[argparse.Namespace], int | None]

_STDOUT = 1
"""Its file descriptor."""


class _Parser(argparse.ArgumentParser):
    """A parser whose own errors look like every other error of bc2."""

    def error(self, message: str) -> NoReturn:
        print_error(message, f"{self.prog} --help")
        raise SystemExit(2)


def make_parser(prog: str, description: str, version: str) -> argparse.ArgumentParser:
    """Returns the parser of one command line, without subcommands yet.

    Args:
        prog: The command's name.
        description: What it is for; shown first by ``--help``.
        version: Shown by ``--version``.
    """
    parser = _Parser(
        prog=prog, description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--version", action="version", version=f"{prog} {version}")
    return parser


def add_command(
    commands: Any, name: str, run: Run, summary: str, example: str
) -> argparse.ArgumentParser:
    """Adds a subcommand and returns its parser.

    Args:
        commands: What ``parser.add_subparsers(...)`` returned.
        name: The subcommand.
        run: Carries it out; takes the parsed arguments, returns an exit status or None for 0.
        summary: One line, shown in the list of subcommands and on top of its help.
        example: Complete command lines, shown below its help.
    """
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=summary,
        description=summary,
        epilog=f"example:\n{example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    parser.set_defaults(carry_out=run)
    return parser


def one_of(known: Sequence[str]) -> Callable[[str], str]:
    """Returns an argparse type that takes one of the known names and names the nearest if not."""

    def convert(name: str) -> str:
        if name not in known:
            raise argparse.ArgumentTypeError(f"unknown name {name!r}; {nearest(name, known)}")
        return name

    return convert


def positive(text: str) -> int:
    """An argparse type: an integer of at least 1."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is not positive")
    return number


def show(lines: Iterable[str]) -> None:
    """Writes the lines of a command's answer on stdout."""
    sys.stdout.writelines(f"{line}\n" for line in lines)


def run(parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> int:
    """Parses the arguments, carries the subcommand out and returns the exit status.

    Args:
        parser: A parser whose subcommands came from `add_command`.
        argv: The arguments; None for those of the process.
    """
    args = parser.parse_args(argv)
    if not hasattr(args, "carry_out"):
        parser.print_help()
        return 2
    status = 0
    try:
        status = args.carry_out(args) or 0
        sys.stdout.flush()
        return status
    except Bc2Error as error:
        _show_traceback(args)
        print_error(error.message, error.hint, error)
        return error.exit_status
    except KeyboardInterrupt as interrupt:
        print_error("interrupted", "", interrupt)
        return 130
    except OSError as error:
        if isinstance(error, BrokenPipeError) and _reader_is_gone():
            # The interpreter flushes once more on its way out, and would complain.
            os.dup2(os.open(os.devnull, os.O_WRONLY), _STDOUT)
            return status
        _show_traceback(args)
        hint = "check that the path is right, may be used, and has space left"
        print_error(str(error), hint, error)
        return 2
    except Exception as error:
        _show_traceback(args)
        print_error(
            f"unexpected {type(error).__name__}: {error}",
            "this is a defect of bc2: run again with --debug and report the traceback",
            error,
        )
        return 1


def print_error(message: str, hint: str, error: BaseException | None = None) -> None:
    """Prints ``error:`` and, where there is one, ``hint:`` on stderr.

    Args:
        message: What is wrong.
        hint: What to do next; "" for nothing.
        error: Its notes (`BaseException.add_note`) are printed as ``note:``.
    """
    sys.stderr.write(f"error: {message}\n")
    if hint:
        sys.stderr.write(f"hint: {hint}\n")
    for note in getattr(error, "__notes__", []):
        sys.stderr.write(f"note: {note}\n")


def _reader_is_gone() -> bool:
    """Returns whether nobody reads stdout any more, as of ``| head``, which is no error."""
    pipe = select.poll()
    pipe.register(_STDOUT, 0)
    return any(event & (select.POLLERR | select.POLLHUP) for _, event in pipe.poll(0))


def _show_traceback(args: argparse.Namespace) -> None:
    if args.debug:
        traceback.print_exc()
