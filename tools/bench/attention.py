"""Times causal ALiBi attention on the CPU, with and without what our backend does for speed.

Compared are the official eager code, which adds a (heads, seq, seq) bias, PyTorch's
scaled_dot_product_attention with that bias and without any, our backends, the cpu backend without
tile skipping and the cpu backend without ALiBi. The rounds are interleaved, so that a change in the
machine's load meets all of them alike; times are CPU seconds of all threads, the best of the
rounds, without the making of the bias. Peaks are what one forward and backward pass adds to the
resident memory of the process, bias and gradients included. `bc2-model bench` is the same on any
device, without the variants of our own.

    python tools/bench/attention.py --seq-length 512 1024 --heads 40 --head-dim 128
"""

from __future__ import annotations

import argparse
import functools
from collections.abc import Callable
from unittest import mock

import torch
from torch import Tensor

from bc2_data.command import show
from bc2_model.benchmark.competitors import Attention, Competitor, competitors
from bc2_model.benchmark.measure import measure
from bc2_model.benchmark.table import table
from bc2_model.kernels import alibi_slopes, attention
from bc2_model.kernels.backends import cpu


def variants(heads: int) -> list[Competitor]:
    """Returns the cpu backend without tile skipping, and without ALiBi."""
    slopes = alibi_slopes(heads)

    def unskipped(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        with mock.patch.object(cpu, "skip_far_keys", lambda tiles, *_: tiles):
            return attention(q, k, v, alibi_slopes=slopes, backend="cpu")

    def prepared(call: Attention) -> Callable[[], Attention]:
        return lambda: call

    return [
        Competitor("cpu, no skipping", prepared(unskipped)),
        Competitor("cpu, no bias", prepared(functools.partial(attention, backend="cpu"))),
    ]


def main() -> None:
    """Parses the arguments and measures one length after the other."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seq-length", type=int, nargs="+", default=[512, 1024])
    parser.add_argument("--heads", type=int, default=40)
    parser.add_argument("--head-dim", type=int, default=128)
    parser.add_argument("--dtype", choices=["float32", "bfloat16", "float16"], default="float32")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--only", nargs="+", help="names of implementations, as in the table")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    for length in args.seq_length:
        shape = (1, args.heads, length, args.head_dim)
        inputs = [torch.randn(shape).to(getattr(torch, args.dtype)) for _ in range(4)]
        found, _ = competitors(inputs[0])
        for tensor in inputs[:3]:
            tensor.requires_grad_()
        chosen = [
            each
            for each in [*found, *variants(args.heads)]
            if args.only is None or each.name in args.only
        ]
        show(["", *table(length, measure(chosen, inputs, args.rounds), {})])


if __name__ == "__main__":
    main()
