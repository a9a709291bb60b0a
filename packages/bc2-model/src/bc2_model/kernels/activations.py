"""The gated activation of Baichuan2's MLP."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from bc2_model.kernels.backends import npu_ops
from bc2_model.kernels.blocks import cache_blocks
from bc2_model.kernels.errors import KernelError

_aten = torch.ops.aten


def swiglu(x: Tensor, up: Tensor | None = None) -> Tensor:
    """Returns silu(gate) * up; keeps nothing but gate and up for the backward pass.

    Source: Shazeer, "GLU Variants Improve Transformer" (2020); the order is that of Megatron's
    fused projection and of ``npu_swiglu``.

    Args:
        x: (..., 2 * ffn), the gate in the first half of the last dimension and up in the second;
            or, where up is given, the gate alone.
        up: (..., ffn), shape and dtype of the gate.

    Returns:
        (..., ffn), dtype of x.

    Raises:
        KernelError: The last dimension is odd, or gate and up differ in shape.
    """
    if up is not None:
        if up.shape != x.shape:
            raise KernelError(f"gate {tuple(x.shape)} and up {tuple(up.shape)} must have one shape")
        gate = x
    else:
        if x.shape[-1] % 2 != 0:
            raise KernelError(f"swiglu needs an even last dimension, not {x.shape[-1]}")
        if npu_ops.takes(x):
            return npu_ops.swiglu(x)
        gate, up = x.chunk(2, dim=-1)
    out: Tensor = _SwiGLU.apply(gate, up)  # type: ignore[no-untyped-call]
    return out


class _SwiGLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor) -> Tensor:
        ctx.save_for_backward(gate, up)
        shape = gate.shape
        gate, up = (x.reshape(-1, x.shape[-1]) for x in (gate, up))
        out = torch.empty_like(gate)
        for block in cache_blocks(len(gate), gate.shape[1], gate.device):
            _aten.silu.out(gate[block], out=out[block]).mul_(up[block])
        return out.view(shape)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        shape = grad.shape
        gate, up, grad = (x.reshape(-1, shape[-1]) for x in (*ctx.saved_tensors, grad))
        grad_gate, grad_up = torch.empty_like(gate), torch.empty_like(up)
        for block in cache_blocks(len(gate), gate.shape[1], gate.device):
            part = grad[block]
            _aten.silu_backward.grad_input(
                part * up[block], gate[block], grad_input=grad_gate[block]
            )
            _aten.silu.out(gate[block], out=grad_up[block]).mul_(part)
        return grad_gate.view(shape), grad_up.view(shape)
