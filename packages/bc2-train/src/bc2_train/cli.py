"""The command line ``bc2-train``, put together from one module a subcommand."""

from __future__ import annotations

from collections.abc import Sequence

from bc2_data.command import make_parser, run
from bc2_train import __version__
from bc2_train.commands import compare, demo, doctor, launch, merge_lora, plan, pulse, report
from bc2_train.commands import run as train

_COMMANDS = (train, launch, plan, doctor, pulse, report, compare, merge_lora, demo)


def main(argv: Sequence[str] | None = None) -> int:
    """Carries out one bc2-train command and returns its exit status."""
    parser = make_parser("bc2-train", "Train Baichuan2 on megatron-core or DeepSpeed.", __version__)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    for command in _COMMANDS:
        command.add(commands)
    return run(parser, argv)
