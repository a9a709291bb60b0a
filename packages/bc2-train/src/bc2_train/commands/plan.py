"""``bc2-train plan``."""

from __future__ import annotations

import argparse
import json
from typing import Any

from bc2_data.command import add_command, positive, show
from bc2_train.commands.recipe import add_recipe


def add(commands: Any) -> None:
    """Adds the subcommand."""
    from bc2_train.planning.devices import DEVICES

    parser = add_command(
        commands,
        "plan",
        _run,
        "say what memory a recipe needs, how fast it will be, and in which layout it is fastest",
        "  bc2-train plan baichuan2-13b-pretrain --device ascend-910b --devices 16\n"
        "  bc2-train plan baichuan2-7b-pretrain --device a100-80g --devices 8 --top 3 \\\n"
        "      --set data.seq_length=16384",
    )
    add_recipe(parser)
    parser.add_argument(
        "--device", choices=sorted(DEVICES), default="ascend-910b", help="default: ascend-910b"
    )
    parser.add_argument("--devices", type=positive, default=8, metavar="N", help="default: 8")
    parser.add_argument(
        "--node-size", type=positive, default=8, metavar="N", help="devices a node (default: 8)"
    )
    parser.add_argument(
        "--efficiency",
        type=float,
        metavar="X",
        help="share of the peak that matrix products reach, from a run of yours",
    )
    parser.add_argument(
        "--top", type=positive, default=5, metavar="K", help="layouts shown (default: 5)"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object, in bytes and seconds")


def _run(args: argparse.Namespace) -> int:
    from dataclasses import replace

    from bc2_ckpt.config import ModelConfig
    from bc2_train import config as configuration
    from bc2_train.errors import TrainError
    from bc2_train.planning import describe
    from bc2_train.planning.devices import DEVICES
    from bc2_train.planning.search import evaluate, scaling, search, stops_paying

    # What a plan does not depend on need not be there yet.
    unneeded = ["data.prefix=unused", "run.dir=unused"]
    config = configuration.load(args.recipe, [*unneeded, *args.overrides])
    model = ModelConfig.load(config.model.config)
    device = DEVICES[args.device]
    if args.efficiency is not None:
        if not 0 < args.efficiency <= 1:
            raise TrainError(f"--efficiency is {args.efficiency}, which must be above 0, at most 1")
        device = replace(device, efficiency=args.efficiency)
    found = search(config, model, args.devices, device, args.node_size)
    counts = scaling(config, model, device, args.node_size, max(4096, args.devices))
    try:
        own, objection = evaluate(config, model, args.devices, device, args.node_size), ""
    except TrainError as error:
        own, objection = None, error.message
    status = 0 if found.fitting else 1
    if args.json:
        answer = {
            "parameters": model.num_parameters,
            "device": device.name,
            "devices": args.devices,
            "budget": device.budget,
            "recipe": describe.as_values(own, model) if own else {"impossible": objection},
            "layouts": [describe.as_values(plan, model) for plan in found.fitting[: args.top]],
            "too_large": [describe.as_values(plan, model) for plan in found.too_large[: args.top]],
            "impossible": found.impossible,
            "scaling": [
                {"devices": count, **describe.as_values(plan, model)}
                if plan
                else {"devices": count}
                for count, plan in counts
            ],
            "stops_paying": stops_paying(counts),
        }
        show([json.dumps(answer)])
        return status
    show(
        [
            f"{config.model.config}: {model.num_parameters:,} parameters, {args.devices} x "
            f"{device.name}, {config.batch.global_} x {config.data.seq_length} tokens a step, "
            f"{config.precision}",
            "",
            "as the recipe says:",
            *(describe.table([own], model) if own else [f"  impossible: {objection}"]),
        ]
    )
    if own and own.memory.total > device.budget:
        show([f"  which does not fit: a device can plan with {device.budget / 1e9:.1f} GB"])
    best = found.fitting[: args.top]
    show(["", f"the fastest of {len(found.fitting)} layouts that fit:"])
    show(describe.table(best, model) if best else ["  none fits"])
    if best:
        show(["", "the first is", *(f"  --set {value}" for value in describe.settings_of(best[0]))])
    show(["", *describe.unfit(found, device, args.top)])
    show(["", "more devices:", *describe.scaling_table(counts)])
    return status
