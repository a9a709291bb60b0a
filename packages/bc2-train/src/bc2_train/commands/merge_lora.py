"""``bc2-train merge-lora``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from bc2_data.command import add_command, show


def add(commands: Any) -> None:
    """Adds the subcommand."""
    parser = add_command(
        commands,
        "merge-lora",
        _run,
        "merge the newest adapters of a run into its weights, for Hugging Face",
        "  bc2-train merge-lora runs/lora --output merged",
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="a run directory")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="made anew")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing output")


def _run(args: argparse.Namespace) -> None:
    from bc2_train.merge import merge

    checkpoint = merge(args.run, args.output, overwrite=args.overwrite)
    show([f"merged the adapters of {checkpoint} into {args.output}"])
