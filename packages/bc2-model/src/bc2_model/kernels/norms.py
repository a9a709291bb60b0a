"""RMSNorm as Baichuan2 computes it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


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
    out: Tensor = _RMSNorm.apply(x, weight, eps)  # type: ignore[no-untyped-call]
    return out


class _RMSNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        scale = torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps)
        ctx.save_for_backward(x, weight, scale)
        return (wide * scale).to(weight.dtype) * weight

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        x, weight, scale = ctx.saved_tensors
        grad = grad.to(scale.dtype)
        normalised = x.to(scale.dtype) * scale
        grad_weight = (grad * normalised).reshape(-1, len(weight)).sum(0)
        grad_normalised = grad * weight.to(scale.dtype)
        along = (grad_normalised * normalised).mean(-1, keepdim=True)
        grad_x = (grad_normalised - normalised * along) * scale
        return grad_x.to(x.dtype), grad_weight.to(weight.dtype), None
