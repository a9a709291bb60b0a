"""``bc2-data verify``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from bc2_data.command import add_command

_EXAMPLE = """\
  bc2-data verify out/moss
  bc2-data verify out/moss --tokenizer Baichuan2-13B-Base"""


def add(commands: Any) -> None:
    """Adds the subcommand."""
    parser = add_command(
        commands, "verify", _run, "Check that datasets are whole and what they claim.", _EXAMPLE
    )
    parser.add_argument(
        "prefix",
        type=Path,
        metavar="PREFIX",
        help="the --output-prefix of a run, or the path of one dataset without .bin and .idx",
    )
    parser.add_argument(
        "--tokenizer",
        type=Path,
        metavar="DIR",
        help="check that the data was made with this tokenizer",
    )


def _run(args: argparse.Namespace) -> None:
    from bc2_data.checks import show_checks
    from bc2_data.tokenizer import load_tokenizer
    from bc2_data.verification import VerificationError, verify

    tokenizer = load_tokenizer(args.tokenizer) if args.tokenizer else None
    failed = show_checks(verify(args.prefix, tokenizer))
    if failed:
        raise VerificationError(
            f"{args.prefix} failed {failed} of the checks above",
            "copy the files again, or make them again with --overwrite",
        )
