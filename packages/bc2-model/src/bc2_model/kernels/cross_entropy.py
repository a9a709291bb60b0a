"""The loss of a language model without its logits: head and cross entropy in one, in chunks.

A chunk of rows of the hidden states goes through the output weight, the softmax and back before
the next one does, so that there are never more logits than those of one chunk. What one sweep
leaves is the loss a row and both gradients under the assumption that every trained row counts the
same, which holds for a sum and for a mean. The backward pass only scales them; where the assumption
turns out wrong, it sweeps once more with the true factors.

Source of the scheme: Hsu et al., "Liger Kernel" (2024), fused linear cross entropy; the norm of the
weight's rows, the tensor-parallel group and the second sweep are ours.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, distributed
from torch.autograd.function import once_differentiable

from bc2_model.kernels.errors import KernelError
from bc2_model.kernels.row_norms import row_scales
from bc2_model.kernels.weight_gradient import WeightGradient

IGNORE_INDEX = -100
"""The label of a row that is not trained, as in torch.nn.functional.cross_entropy."""

_FEWEST_ROWS = 128
"""Rows a chunk, at least: below, the products are slowed down by re-reading the weight."""

_FEWEST_LOGITS = 2**22
"""Logits a chunk, at least: below, memory is no matter, and larger products are faster."""

_ROWS_OF_WIDTH = 8
"""A chunk has an eighth as many rows as hidden has columns: its logits then take an eighth of the
memory of the weight's gradient, which has to exist anyway."""


def norm_head_cross_entropy(
    hidden: Tensor,
    weight: Tensor,
    labels: Tensor,
    *,
    normalise: bool = True,
    z_loss_weight: float | Tensor = 0.0,
    vocab_size: int | None = None,
    group: distributed.ProcessGroup | None = None,
) -> Tensor:
    """Returns the cross entropy of hidden @ normalize(weight).T and labels, one number a row.

    Neither the logits nor the normalised weight are made, and both gradients are exact whatever is
    done with the losses. Fastest is one and the same factor for all trained rows, as in their sum:
    rows that do not count are best given the label -100. The losses of float16 tensors always take
    the slower way, as their small gradients survive only after a loss scale.

    Source: ``NormHead`` and the loss of ``BaichuanForCausalLM`` in Baichuan2's
    modeling_baichuan.py, the z-loss included.

    Args:
        hidden: (..., hidden).
        weight: (rows, hidden), dtype and device of hidden: the whole output weight, or with a
            group the rows of this rank, of which rank r holds number r * rows and following.
        labels: Integers, the shape of hidden without its last dimension; -100 is not trained.
        normalise: Whether logits are those of rows of unit length (NormHead) or of the rows as
            they are.
        z_loss_weight: Adds so much of the squared largest logit to the loss of every row, trained
            or not.
        vocab_size: Rows of the whole weight from here on are padding and have no part in the
            softmax; None where there are none.
        group: The ranks that share the rows of the weight. All of them hold the same hidden and
            labels, get the same losses and the whole gradient of hidden, and must go the same way
            with the losses.

    Returns:
        The shape of labels, float32 or float64; 0 plus z-loss where the label is -100.

    Raises:
        KernelError: Shapes or dtypes do not fit together, or (seen on the CPU alone) a label is no
            row of the vocabulary.
    """
    rows = weight.shape[0]
    rank, size = (0, 1) if group is None else (group.rank(), group.size())
    whole = rows * size if vocab_size is None else vocab_size
    _check(hidden, weight, labels, whole, rows * size)
    head = _Head(
        first=rank * rows,
        true_rows=min(max(whole - rank * rows, 0), rows),
        normalise=normalise,
        z_loss_weight=z_loss_weight,
        group=group,
    )
    losses: Tensor = _CrossEntropy.apply(  # type: ignore[no-untyped-call]
        hidden.reshape(-1, hidden.shape[-1]),
        weight,
        labels.reshape(-1).long(),
        head,
        torch.is_grad_enabled(),
    )
    return losses.view(labels.shape)


