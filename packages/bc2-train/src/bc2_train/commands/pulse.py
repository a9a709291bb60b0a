"""``bc2-train pulse``."""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

from bc2_data.command import add_command, show
from bc2_train.errors import TrainError
from bc2_train.pulse.durations import duration

_HOUR = 3600.0


def add(commands: Any) -> None:
    """Adds the subcommand."""
    parser = add_command(
        commands,
        "pulse",
        _pulse,
        "say whether a run is running, scheduled or finished (exit 0), or stalled, failed or gone",
        "  bc2-train pulse runs/7b\n"
        "  bc2-train pulse runs/7b --slurm-job 7b --every 1h --alert 'mail -s \"$BC2_STATE\" me'\n"
        "  bc2-train pulse install runs/7b --alert 'mail -s \"$BC2_RUN: $BC2_STATE\" me'\n"
        "  bc2-train pulse uninstall runs/7b",
    )
    parser.add_argument(
        "action",
        nargs="?",
        choices=("install", "uninstall"),
        help="set up, or remove, a regular check by systemd or cron; without: check now",
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="a run directory")
    parser.add_argument(
        "--slurm-job",
        metavar="NAME",
        help="name or id of its Slurm job (default: the job in which it was started)",
    )
    parser.add_argument(
        "--stale-after",
        type=duration,
        metavar="TIME",
        help="a rank silent for longer has stalled, such as 20m (default: 10 steps and at least "
        "5m; 30m while it starts or saves)",
    )
    parser.add_argument(
        "--every",
        type=duration,
        metavar="TIME",
        help="check again and again, such as 1h, until it has finished (install: default 1h)",
    )
    parser.add_argument(
        "--alert",
        metavar="CMD",
        help="shell command run at each change of state, the answer on its stdin, BC2_RUN, "
        "BC2_STATE and BC2_PREVIOUS_STATE in its environment",
    )
    parser.add_argument("--json", action="store_true", help="answer as one JSON object")
    parser.add_argument(
        "--dry-run", action="store_true", help="of install: show what it would change"
    )


def _pulse(args: argparse.Namespace) -> int:
    if args.action == "install":
        return _install(args)
    if args.action == "uninstall":
        return _uninstall(args.run)
    if args.dry_run:
        raise TrainError("--dry-run is about pulse install: a check changes nothing anyway")
    while True:
        state, status = _once(args)
        if args.every is None or state == "finished":
            return status
        time.sleep(args.every)


def _once(args: argparse.Namespace) -> tuple[str, int]:
    """Checks the run once; returns its state and the exit status."""
    from bc2_train.pulse.alert import alert_and_remember
    from bc2_train.pulse.describe import as_values, exit_status, in_words
    from bc2_train.pulse.evidence import Limits, gather
    from bc2_train.pulse.memory import recall
    from bc2_train.pulse.verdict import judge

    run_dir: Path = args.run
    memory = recall(run_dir)
    evidence = gather(
        run_dir, slurm_job=args.slurm_job, limits=Limits(args.stale_after), memory=memory
    )
    verdict = judge(evidence)
    words = in_words(evidence, verdict)
    show([json.dumps(as_values(evidence, verdict))] if args.json else words)
    sys.stdout.flush()
    seen = memory.having_seen({rank.beat.rank: rank.beat for rank in evidence.ranks})
    alert_and_remember(run_dir, seen, args.alert, verdict.state, words)
    return verdict.state, exit_status(verdict)


def _install(args: argparse.Namespace) -> int:
    from bc2_train.pulse.install import find_scheduler, pulse_command, unit_name

    if args.alert is None:
        raise TrainError(
            "an installed pulse without --alert would tell nobody",
            "add --alert 'mail -s \"$BC2_RUN: $BC2_STATE\" me@example.org'",
        )
    options = [f"--alert={args.alert}"]
    if args.slurm_job is not None:
        options.append(f"--slurm-job={args.slurm_job}")
    if args.stale_after is not None:
        options.append(f"--stale-after={args.stale_after:.0f}s")
    scheduler, name = find_scheduler(), unit_name(args.run)
    command, period = pulse_command(args.run, options), args.every or _HOUR
    show(scheduler.plan(name, command, period))
    if args.dry_run:
        show(["dry run: nothing was changed"])
        return 0
    scheduler.install(name, command, period)
    show([f"installed {name}; bc2-train pulse uninstall {args.run} removes it"])
    return 0


def _uninstall(run_dir: Path) -> int:
    from bc2_train.pulse.install import find_scheduler, unit_name

    name = unit_name(run_dir)
    if not find_scheduler().uninstall(name):
        raise TrainError(f"no pulse of {run_dir} is installed ({name})")
    show([f"removed {name}"])
    return 0
