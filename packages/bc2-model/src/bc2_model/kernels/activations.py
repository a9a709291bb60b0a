"""The gated activation of Baichuan2's MLP."""

from __future__ import annotations

import torch
from torch import Tensor

from bc2_model.kernels.errors import KernelError


def swiglu(x: Tensor) -> Tensor:
    """Returns silu(gate) * up, where x holds gate and up side by side.

    Source: Shazeer, "GLU Variants Improve Transformer" (2020); the order is that of Megatron's
    fused projection and of ``npu_swiglu``.

    Args:
        x: (..., 2 * ffn), the gate in the first half of the last dimension.

    Returns:
        (..., ffn), dtype of x.

    Raises:
        KernelError: The last dimension is odd.
    """
    if x.shape[-1] % 2 != 0:
        raise KernelError(f"swiglu needs an even last dimension, not {x.shape[-1]}")
    gate, up = x.chunk(2, dim=-1)
    return torch.nn.functional.silu(gate) * up
