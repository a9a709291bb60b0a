"""The command line ``bc2-data``, put together from one module a subcommand."""

from __future__ import annotations

import os
from collections.abc import Sequence

from bc2_data import __version__
from bc2_data.command import make_parser, run
from bc2_data.commands import inspect, merge, pack, tokenize, verify

_COMMANDS = (tokenize, merge, pack, inspect, verify)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs ``bc2-data`` and returns its exit status."""
    # NumPy's threads for linear algebra, of which there is none here, spin while they wait.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    parser = make_parser("bc2-data", "Tokenise text for Baichuan2 training.", __version__)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    for command in _COMMANDS:
        command.add(commands)
    return run(parser, argv)
