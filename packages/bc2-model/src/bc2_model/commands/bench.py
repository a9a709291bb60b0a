"""``bc2-model bench``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from bc2_data.command import add_command, positive, show
from bc2_model.commands.arguments import DTYPES, add_device, add_shape, require

_EXAMPLE = """\
  bc2-model bench --seq-length 512 1024
  bc2-model bench --device cuda --dtype bfloat16 --seq-length 2048 4096 8192 --plot alibi.png"""


def add(commands: Any) -> None:
    """Adds the subcommand."""
    command = add_command(
        commands,
        "bench",
        _run,
        "Time causal ALiBi attention on this machine, against all else that can run here.",
        _EXAMPLE,
    )
    add_device(command)
    command.add_argument("--dtype", default="float32", choices=DTYPES, help="default: float32")
    add_shape(command)
    command.add_argument(
        "--seq-length",
        type=positive,
        nargs="+",
        default=[512, 1024],
        metavar="N",
        help="default 512 and 1024",
    )
    command.add_argument("--rounds", type=positive, default=3, metavar="N", help="default 3")
    command.add_argument("--threads", type=positive, metavar="N", help="of a CPU; default: torch's")
    command.add_argument(
        "--plot", type=Path, metavar="FILE", help="write a PNG, too; needs matplotlib"
    )
    command.add_argument("--overwrite", action="store_true", help="replace an existing PNG")


def _run(args: argparse.Namespace) -> None:
    import torch

    from bc2_data.atomic import refuse_existing
    from bc2_model.benchmark.competitors import competitors
    from bc2_model.benchmark.measure import measure
    from bc2_model.benchmark.table import table
    from bc2_model.device import pick_device

    if args.plot is not None:
        require("matplotlib", extra="plot")
        refuse_existing(args.plot, overwrite=args.overwrite)
    device, dtype = pick_device(args.device), getattr(torch, args.dtype)
    if args.threads:
        torch.set_num_threads(args.threads)
    title = (
        f"causal ALiBi attention, {args.dtype}, batch {args.batch}, {args.heads} heads of "
        f"{args.head_dim}, {_describe(device)}"
    )
    show([title])
    measured = {}
    for length in args.seq_length:
        torch.manual_seed(0)
        shape = (args.batch, args.heads, length, args.head_dim)
        inputs = [torch.randn(shape, device=device).to(dtype) for _ in range(4)]
        found, reasons = competitors(inputs[0])
        for tensor in inputs[:3]:
            tensor.requires_grad_()
        measured[length] = measure(found, inputs, args.rounds)
        show(["", *table(length, measured[length], reasons)])
    if args.plot is not None:
        from bc2_data.atomic import new_files
        from bc2_model.benchmark.plot import plot

        with new_files(args.plot) as (partial,):
            plot(measured, title, partial)
        show(["", f"wrote {args.plot}"])


def _describe(device: Any) -> str:
    """Returns what the device is called."""
    import torch

    if device.type == "cpu":
        return f"CPU with {torch.get_num_threads()} threads, CPU time"
    return str(torch.get_device_module(device).get_device_name(device))
