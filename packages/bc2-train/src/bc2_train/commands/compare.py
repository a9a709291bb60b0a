"""``bc2-train compare``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from bc2_data.command import add_command, show


def add(commands: Any) -> None:
    """Adds the subcommand."""
    parser = add_command(
        commands,
        "compare",
        _run,
        "say whether the losses of a run follow those of another",
        "  bc2-train compare runs/npu runs/gpu\n"
        "  bc2-train compare runs/npu ascendspeed.log --max-relative-error 0.02",
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="a run directory, or a training log")
    parser.add_argument("reference", type=Path, metavar="REFERENCE", help="the same")
    parser.add_argument(
        "--max-relative-error",
        type=float,
        default=0.02,
        metavar="X",
        help="of any iteration's loss (default: 0.02, as the AscendSpeed README has it)",
    )
    parser.add_argument("--plot", type=Path, metavar="PNG", help="draw losses and errors as well")


def _run(args: argparse.Namespace) -> None:
    from bc2_train.compare import ComparisonError, compare, describe
    from bc2_train.plotting import plot_comparison

    comparison = compare(args.run, args.reference)
    limit = args.max_relative_error
    show([describe(comparison, limit)])
    if args.plot:
        plot_comparison(comparison, limit, args.plot)
        show([f"wrote {args.plot}"])
    if not comparison.within(limit):
        raise ComparisonError(
            f"the loss of {args.run} is off by more than {limit:g}",
            "add --plot errors.png to see where they part",
        )
