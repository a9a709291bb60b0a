"""``bc2-train run``."""

from __future__ import annotations

import argparse
import os
from typing import Any

from bc2_data.atomic import remove
from bc2_data.command import add_command, show


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
    parser.add_argument("recipe", metavar="RECIPE", help="a shipped recipe's name, or a YAML file")
    parser.add_argument(
        "--set",
        dest="overrides",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="override a key of the recipe; may be given again and again",
    )
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="load everything, take one step, save once, keep nothing: what the run will need",
    )
    hosts = parser.add_argument_group("processes and hosts")
    hosts.add_argument("--nproc-per-node", type=int, default=1, metavar="N", help="default: 1")
    hosts.add_argument("--nnodes", type=int, default=1, metavar="N", help="hosts (default: 1)")
    hosts.add_argument("--node-rank", type=int, default=0, metavar="R", help="this host's number")
    hosts.add_argument("--master-addr", default="127.0.0.1", metavar="H", help="host 0's address")
    hosts.add_argument("--master-port", type=int, default=0, metavar="P", help="a free port there")


def _run(args: argparse.Namespace) -> int:
    from bc2_train import config as configuration
    from bc2_train import preflight
    from bc2_train.launch import Rendezvous, launch

    config = configuration.load(args.recipe, args.overrides)
    if args.dry_run:
        config = configuration.one_step(config)
    started = "RANK" in os.environ and "WORLD_SIZE" in os.environ  # by torchrun
    world_size = int(os.environ["WORLD_SIZE"]) if started else args.nnodes * args.nproc_per_node
    preflight.check(config, world_size)
    config.run_dir.mkdir(parents=True, exist_ok=True)
    config_file = config.run_dir / "config.yaml"
    if started:
        from bc2_train.worker import train

        if os.environ["RANK"] == "0":
            configuration.save(config, config_file)
        return train(config)
    configuration.save(config, config_file)
    rendezvous = Rendezvous(
        nnodes=args.nnodes,
        node_rank=args.node_rank,
        master_addr=args.master_addr,
        master_port=args.master_port,
    )
    status = launch(config_file, config.run_dir, args.nproc_per_node, rendezvous)
    if args.dry_run and status == 0:
        remove(config.run_dir)
        show(["dry run: the step and the save above went well; nothing was kept"])
    return status
