"""What the head needs of the length of its weight's rows, without a copy of the weight."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor

from bc2_model.kernels.blocks import weight_blocks

EPS = 1e-12
"""The least length a row is divided by, as in torch.nn.functional.normalize."""


def row_scales(weight: Tensor) -> Tensor:
    """Returns 1 / max(length, EPS) of every row of (rows, hidden), float32 or better."""
    return row_lengths(weight).clamp_min_(EPS).reciprocal_()


def row_lengths(weight: Tensor) -> Tensor:
    """Returns the length of every row of (rows, hidden), float32 or better."""
    wide = torch.promote_types(weight.dtype, torch.float32)
    if weight.dtype == wide:
        return cast(Tensor, torch.linalg.vector_norm(weight, dim=-1))
    # Asked for another dtype, vector_norm would first convert the whole weight on the CPU.
    blocks = weight_blocks(len(weight))
    return torch.cat([torch.linalg.vector_norm(weight[rows].to(wide), dim=-1) for rows in blocks])


def project_out_rows(gradient: Tensor, weight: Tensor) -> None:
    """Takes away, in place, the part of each row of a gradient that lies along the weight's row.

    The gradient of f(w / |w|) is that of f(w / c) at c = |w| without its part along w: the length
    of a row has no influence. A row shorter than EPS is divided by a constant, and keeps its part.

    Args:
        gradient: (rows, hidden).
        weight: (rows, hidden).
    """
    for rows in weight_blocks(len(weight)):
        vectors, part = weight[rows].to(gradient.dtype), gradient[rows]
        lengths = row_lengths(vectors)
        along = (part * vectors).sum(-1, dtype=lengths.dtype).div_(lengths.square())
        along.masked_fill_(lengths < EPS, 0.0)
        part.addcmul_(vectors, along[:, None].to(part.dtype), value=-1)