@dataclass(frozen=True, slots=True)
class _Head:
    """What the sweeps of one call share.

    Attributes:
        first: The vocabulary id of this rank's first row.
        true_rows: How many of its rows are no padding.
        normalise: See `norm_head_cross_entropy`, like the rest.
    """

    first: int
    true_rows: int
    normalise: bool
    z_loss_weight: float | Tensor
    group: distributed.ProcessGroup | None

    @property
    def rows(self) -> int:
        """How many rows are multiplied: at least one, so that no tensor is empty."""
        return max(self.true_rows, 1)

    @property
    def has_z_loss(self) -> bool:
        return isinstance(self.z_loss_weight, Tensor) or self.z_loss_weight != 0.0

    def reduce(self, tensor: Tensor, operation: Any) -> None:
        """Reduces a tensor over the ranks that share the vocabulary, in place."""
        if self.group is not None:
            distributed.all_reduce(tensor, operation, group=self.group)


@dataclass(slots=True)
class _Gradients:
    """The gradients of one sweep; None where nobody wants them.

    Attributes:
        hidden: (tokens, hidden), this rank's share, in the dtype of hidden.
        weight: This rank's rows, not yet corrected for their norms.
    """

    hidden: Tensor | None
    weight: WeightGradient | None


class _CrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, labels: Tensor, head: _Head, learns: bool
    ) -> Tensor:
        early = learns and hidden.dtype != torch.float16
        wanted = ctx.needs_input_grad[:2] if early else (False, False)
        losses, ctx.gradients = _sweep(hidden, weight, labels, head, None, wanted)
        ctx.save_for_backward(hidden, weight, labels)
        ctx.head = head
        ctx.early = early
        return losses

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None, None, None]:
        hidden, weight, labels = ctx.saved_tensors
        head: _Head = ctx.head
        counted = labels != IGNORE_INDEX
        if head.has_z_loss:
            counted = torch.ones_like(counted)
        factor = _common_factor(grad, counted) if ctx.early else None
        # They are scaled in place, which a second backward pass must not see.
        gradients, ctx.early, ctx.gradients = ctx.gradients, False, None
        if factor is None:
            factor = grad.new_ones(1)
            _, gradients = _sweep(hidden, weight, labels, head, grad, ctx.needs_input_grad[:2])
        grad_hidden, grad_weight = gradients.hidden, None
        if grad_hidden is not None:
            grad_hidden.mul_(factor)
            head.reduce(grad_hidden, distributed.ReduceOp.SUM)
        if gradients.weight is not None:
            grad_weight = gradients.weight.take(weight, factor, head.normalise)
        return grad_hidden, grad_weight, None, None, None


def _common_factor(grad: Tensor, counted: Tensor) -> Tensor | None:
    """Returns the one gradient (1,) of all the losses that count, None where they differ."""
    if not len(grad):
        return None
    if grad.stride(0) == 0:  # a sum or mean hands out one number: nothing needs to be read
        return grad[:1]
    factor = grad[counted.float().argmax(), None]
    return factor if bool(((grad == factor) | ~counted).all()) else None


def _sweep(
    hidden: Tensor,
    weight: Tensor,
    labels: Tensor,
    head: _Head,
    factors: Tensor | None,
    wanted: tuple[bool, bool],
) -> tuple[Tensor, _Gradients]:
    """Goes through the rows of hidden once.

    Args:
        hidden: (tokens, hidden).
        weight: (rows, hidden).
        labels: (tokens,) int64.
        head: What does not depend on a sweep.
        factors: (tokens,), by which the gradient of each loss is multiplied; None for 1.
        wanted: Whether the gradients of hidden and of weight are computed.

    Returns:
        The losses (tokens,) and the gradients.
    """
    wide = torch.promote_types(hidden.dtype, torch.float32)
    used = weight[: head.rows]
    scales = row_scales(used) if head.normalise else None
    gradients = _Gradients(
        hidden=torch.empty_like(hidden) if wanted[0] else None,
        weight=WeightGradient(weight, head.true_rows) if wanted[1] else None,
    )
    losses = torch.empty(len(hidden), dtype=wide, device=hidden.device)
    # The parts of the loss are float32 by design, which autocast must not undo.
    with torch.autocast(hidden.device.type, enabled=False):
        for chunk, logits in _chunks(hidden, used, wide):
            if scales is not None:
                logits.mul_(scales)
            if head.true_rows == 0:
                logits.fill_(-torch.inf)
            part = labels[chunk]
            losses[chunk] = _softmax_loss(logits, part, head, wanted != (False, False))
            if wanted == (False, False):
                continue
            if factors is not None:
                logits.mul_(factors[chunk, None])
            if scales is not None:
                logits.mul_(scales)
            grad_logits = logits.to(hidden.dtype)
            if gradients.hidden is not None:
                torch.mm(grad_logits, used, out=gradients.hidden[chunk])
            if gradients.weight is not None:
                gradients.weight.add(grad_logits, hidden[chunk])
    return losses, gradients


