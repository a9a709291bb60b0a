"""Times RMSNorm, SwiGLU and the rotary embedding on the CPU against the official formulas.

CPU seconds of forward and backward pass, the best of interleaved rounds.

    python tools/bench/ops.py --threads 1
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import silu

from bc2_data.command import show
from bc2_model.kernels import rms_norm, rotary, rotary_tables, swiglu

EPS = 1e-6

Operation = Callable[..., Tensor]


def official_norm(x: Tensor, weight: Tensor) -> Tensor:
    """``RMSNorm`` of modeling_baichuan.py."""
    variance = x.to(torch.float32).pow(2).mean(-1, keepdim=True)
    return weight * (x * torch.rsqrt(variance + EPS))


def official_rotary(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """``apply_rotary_pos_emb`` of modeling_baichuan.py, for one tensor."""
    half = x.shape[-1] // 2
    return x * cos + torch.cat((-x[..., half:], x[..., :half]), dim=-1) * sin


def cases() -> dict[str, tuple[Operation, Operation, list[Tensor]]]:
    """Returns, by name, the official way, ours and the inputs, at the sizes of the 7B and 13B."""
    norm = [torch.randn(2048, 5120).requires_grad_(), torch.ones(5120).requires_grad_()]
    gated = [torch.randn(1024, 13696).requires_grad_() for _ in range(2)]
    heads = torch.randn(1, 32, 2048, 128).requires_grad_()
    tables = rotary_tables(torch.arange(2048), 128)
    return {
        "rms_norm (2048, 5120)": (official_norm, lambda x, w: rms_norm(x, w, EPS), norm),
        "swiglu (1024, 13696)": (lambda gate, up: silu(gate) * up, swiglu, gated),
        "rotary (1, 32, 2048, 128)": (
            lambda x: official_rotary(x, *tables),
            lambda x: rotary(x, *tables),
            [heads],
        ),
    }


def seconds(function: Operation, inputs: list[Tensor]) -> float:
    """Returns the CPU seconds of both passes."""
    start = time.process_time()
    out = function(*inputs)
    torch.autograd.grad(out, inputs, out.detach())
    return time.process_time() - start


def main() -> None:
    """Parses the arguments and measures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    show([f"{'':27}{'official ms':>12}{'bc2 ms':>8}{'ratio':>7}"])
    for name, (official, ours, inputs) in cases().items():
        times = [(seconds(official, inputs), seconds(ours, inputs)) for _ in range(args.rounds + 1)]
        theirs, own = (min(column) * 1e3 for column in zip(*times[1:], strict=True))
        show([f"{name:27}{theirs:12.0f}{own:8.0f}{own / theirs:7.2f}"])


if __name__ == "__main__":
    main()
