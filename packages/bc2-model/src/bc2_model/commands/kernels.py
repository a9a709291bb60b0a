"""``bc2-model kernels``."""

from __future__ import annotations

import argparse
from typing import Any

from bc2_data.command import add_command, positive, show
from bc2_model.commands.arguments import DTYPES, add_device, add_shape

_EXAMPLE = """\
  bc2-model kernels                                    # a training step of the 13B
  bc2-model kernels --queries 1 --seq-length 2048      # a decoding step
  bc2-model kernels --dtype bfloat16 --segments --no-alibi"""


def add(commands: Any) -> None:
    """Adds the subcommand."""
    command = add_command(
        commands,
        "kernels",
        _run,
        "Say which attention backend would run here, and why the others would not.",
        _EXAMPLE,
    )
    add_device(command)
    command.add_argument("--dtype", default="float32", choices=DTYPES, help="default: float32")
    add_shape(command)
    command.add_argument(
        "--seq-length", type=positive, default=4096, metavar="N", help="keys; default 4096"
    )
    command.add_argument(
        "--queries", type=positive, metavar="N", help="default: as many as --seq-length"
    )
    command.add_argument("--kv-heads", type=positive, metavar="N", help="default: as many as heads")
    command.add_argument("--no-alibi", action="store_true", help="no bias, as in the 7B")
    command.add_argument("--no-causal", action="store_true", help="all queries see all keys")
    command.add_argument("--segments", action="store_true", help="with packed documents")


def _run(args: argparse.Namespace) -> None:
    import torch

    from bc2_model.device import pick_device
    from bc2_model.errors import ModelError
    from bc2_model.kernels import KernelError, alibi_slopes
    from bc2_model.kernels.backends.registry import BACKENDS, select
    from bc2_model.kernels.problem import make_problem

    device, dtype = pick_device(args.device), getattr(torch, args.dtype)
    queries, kv_heads = args.queries or args.seq_length, args.kv_heads or args.heads

    def empty(heads: int, length: int) -> torch.Tensor:
        shape = (args.batch, heads, length, args.head_dim)
        return torch.empty(shape, dtype=dtype, device=device)

    try:
        problem = make_problem(
            q=empty(args.heads, queries),
            k=empty(kv_heads, args.seq_length),
            v=empty(kv_heads, args.seq_length),
            alibi_slopes=None if args.no_alibi else alibi_slopes(args.heads).to(device),
            causal=not args.no_causal,
            segment_ids=torch.ones(args.batch, args.seq_length, dtype=torch.int32, device=device)
            if args.segments
            else None,
            cu_seqlens=None,
            scale=None,
            q_offset=None,
            k_offset=0,
        )
    except KernelError as error:
        raise ModelError(str(error), "bc2-model kernels --help") from error
    chosen = select(problem)
    lines = [
        f"attention of {args.dtype} q {tuple(problem.q.shape)}, k and v {tuple(problem.k.shape)} "
        f"on {device}, {_kind(args)}"
    ]
    for backend in BACKENDS:
        reason = backend.unsupported_reason(problem)
        verdict = (
            "runs" if backend is chosen else "could run" if reason is None else f"no: {reason}"
        )
        lines.append(f"  {backend.NAME:12}{verdict}")
    show(lines)


def _kind(args: argparse.Namespace) -> str:
    """Returns what is attended to, in words."""
    words = [
        "all to all" if args.no_causal else "causal",
        "no bias" if args.no_alibi else "ALiBi",
    ]
    return ", ".join([*words, "segments"] if args.segments else words)
