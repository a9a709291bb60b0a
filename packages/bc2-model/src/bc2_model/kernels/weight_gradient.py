"""The gradient of an output weight, summed up chunk by chunk of tokens."""

from __future__ import annotations

import torch
from torch import Tensor

from bc2_model.kernels.blocks import weight_blocks
from bc2_model.kernels.row_norms import project_out_rows


class WeightGradient:
    """A sum of products in float32 or better, handed out in the dtype of the weight.

    The sum of a 16-bit weight is kept in blocks of rows, and each is freed as soon as it has been
    rounded: sum and result never exist both as a whole.

    Args:
        weight: (rows, hidden).
        true_rows: From here on rows are padding, and their gradient is zero.
    """

    def __init__(self, weight: Tensor, true_rows: int) -> None:
        wide = torch.promote_types(weight.dtype, torch.float32)
        self._rows = weight_blocks(len(weight))
        self._whole = torch.empty_like(weight) if weight.dtype == wide else None
        self._blocks = [
            torch.empty_like(weight[rows], dtype=wide) if self._whole is None else self._whole[rows]
            for rows in self._rows
        ]
        for rows, block in zip(self._rows, self._blocks, strict=True):
            block[max(true_rows - rows.start, 0) :].zero_()
        self._empty = True

    def add(self, grad_logits: Tensor, hidden: Tensor) -> None:
        """Adds grad_logits.T @ hidden.

        Args:
            grad_logits: (tokens, true rows).
            hidden: (tokens, hidden), in one dtype with grad_logits and the weight.
        """
        for rows, block in zip(self._rows, self._blocks, strict=True):
            part = grad_logits[:, rows]
            used = block[: part.shape[1]]
            if hidden.dtype == block.dtype:
                used.addmm_(part.T, hidden, beta=0 if self._empty else 1)
            elif self._empty:
                used.copy_(part.T @ hidden)
            else:
                used.add_(part.T @ hidden)
        self._empty = False

    def take(self, weight: Tensor, factor: Tensor, normalised: bool) -> Tensor:
        """Returns the sum times a factor (1,), once.

        Args:
            weight: As when it was made.
            factor: What all of it is multiplied by.
            normalised: Whether the gradient went through rows of unit length (`row_norms`).
        """
        result = torch.empty_like(weight) if self._whole is None else self._whole
        for rows in self._rows:
            block = self._blocks.pop(0)
            if self._empty:
                block.zero_()
            elif normalised:
                project_out_rows(block, weight[rows])
            block.mul_(factor)
            if self._whole is None:
                result[rows] = block
        return result
