"""NormHead: logits against an output weight whose rows have unit length."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

_EPS = 1e-12
"""The least norm a row is divided by, as in torch.nn.functional.normalize."""


def norm_head_logits(hidden: Tensor, weight: Tensor) -> Tensor:
    """Returns hidden @ normalize(weight).T without making the normalised weight.

    The norms of the rows are folded in as a scale of the columns of hidden @ weight.T: at the size
    of Baichuan2-13B that saves a copy of 2.6 GB in float32, and the like of it in the backward
    pass. The weight is never overwritten, and its gradient is that of the whole expression.

    Source: ``NormHead`` in Baichuan2's modeling_baichuan.py.

    Args:
        hidden: (..., hidden).
        weight: (vocabulary, hidden), or the rows of one tensor-parallel rank; dtype of hidden.

    Returns:
        (..., vocabulary), dtype of hidden.
    """
    logits: Tensor = _NormHeadLogits.apply(hidden, weight)  # type: ignore[no-untyped-call]
    return logits


class _NormHeadLogits(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor) -> Tensor:
        wide = torch.promote_types(weight.dtype, torch.float32)
        norms = torch.linalg.vector_norm(weight, dim=-1, dtype=wide)
        ctx.save_for_backward(hidden, weight, norms)
        return (hidden @ weight.T).div_(norms.clamp_min(_EPS))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None]:
        hidden, weight, norms = ctx.saved_tensors
        grad = (grad / norms.clamp_min(_EPS)).to(weight.dtype)
        grad_hidden = grad_weight = None
        if ctx.needs_input_grad[0]:
            grad_hidden = grad @ weight
        if ctx.needs_input_grad[1]:
            grad_weight = grad.reshape(-1, len(weight)).T @ hidden.reshape(-1, weight.shape[1])
            # A row's length has no influence, so the part along the row goes; but a row shorter
            # than _EPS is divided by a constant, and its length counts.
            along = torch.einsum("vh,vh->v", grad_weight, weight) / norms.square()
            along = along.where(norms >= _EPS, 0.0).to(weight.dtype)
            grad_weight.addcmul_(weight, along[:, None], value=-1)
        return grad_hidden, grad_weight
