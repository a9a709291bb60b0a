"""The slopes of ALiBi."""

from __future__ import annotations

import torch
from torch import Tensor

from bc2_model.kernels.errors import KernelError


def alibi_slopes(num_heads: int) -> Tensor:
    """Returns the slope of every head of the whole model.

    For n heads, n a power of two, the slopes are 2^(-8/n), 2^(-16/n), ... 2^-8. Other numbers take
    the slopes of the next lower power of two n, followed by every second slope of 2n heads. A
    tensor-parallel rank slices its heads out of this table: slopes made for its local number of
    heads would be others.

    Source: Press et al., "Train Short, Test Long" (2022), and ``get_slopes`` in its code.

    Args:
        num_heads: Heads of the whole model, at least 1.

    Returns:
        float32 (num_heads,) on the CPU; positive.

    Raises:
        KernelError: `num_heads` is below 1.
    """
    if num_heads < 1:
        raise KernelError(f"num_heads must be at least 1, not {num_heads}")
    power = 1 << (num_heads.bit_length() - 1)
    regular = [2.0 ** (-8 * (head + 1) / power) for head in range(power)]
    between = [2.0 ** (-4 * (2 * head + 1) / power) for head in range(num_heads - power)]
    return torch.tensor(regular + between, dtype=torch.float32)
