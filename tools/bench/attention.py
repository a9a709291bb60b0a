"""Times causal ALiBi attention on the CPU and measures its peak memory.

Compared are the official eager code, which adds a (heads, seq, seq) bias, PyTorch's
scaled_dot_product_attention without any bias, and our backends. The rounds are interleaved, so
that a change in the machine's load meets all of them alike; times are CPU seconds of all threads,
the best of the rounds, without the making of eager's bias. Peaks are what one forward and backward
pass adds to the resident memory of the process, bias and gradients included.

    python tools/bench/attention.py --seq-length 512 1024 --heads 40 --head-dim 128
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from bc2_model.kernels import alibi_slopes, attention

Attention = Callable[[Tensor, Tensor, Tensor], Tensor]


@dataclass
class Row:
    """What was measured of one implementation: seconds of every round and bytes."""

    forward: list[float] = field(default_factory=list)
    backward: list[float] = field(default_factory=list)
    peak: int = 0

    @property
    def total(self) -> float:
        """Returns the seconds of both passes, each the best of its rounds."""
        return min(self.forward) + min(self.backward)


def implementations(heads: int, seq: int, dtype: torch.dtype) -> dict[str, Callable[[], Attention]]:
    """Returns, by name, functions that prepare an implementation and return it."""
    slopes = alibi_slopes(heads)

    def eager() -> Attention:
        positions = torch.arange(seq)
        bias = slopes.view(-1, 1, 1) * (positions - positions[:, None])
        bias = bias.masked_fill_(positions > positions[:, None], float("-inf")).to(dtype)

        def run(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            scores = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5 + bias
            return scores.softmax(-1) @ v

        return run

    def sdpa() -> Attention:
        return lambda q, k, v: torch.nn.functional.scaled_dot_product_attention(
            q, k, v, is_causal=True
        )

    def ours(backend: str, slopes: Tensor | None) -> Callable[[], Attention]:
        return lambda: lambda *qkv: attention(*qkv, alibi_slopes=slopes, backend=backend)

    return {
        "eager + bias": eager,
        "sdpa, no bias": sdpa,
        "reference": ours("reference", slopes),
        "cpu": ours("cpu", slopes),
        "cpu, no bias": ours("cpu", None),
    }


def time_once(function: Attention, qkv: list[Tensor], grad: Tensor, row: Row) -> None:
    """Runs both passes and adds their CPU seconds to the row."""
    start = time.process_time()
    out = function(*qkv)
    middle = time.process_time()
    torch.autograd.grad(out, qkv, grad)
    row.forward.append(middle - start)
    row.backward.append(time.process_time() - middle)


def peak_of(prepare: Callable[[], Attention], qkv: list[Tensor], grad: Tensor) -> int:
    """Returns how many bytes one forward and backward pass adds to the resident memory."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # or what was freed before would serve this pass unseen
    Path("/proc/self/clear_refs").write_text("5")  # sets the high-water mark to the present
    before = resident("VmRSS")
    torch.autograd.grad(prepare()(*qkv), qkv, grad)
    return resident("VmHWM") - before


def resident(name: str) -> int:
    """Returns a number of bytes out of /proc/self/status."""
    found = re.search(rf"^{name}:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
    if found is None:
        raise SystemExit(f"/proc/self/status has no {name}: this needs Linux")
    return int(found[1]) * 1024


def measure(args: argparse.Namespace, seq: int) -> dict[str, Row]:
    """Measures every implementation at one sequence length."""
    dtype = getattr(torch, args.dtype)
    shape = (1, args.heads, seq, args.head_dim)
    qkv = [torch.randn(shape).to(dtype).requires_grad_() for _ in range(3)]
    grad = torch.randn(shape).to(dtype)
    prepared = implementations(args.heads, seq, dtype)
    chosen = {name: prepared[name] for name in args.only or prepared}
    rows = {name: Row(peak=peak_of(prepare, qkv, grad)) for name, prepare in chosen.items()}
    for _ in range(args.rounds):
        for name, prepare in chosen.items():
            time_once(prepare(), qkv, grad, rows[name])
    return rows


def report(seq: int, rows: dict[str, Row]) -> None:
    """Prints one table; ratios are of the total time."""
    print(f"\nseq {seq}\n{'':16}{'forward s':>10}{'backward s':>11}{'peak MB':>9}", end="")
    bases = [name for name in ("eager + bias", "sdpa, no bias") if name in rows]
    print("".join(f"{'to ' + name:>18}" for name in bases))
    for name, row in rows.items():
        times = f"{min(row.forward):10.3f}{min(row.backward):11.3f}{row.peak / 2**20:9.0f}"
        ratios = "".join(f"{row.total / rows[base].total:18.2f}" for base in bases)
        print(f"{name:16}{times}{ratios}", flush=True)


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
    for seq in args.seq_length:
        report(seq, measure(args, seq))


if __name__ == "__main__":
    main()
