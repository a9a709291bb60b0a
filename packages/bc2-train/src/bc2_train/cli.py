"""The command line of bc2-train."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from bc2_data.atomic import remove
from bc2_data.command import add_command, make_parser
from bc2_data.command import run as run_command
from bc2_train import __version__


def main(argv: Sequence[str] | None = None) -> int:
    """Carries out one bc2-train command and returns its exit status."""
    parser = make_parser("bc2-train", "Train Baichuan2 on megatron-core or DeepSpeed.", __version__)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    _add_run(commands)
    _add_compare(commands)
    _add_merge_lora(commands)
    _add_demo(commands)
    return run_command(parser, argv)


def _add_run(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
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
        sys.stdout.write("dry run: the step and the save above went well; nothing was kept\n")
    return status


def _add_compare(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = add_command(
        commands,
        "compare",
        _compare,
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


def _compare(args: argparse.Namespace) -> None:
    from bc2_train.compare import ComparisonError, compare, describe
    from bc2_train.plotting import plot_comparison

    comparison = compare(args.run, args.reference)
    limit = args.max_relative_error
    sys.stdout.write(describe(comparison, limit) + "\n")
    if args.plot:
        plot_comparison(comparison, limit, args.plot)
        sys.stdout.write(f"wrote {args.plot}\n")
    if not comparison.within(limit):
        raise ComparisonError(
            f"the loss of {args.run} is off by more than {limit:g}",
            "add --plot errors.png to see where they part",
        )


def _add_merge_lora(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = add_command(
        commands,
        "merge-lora",
        _merge_lora,
        "merge the newest adapters of a run into its weights, for Hugging Face",
        "  bc2-train merge-lora runs/lora --output merged",
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="a run directory")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="made anew")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing output")


def _merge_lora(args: argparse.Namespace) -> None:
    from bc2_train.merge import merge

    checkpoint = merge(args.run, args.output, overwrite=args.overwrite)
    sys.stdout.write(f"merged the adapters of {checkpoint} into {args.output}\n")


def _add_demo(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    from bc2_train import demo

    parser = add_command(
        commands,
        "demo",
        demo.main,
        "tokenise, convert, train, convert back and generate, from real text to a summary",
        "  bc2-train demo --out demo-run\n  bc2-train demo --model DIR --data FILE",
    )
    demo.add_arguments(parser)
