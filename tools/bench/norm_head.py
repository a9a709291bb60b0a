"""Times the loss of a language model with NormHead, fused and the plain way, and their peaks.

The plain way is the official one: normalise the weight, multiply, and take the cross entropy of
the whole logits in float32. Each peak is measured in a process of its own, as what one forward and
backward pass adds to the resident memory, both gradients included; times are CPU seconds of all
threads, the best of interleaved rounds.

    python tools/bench/norm_head.py --tokens 512 --hidden 1024
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from bc2_model.benchmark.memory import peak_of
from bc2_model.kernels import norm_head_cross_entropy

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]


def plain(hidden: Tensor, weight: Tensor, labels: Tensor) -> Tensor:
    """Returns the mean loss the official way."""
    logits = functional.linear(hidden, functional.normalize(weight))
    return functional.cross_entropy(logits.float(), labels)


def fused(hidden: Tensor, weight: Tensor, labels: Tensor) -> Tensor:
    """Returns the mean loss of the kernel."""
    return norm_head_cross_entropy(hidden, weight, labels).mean()


IMPLEMENTATIONS: dict[str, Loss] = {"plain": plain, "fused": fused}


def inputs(args: argparse.Namespace) -> tuple[Tensor, Tensor, Tensor]:
    """Returns hidden states, weight and labels."""
    torch.manual_seed(0)
    dtype = getattr(torch, args.dtype)
    hidden = torch.randn(args.tokens, args.hidden).to(dtype).requires_grad_()
    weight = torch.randn(args.vocabulary, args.hidden).to(dtype).requires_grad_()
    return hidden, weight, torch.randint(args.vocabulary, (args.tokens,))


def step(loss: Loss, hidden: Tensor, weight: Tensor, labels: Tensor) -> None:
    """Runs both passes and drops the gradients."""
    torch.autograd.grad(loss(hidden, weight, labels), (hidden, weight))


def peak_in_a_process(name: str) -> int:
    """Returns the bytes that one implementation adds, measured by a fresh process."""
    command = [sys.executable, __file__, *sys.argv[1:], "--peak-of", name]
    return int(json.loads(subprocess.run(command, check=True, capture_output=True).stdout))


def measure(args: argparse.Namespace) -> None:
    """Prints one line an implementation."""
    peaks = {name: peak_in_a_process(name) for name in IMPLEMENTATIONS}
    arguments = inputs(args)
    seconds: dict[str, list[float]] = {name: [] for name in IMPLEMENTATIONS}
    for _ in range(args.rounds):
        for name, loss in IMPLEMENTATIONS.items():
            start = time.process_time()
            step(loss, *arguments)
            seconds[name].append(time.process_time() - start)
    print(f"{'':8}{'s':>8}{'peak MB':>9}{'time':>7}{'memory':>8}")
    for name, times in seconds.items():
        time_ratio = min(times) / min(seconds["plain"])
        peak_ratio = peaks[name] / peaks["plain"]
        print(
            f"{name:8}{min(times):8.2f}{peaks[name] / 2**20:9.0f}{time_ratio:7.2f}{peak_ratio:8.2f}"
        )


def main() -> None:
    """Parses the arguments and measures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--vocabulary", type=int, default=125696)
    parser.add_argument("--hidden", type=int, default=1024)
    parser.add_argument("--tokens", type=int, default=512)
    parser.add_argument("--dtype", choices=["float32", "bfloat16", "float16"], default="float32")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--peak-of", choices=IMPLEMENTATIONS, help="print this one's peak alone")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.peak_of:
        loss, arguments = IMPLEMENTATIONS[args.peak_of], inputs(args)
        print(peak_of(lambda: step(loss, *arguments), torch.device("cpu")))
    else:
        measure(args)


if __name__ == "__main__":
    main()
