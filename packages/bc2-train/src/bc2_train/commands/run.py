"""``bc2-train run``."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bc2_data.atomic import remove
from bc2_data.command import add_command, positive, show
from bc2_train.commands.recipe import add_recipe

if TYPE_CHECKING:
    from bc2_train.config import RunConfig


def add(commands: Any) -> None:
    """Adds the subcommand."""
    parser = add_command(
        commands,
        "run",
        _run,
        "train as a recipe says",
        "  bc2-train run tiny-13b --nproc-per-node 2 --set parallel.tensor=2 \\\n"
        "      --set data.prefix=data/alpaca_text_document --set run.dir=runs/first",
    )
    add_recipe(parser)
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="load everything, take one step, save once, keep nothing: what the run will need",
    )
    parser.add_argument(
        "--profile",
        type=positive,
        nargs="?",
        const=3,
        metavar="N",
        help="record N steps (default: 3) with the profiler, into `profile` in the run directory",
    )
    hosts = parser.add_argument_group("processes and hosts")
    hosts.add_argument("--nproc-per-node", type=positive, default=1, metavar="N", help="default: 1")
    hosts.add_argument("--nnodes", type=int, default=1, metavar="N", help="hosts (default: 1)")
    hosts.add_argument("--node-rank", type=int, default=0, metavar="R", help="this host's number")
    hosts.add_argument("--master-addr", default="127.0.0.1", metavar="H", help="host 0's address")
    hosts.add_argument("--master-port", type=int, default=0, metavar="P", help="a free port there")
    hosts.add_argument(
        "--max-restarts",
        type=int,
        default=0,
        metavar="N",
        help="after a failure, start all ranks again from the newest checkpoint; N times at most",
    )


def _run(args: argparse.Namespace) -> int:
    from bc2_train import config as configuration
    from bc2_train import preflight
    from bc2_train.launch import Rendezvous, launch

    profile = [f"metrics.profile={args.profile}"] if args.profile else []
    config = configuration.load(args.recipe, [*args.overrides, *profile])
    if args.dry_run:
        config = configuration.one_step(config)
    started = "RANK" in os.environ and "WORLD_SIZE" in os.environ  # by torchrun
    rendezvous = Rendezvous(
        nnodes=args.nnodes,
        node_rank=args.node_rank,
        master_addr=args.master_addr,
        master_port=args.master_port,
    )
    world_size = int(os.environ["WORLD_SIZE"]) if started else args.nnodes * args.nproc_per_node
    preflight.check(config, world_size)
    config.run_dir.mkdir(parents=True, exist_ok=True)
    if started:
        from bc2_train.worker import train

        if os.environ["RANK"] == "0":
            configuration.save(config, config.run_dir / "config.yaml")
        return train(config)
    config_file = _save(config, args.node_rank)
    status = launch(config_file, config, args.nproc_per_node, rendezvous, args.max_restarts)
    if args.dry_run and status == 0:
        remove(config.run_dir)
        show(["dry run: the step and the save above went well; nothing was kept"])
    return status


def _save(config: RunConfig, node_rank: int) -> Path:
    """Writes the configuration for the workers of this host; hosts share the folder."""
    from bc2_train import config as configuration

    name = "config.yaml" if node_rank == 0 else f".config_{node_rank}.yaml"
    configuration.save(config, config.run_dir / name)
    return config.run_dir / name
