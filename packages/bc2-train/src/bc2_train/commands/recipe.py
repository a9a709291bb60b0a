"""The arguments of every subcommand that reads a recipe."""

from __future__ import annotations

import argparse


def add_recipe(parser: argparse.ArgumentParser) -> None:
    """Adds the recipe and ``--set``."""
    parser.add_argument("recipe", metavar="RECIPE", help="a shipped recipe's name, or a YAML file")
    add_overrides(parser, "override a key of the recipe")


def add_overrides(parser: argparse.ArgumentParser, what: str) -> None:
    """Adds ``--set`` alone.

    Args:
        parser: Of a subcommand.
        what: What it does.
    """
    parser.add_argument(
        "--set",
        dest="overrides",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help=f"{what}; may be given again and again",
    )
