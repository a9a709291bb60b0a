"""``bc2-data inspect``."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Any

from bc2_data.command import add_command, show
from bc2_data.errors import DataError

_EXAMPLE = """\
  bc2-data inspect out/moss
  bc2-data inspect out/moss --tokenizer Baichuan2-13B-Base --doc 0
  bc2-data inspect out/moss --tokenizer Baichuan2-13B-Base --html moss.html
  bc2-data inspect out/zh out/en out/code    # tokens of each, and its share of them all"""


def add(commands: Any) -> None:
    """Adds the subcommand."""
    parser = add_command(
        commands, "inspect", _run, "Show what datasets hold and where they came from.", _EXAMPLE
    )
    parser.add_argument(
        "prefixes",
        type=Path,
        nargs="+",
        metavar="PREFIX",
        help="the --output-prefix of a run, or the path of one dataset without .bin and .idx; "
        "several are compared",
    )
    parser.add_argument("--doc", type=int, metavar="I", help="show document I, counted from 0")
    parser.add_argument(
        "--tokenizer", type=Path, metavar="DIR", help="show documents as text, not as ids"
    )
    parser.add_argument(
        "--html",
        type=Path,
        metavar="FILE",
        help="write a report with a histogram and some documents, or the one of --doc",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an existing report")


def _run(args: argparse.Namespace) -> None:
    from bc2_data.inspection.comparison import compare
    from bc2_data.inspection.summary import describe
    from bc2_data.inspection.terminal import show_document
    from bc2_data.tokenizer import load_tokenizer

    prefix, *others = args.prefixes
    shows_text = args.doc is not None or args.html is not None
    if args.tokenizer and not shows_text:
        raise DataError("--tokenizer shows the text of documents", "add --doc I or --html FILE")
    if others and shows_text:
        raise DataError("--doc and --html are about one dataset", "give one PREFIX")
    tokenizer = load_tokenizer(args.tokenizer) if args.tokenizer else None
    if others:
        show(compare(args.prefixes))
    elif args.html is not None:
        _write_report(args, prefix, tokenizer)
    elif args.doc is not None:
        colour = sys.stdout.isatty() and "NO_COLOR" not in os.environ
        show(show_document(prefix, args.doc, tokenizer, colour=colour))
    else:
        show(describe(prefix))


def _write_report(args: argparse.Namespace, prefix: Path, tokenizer: Any) -> None:
    from bc2_data.atomic import refuse_existing, write_text
    from bc2_data.inspection.html_report import render_report

    refuse_existing(args.html, overwrite=args.overwrite)
    write_text(args.html, render_report(prefix, tokenizer, args.doc))
    show([f"wrote {args.html}"])
