"""``bc2-ckpt inspect``."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from bc2_ckpt.commands.source import add_config, open_source
from bc2_data.command import add_command, show

_EXAMPLE = """\
  bc2-ckpt inspect ckpt
  bc2-ckpt inspect ckpt --json"""


def add(commands: Any) -> None:
    """Adds the subcommand."""
    parser = add_command(
        commands,
        "inspect",
        _run,
        "Show format, dimensions, parallel layout, dtype and tensors of a checkpoint.",
        _EXAMPLE,
    )
    parser.add_argument(
        "directory", type=Path, metavar="DIR", help="a checkpoint, or a run's checkpoints/ folder"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object instead of text")
    add_config(parser)


def _run(args: argparse.Namespace) -> None:
    from bc2_ckpt.summary import lines, summary

    reader = open_source(args.directory, args)
    show([json.dumps(summary(reader), indent=2)] if args.json else lines(reader))