def _chunks(hidden: Tensor, weight: Tensor, dtype: torch.dtype) -> Iterator[tuple[slice, Tensor]]:
    """Yields slices of rows and their products with the weight, all in one piece of memory."""
    size = max(_FEWEST_ROWS, hidden.shape[1] // _ROWS_OF_WIDTH, _FEWEST_LOGITS // len(weight))
    memory = hidden.new_empty(min(size, len(hidden)), len(weight), dtype=dtype)
    for start in range(0, len(hidden), size):
        chunk = slice(start, min(start + size, len(hidden)))
        products = memory[: chunk.stop - start]
        if dtype == hidden.dtype:
            torch.mm(hidden[chunk], weight.T, out=products)
        else:
            products.copy_(hidden[chunk] @ weight.T)
        yield chunk, products


def _softmax_loss(logits: Tensor, labels: Tensor, head: _Head, differentiate: bool) -> Tensor:
    """Returns the losses of a chunk; turns its logits into their gradients where asked.

    Args:
        logits: (tokens, rows) of this rank; overwritten.
        labels: (tokens,).
        head: The ranks, and where this one stands.
        differentiate: Whether the gradients are wanted.
    """
    # A plain maximum is much faster than one that says where it is.
    local_largest, at_largest = logits.max(-1) if head.has_z_loss else (logits.amax(-1), None)
    largest = local_largest.clone()
    head.reduce(largest, distributed.ReduceOp.MAX)
    logits.sub_(largest[:, None])

    trained = labels != IGNORE_INDEX
    place = (labels - head.first).clamp(0, logits.shape[1] - 1)[:, None]
    ours = trained & (labels >= head.first) & (labels < head.first + head.true_rows)
    of_label = torch.where(ours, logits.gather(1, place)[:, 0], 0.0)
    sums = torch.stack([of_label, logits.exp_().sum(-1)])
    head.reduce(sums, distributed.ReduceOp.SUM)
    of_label, total = sums
    losses = torch.where(trained, total.log() - of_label, 0.0)

    if differentiate:
        logits.mul_((trained / total)[:, None])
        logits.scatter_add_(1, place, -ours[:, None].to(logits.dtype))
    if at_largest is not None:
        losses += head.z_loss_weight * largest.square()
        if differentiate:
            # The largest logit is the row's of one rank; where several tie, they share.
            holds = (local_largest == largest).to(logits.dtype)
            holders = holds.clone()
            head.reduce(holders, distributed.ReduceOp.SUM)
            slope = 2 * head.z_loss_weight * largest * holds / holders
            logits.scatter_add_(1, at_largest[:, None], slope[:, None])
    return losses


def _check(hidden: Tensor, weight: Tensor, labels: Tensor, vocab_size: int, rows: int) -> None:
    if weight.dim() != 2 or hidden.shape[-1:] != weight.shape[1:] or weight.shape[0] == 0:
        raise KernelError(
            f"weight must be (rows, hidden) for hidden {tuple(hidden.shape)}, "
            f"not {tuple(weight.shape)}"
        )
    if hidden.dtype != weight.dtype or not hidden.dtype.is_floating_point:
        raise KernelError(
            f"hidden and weight must have one floating dtype, not {hidden.dtype}, {weight.dtype}"
        )
    if labels.shape != hidden.shape[:-1] or labels.dtype.is_floating_point:
        raise KernelError(
            f"labels must be integers {tuple(hidden.shape[:-1])}, "
            f"not {labels.dtype} {tuple(labels.shape)}"
        )
    if not 0 < vocab_size <= rows:
        raise KernelError(f"vocab_size must be 1 to {rows}, the rows of weight, not {vocab_size}")
    if labels.device.type == "cpu" and labels.numel():
        trained = labels[labels != IGNORE_INDEX]
        if len(trained) and not 0 <= int(trained.min()) <= int(trained.max()) < vocab_size:
            raise KernelError(
                f"labels must be {IGNORE_INDEX} or 0 to {vocab_size - 1}, "
                f"but go from {int(trained.min())} to {int(trained.max())}"
            )
