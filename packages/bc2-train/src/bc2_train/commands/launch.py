"""``bc2-train launch slurm``."""

from __future__ import annotations

import argparse
from typing import Any

from bc2_data.command import add_command, positive, show
from bc2_train.commands.recipe import add_recipe


def add(commands: Any) -> None:
    """Adds the subcommand."""
    parser = add_command(
        commands,
        "launch",
        _run,
        "train as a job of a cluster",
        "  bc2-train launch slurm baichuan2-13b-pretrain --nodes 2 --nproc-per-node 8 \\\n"
        "      --gpus-per-node 8 --time 2-00:00:00 --partition train \\\n"
        "      --set data.prefix=data/corpus_text_document --set run.dir=/shared/runs/13b",
    )
    parser.add_argument("scheduler", choices=["slurm"], help="whose job")
    add_recipe(parser)
    parser.add_argument("--nodes", type=positive, default=1, metavar="N", help="default: 1")
    parser.add_argument(
        "--nproc-per-node", type=positive, default=1, metavar="N", help="ranks a node (default: 1)"
    )
    parser.add_argument(
        "--gpus-per-node", type=int, default=0, metavar="N", help="ask Slurm for so many"
    )
    parser.add_argument("--time", default="", metavar="T", help="time limit, as sbatch takes it")
    parser.add_argument("--partition", default="", metavar="NAME", help="where to run")
    parser.add_argument(
        "--max-restarts",
        type=int,
        default=0,
        metavar="N",
        help="restarts after a failure within one job (default: 0)",
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="write the script, but do not submit it"
    )


def _run(args: argparse.Namespace) -> None:
    from bc2_train import config as configuration
    from bc2_train import preflight
    from bc2_train.launch.slurm import Job, submit, write_script

    config = configuration.load(args.recipe, args.overrides)
    preflight.check(config, args.nodes * args.nproc_per_node)
    config.run_dir.mkdir(parents=True, exist_ok=True)
    config_file = config.run_dir / "config.yaml"
    configuration.save(config, config_file)
    job = Job(
        nodes=args.nodes,
        processes=args.nproc_per_node,
        gpus=args.gpus_per_node,
        time=args.time,
        partition=args.partition,
        max_restarts=args.max_restarts,
    )
    script = write_script(config, config_file, job)
    if args.dry_run:
        show([f"wrote {script}, not submitted"])
        return
    number = submit(script)
    show(
        [
            f"wrote {script} and submitted it as job {number}",
            f"watch it: bc2-train pulse {config.run_dir} --slurm-job {number}",
        ]
    )
