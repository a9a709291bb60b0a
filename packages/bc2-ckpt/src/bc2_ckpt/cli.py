"""The command line ``bc2-ckpt``, put together from one module a subcommand."""

from __future__ import annotations

from collections.abc import Sequence

from bc2_ckpt import __version__
from bc2_ckpt.commands import check_download, convert, inspect, verify
from bc2_data.command import make_parser, run

_COMMANDS = (check_download, convert, inspect, verify)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs ``bc2-ckpt`` and returns its exit status."""
    parser = make_parser(
        "bc2-ckpt",
        "Convert Baichuan2 checkpoints between Hugging Face and Megatron.",
        __version__,
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    for command in _COMMANDS:
        command.add(commands)
    return run(parser, argv)
