"""``bc2-data merge``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from bc2_data.command import add_command, show

_EXAMPLE = """\
  # on machine R of 4, for R from 0 to 3
  bc2-data tokenize --input corpus/ --tokenizer Baichuan2-7B-Base --output-prefix out/corpus \\
      --rank R --world-size 4

  # afterwards: the same files as of a run on one machine
  bc2-data merge out/corpus.part-*.manifest.json --output-prefix out/corpus"""


def add(commands: Any) -> None:
    """Adds the subcommand."""
    parser = add_command(
        commands, "merge", _run, "Join datasets, above all the parts of one job.", _EXAMPLE
    )
    parser.add_argument(
        "prefixes",
        type=Path,
        nargs="+",
        metavar="PREFIX",
        help="the --output-prefix of each run, or its manifest; parts of one job may come in any "
        "order",
    )
    parser.add_argument(
        "--output-prefix",
        type=Path,
        required=True,
        metavar="PREFIX",
        help="path that the names of all outputs begin with",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace existing outputs")


def _run(args: argparse.Namespace) -> None:
    from bc2_data.inspection.summary import describe_manifest
    from bc2_data.merging import merge

    manifest = merge(args.prefixes, args.output_prefix, overwrite=args.overwrite)
    show([f"{manifest.documents:,} documents, {manifest.tokens:,} tokens"])
    show(describe_manifest(manifest))
    show(f"wrote {args.output_prefix.with_name(file.name)}" for file in manifest.outputs)
