"""NormHead: logits against an output weight whose rows have unit length."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from bc2_model.kernels.row_norms import project_out_rows, row_scales


def norm_head_logits(hidden: Tensor, weight: Tensor) -> Tensor:
    """Returns hidden @ normalize(weight).T without making the normalised weight.

    The norms of the rows are folded in as a scale of the columns of hidden @ weight.T: at the size
    of Baichuan2-13B that saves a copy of 2.6 GB in float32, and the like of it in the backward
    pass. The weight is never overwritten, and its gradient is that of the whole expression. For
    the loss alone, `norm_head_cross_entropy` does without the logits too.

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
        scales = row_scales(weight)
        ctx.save_for_backward(hidden, weight, scales)
        return (hidden @ weight.T).mul_(scales)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None]:
        hidden, weight, scales = ctx.saved_tensors
        grad = (grad * scales).to(weight.dtype)
        grad_hidden = grad_weight = None
        if ctx.needs_input_grad[0]:
            grad_hidden = grad @ weight
        if ctx.needs_input_grad[1]:
            grad_weight = grad.reshape(-1, len(weight)).T @ hidden.reshape(-1, weight.shape[1])
            project_out_rows(grad_weight, weight)
        return grad_hidden, grad_weight
