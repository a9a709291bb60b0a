"""RMSNorm as Baichuan2 computes it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from bc2_model.kernels.backends import npu_ops
from bc2_model.kernels.blocks import cache_blocks


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Returns weight * x / sqrt(mean(x^2) + eps), the mean over the last dimension.

    The statistics are float32 or better. As in the official code, the normalised x is rounded to
    the dtype of the weight before it is multiplied. The backward pass needs x, the weight and one
    number a row: none of the float32 intermediates is kept.

    Source: Zhang and Sennrich, "Root Mean Square Layer Normalization" (2019); ``RMSNorm`` in
    Baichuan2's modeling_baichuan.py.

    Args:
        x: (..., hidden).
        weight: (hidden,).
        eps: 1e-6 in Baichuan2.

    Returns:
        The shape of x in the dtype of the weight.
    """
    if npu_ops.takes(x, weight):
        return npu_ops.rms_norm(x, weight, eps)
    out: Tensor = _RMSNorm.apply(x, weight, eps)  # type: ignore[no-untyped-call]
    return out


class _RMSNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        rows = x.reshape(-1, x.shape[-1])
        scales = rows.new_empty(len(rows), 1, dtype=torch.promote_types(x.dtype, torch.float32))
        out = torch.empty_like(rows, dtype=weight.dtype)
        for block in cache_blocks(len(rows), len(weight), rows.device):
            wide = rows[block].to(scales.dtype)
            scale = torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps)
            scales[block] = scale
            torch.mul((wide * scale).to(weight.dtype), weight, out=out[block])
        ctx.save_for_backward(x, weight, scales)
        return out.view(x.shape)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        x, weight, scales = ctx.saved_tensors
        rows, grad_rows = x.reshape(-1, len(weight)), grad.reshape(-1, len(weight))
        wide_weight = weight.to(scales.dtype)
        grad_x = torch.empty_like(rows)
        grad_weight = torch.zeros_like(wide_weight)
        for block in cache_blocks(len(rows), len(weight), rows.device):
            scale, grad_block = scales[block], grad_rows[block].to(scales.dtype)
            normalised = rows[block] * scale
            product = grad_block * normalised
            grad_weight += product.sum(0)
            along = torch.mv(product, wide_weight).div_(-len(weight))[:, None]
            grad_x[block] = normalised.mul_(along).addcmul_(grad_block, wide_weight).mul_(scale)
        return grad_x.view(x.shape), grad_weight.to(weight.dtype), None
