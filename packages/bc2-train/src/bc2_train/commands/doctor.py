"""``bc2-train doctor``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bc2_data.command import add_command, positive, show
from bc2_train.commands.recipe import add_overrides

if TYPE_CHECKING:
    from bc2_train.config import RunConfig

_EXAMPLE = """\
  bc2-train doctor                                       # this machine
  bc2-train doctor --recipe baichuan2-7b-pretrain --nproc-per-node 8 \\
      --set data.prefix=data/alpaca_text_document --set run.dir=runs/7b
  bc2-train doctor --run runs/7b --json"""


def add(commands: Any) -> None:
    """Adds the subcommand."""
    parser = add_command(
        commands,
        "doctor",
        _run,
        "say whether this machine, and a run on it, would work, and what to do if not",
        _EXAMPLE,
    )
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--run", type=Path, metavar="RUN", help="a run directory to go on with")
    what.add_argument(
        "--recipe", metavar="RECIPE", help="a run to start, as `bc2-train run` has it"
    )
    add_overrides(parser, "override a key of either")
    parser.add_argument(
        "--nproc-per-node", type=positive, default=1, metavar="N", help="default: 1"
    )
    parser.add_argument(
        "--master-port", type=int, default=0, metavar="P", help="as for `bc2-train run`"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object a finding")


def _run(args: argparse.Namespace) -> int:
    import json
    import os
    from dataclasses import asdict

    # torch imports torch_npu by itself, and cannot be imported where that is broken: then least of
    # all may the doctor stay silent.
    os.environ.setdefault("TORCH_DEVICE_BACKEND_AUTOLOAD", "0")

    from bc2_train.doctor.checkup import examine

    counts = {"ok": 0, "warning": 0, "problem": 0}
    last = ""
    for group, finding in examine(
        _config(args), processes=args.nproc_per_node, master_port=args.master_port
    ):
        counts[finding.level] += 1
        if args.json:
            show([json.dumps({"group": group, **asdict(finding)})])
            continue
        if group != last:
            show([f"{group}:"])
            last = group
        show([f"  {finding.level:8} {finding.what}"])
        if finding.remedy:
            show([f"           -> {finding.remedy}"])
    if not args.json:
        show([f"{counts['problem']} problems, {counts['warning']} warnings"])
    return 1 if counts["problem"] else 0


def _config(args: argparse.Namespace) -> RunConfig | None:
    from bc2_train import config as configuration
    from bc2_train.errors import TrainError

    if args.run is not None:
        return configuration.load(str(args.run / "config.yaml"), args.overrides)
    if args.recipe is not None:
        return configuration.load(args.recipe, args.overrides)
    if args.overrides:
        raise TrainError("--set is about a run", "add --recipe RECIPE or --run RUN")
    return None
