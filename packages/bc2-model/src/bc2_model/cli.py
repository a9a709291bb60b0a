"""The command line ``bc2-model``, put together from one module a subcommand."""

from __future__ import annotations

from collections.abc import Sequence

from bc2_data.command import make_parser, run
from bc2_model import __version__
from bc2_model.commands import bench, chat, generate, kernels

_COMMANDS = (generate, chat, kernels, bench)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs ``bc2-model`` and returns its exit status."""
    parser = make_parser("bc2-model", "Run Baichuan2 models and their kernels.", __version__)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    for command in _COMMANDS:
        command.add(commands)
    return run(parser, argv)
