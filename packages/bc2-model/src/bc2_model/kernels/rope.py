"""Rotary position embedding as Baichuan2-7B computes it."""

from __future__ import annotations

import torch
from torch import Tensor

from bc2_model.kernels.errors import KernelError


def rotary_tables(positions: Tensor, head_dim: int, base: float = 10000.0) -> tuple[Tensor, Tensor]:
    """Returns the cosines and sines that `rotary` takes.

    Source: Su et al., "RoFormer" (2021); ``RotaryEmbedding`` in Baichuan2-7B's
    modeling_baichuan.py, in float32 throughout like there.

    Args:
        positions: Integers (seq,) or (batch, seq).
        head_dim: Even.
        base: Of the wavelengths; 10,000 in Baichuan2.

    Returns:
        Two float32 tensors, the shape of positions + (head_dim,), on their device; the second half
        of the last dimension repeats the first.

    Raises:
        KernelError: `head_dim` is odd.
    """
    if head_dim % 2 != 0:
        raise KernelError(f"rotary embedding needs an even head_dim, not {head_dim}")
    even = torch.arange(0, head_dim, 2, device=positions.device).float()
    angles = positions.float()[..., None] * (1.0 / base ** (even / head_dim))
    angles = torch.cat((angles, angles), dim=-1)
    return angles.cos(), angles.sin()


def rotary(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Returns x with every pair (x[d], x[d + head_dim / 2]) turned by its position's angles.

    Source: ``apply_rotary_pos_emb`` in Baichuan2-7B's modeling_baichuan.py.

    Args:
        x: (batch, heads, seq, head_dim).
        cos: From `rotary_tables`: (seq, head_dim) or (batch, seq, head_dim).
        sin: As cos.

    Returns:
        Shape and dtype of x; computed in float32 or better.
    """
    cos, sin = cos.unsqueeze(-3), sin.unsqueeze(-3)
    wide = x.to(torch.promote_types(x.dtype, cos.dtype))
    first, second = wide.chunk(2, dim=-1)
    turned = torch.cat((-second, first), dim=-1)
    return (wide * cos + turned * sin).to(x.dtype)
