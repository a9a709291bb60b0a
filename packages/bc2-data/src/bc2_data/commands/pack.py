"""``bc2-data pack``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from bc2_data.command import add_command, positive, show

_EXAMPLE = """\
  bc2-data tokenize --input moss-003-sft-no-tools.jsonl --tokenizer Baichuan2-13B-Base \\
      --output-prefix out/moss --handler moss
  bc2-data pack --input-prefix out/moss --output-prefix out/moss-4k --seq-length 4096"""


def add(commands: Any) -> None:
    """Adds the subcommand."""
    parser = add_command(
        commands, "pack", _run, "Pack conversations into full training samples.", _EXAMPLE
    )
    parser.add_argument(
        "--input-prefix",
        type=Path,
        required=True,
        metavar="PREFIX",
        help="the --output-prefix of a tokenize run with an instruction --handler",
    )
    parser.add_argument(
        "--output-prefix",
        type=Path,
        required=True,
        metavar="PREFIX",
        help="path that the names of all outputs begin with",
    )
    parser.add_argument(
        "--seq-length",
        type=positive,
        required=True,
        metavar="N",
        help="data.seq_length of the training run: a row holds N + 1 tokens, for N predictions",
    )
    parser.add_argument(
        "--overlong",
        choices=("drop", "truncate", "error"),
        default="drop",
        help="what happens to conversations of more than N + 1 tokens (default: drop)",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace existing outputs")


def _run(args: argparse.Namespace) -> None:
    from bc2_data.inspection.summary import describe_manifest
    from bc2_data.packing import pack

    manifest = pack(
        args.input_prefix,
        args.output_prefix,
        args.seq_length,
        overlong=args.overlong,
        overwrite=args.overwrite,
    )
    show(describe_manifest(manifest))
    show(f"wrote {args.output_prefix.with_name(file.name)}" for file in manifest.outputs)
