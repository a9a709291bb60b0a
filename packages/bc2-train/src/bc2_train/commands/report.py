"""``bc2-train report``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from bc2_data.command import add_command, show


def add(commands: Any) -> None:
    """Adds the subcommand."""
    parser = add_command(
        commands,
        "report",
        _run,
        "write what runs achieved: rates, plots, accuracy, configuration",
        "  bc2-train report runs/7b\n"
        "  bc2-train report runs/npu runs/gpu --reference runs/gpu --output comparison",
    )
    parser.add_argument(
        "runs", type=Path, nargs="+", metavar="RUN", help="a run directory, also of a run at work"
    )
    parser.add_argument(
        "--reference",
        type=Path,
        metavar="FILE|RUN",
        help="a training log or a run directory that the losses should follow",
    )
    parser.add_argument(
        "--max-relative-error",
        type=float,
        default=0.02,
        metavar="X",
        help="of any iteration's loss (default: 0.02, as the AscendSpeed README has it)",
    )
    parser.add_argument(
        "--output", type=Path, metavar="DIR", help="default: `report` in the first run directory"
    )


def _run(args: argparse.Namespace) -> None:
    from bc2_train.compare import ComparisonError
    from bc2_train.report.rates import summary_table
    from bc2_train.report.run import load_runs
    from bc2_train.report.write import PAGE, TEXT, write_report

    output = args.output or args.runs[0] / "report"
    limit = args.max_relative_error
    comparisons = write_report(args.runs, output, reference=args.reference, limit=limit)
    for run in load_runs(args.runs):
        show([f"{run.name}:", summary_table(run.steps, device=run.device, model=run.model_name)])
    show([f"wrote {output / PAGE}, which stands by itself, and {output / TEXT} with its plots"])
    for path, comparison in comparisons.items():
        if not comparison.within(limit):
            raise ComparisonError(
                f"the loss of {path} is off by more than {limit:g} from that of {args.reference}",
                f"{output / PAGE} shows where they part",
            )
