"""``bc2-train demo``: the main job from end to end on real input, by bc2's own commands."""

from __future__ import annotations

import argparse
from pathlib import Path

DEFAULT_OUT = Path("demo-run")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of ``bc2-train demo``."""
    parser.add_argument(
        "--out",
        type=Path,
        default=DEFAULT_OUT,
        metavar="DIR",
        help=f"receives everything; default: {DEFAULT_OUT}",
    )
    parser.add_argument(
        "--model",
        type=Path,
        metavar="DIR",
        help="a Hugging Face checkpoint with its tokenizer; default: a small one made on the spot",
    )
    parser.add_argument(
        "--data",
        type=Path,
        metavar="FILE",
        help="rows of text, or conversations in Alpaca's or MOSS's format (.parquet, .jsonl, "
        ".json); default: the documentation of Python's standard library",
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="replace what an earlier run left in --out"
    )


def main(args: argparse.Namespace) -> None:
    """Carries ``bc2-train demo`` out."""
    from bc2_train.demo.steps import run_demo

    run_demo(args.out, args.model, args.data, overwrite=args.overwrite)
