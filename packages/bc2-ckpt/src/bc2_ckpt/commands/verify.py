"""``bc2-ckpt verify``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from bc2_ckpt.commands.progress import above
from bc2_ckpt.commands.source import add_config, named_config, open_source
from bc2_data.command import add_command

_EXAMPLE = """\
  bc2-ckpt verify ckpt
  bc2-ckpt verify ckpt --against Baichuan2-7B-Base"""


def add(commands: Any) -> None:
    """Adds the subcommand."""
    parser = add_command(
        commands,
        "verify",
        _run,
        "Check that a checkpoint is as it was written, or equal to another one bit by bit.",
        _EXAMPLE,
    )
    parser.add_argument(
        "directory", type=Path, metavar="DIR", help="a checkpoint, or a run's checkpoints/ folder"
    )
    parser.add_argument(
        "--against",
        type=Path,
        metavar="DIR",
        help="a checkpoint of any format that should hold the same model",
    )
    add_config(parser)


def _run(args: argparse.Namespace) -> None:
    from bc2_ckpt.errors import VerificationError
    from bc2_ckpt.integrity.comparison import compare
    from bc2_ckpt.integrity.verification import verify
    from bc2_data.checks import show_checks
    from bc2_data.progress import progress_bar

    against = open_source(args.against, args) if args.against else None
    with progress_bar(None, "B", "verify") as bar:
        failed = show_checks(above(bar, verify(args.directory, named_config(args), bar.update)))
        if against is not None and not failed:
            ours = open_source(args.directory, args)
            failed = show_checks(above(bar, compare(ours, against, bar.update)))
    if failed:
        raise VerificationError(
            f"{args.directory} failed {failed} of the checks above",
            "copy or convert it again from a source that passes",
        )
