"""Rotary position embedding as Baichuan2-7B computes it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from bc2_model.kernels.backends import npu_ops
from bc2_model.kernels.blocks import cache_blocks
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
    if npu_ops.takes_rotary(x):
        shape = (-1, 1, *cos.shape[-2:])
        return npu_ops.rotary(x, cos.reshape(shape), sin.reshape(shape))
    out: Tensor = _Rotary.apply(x, cos, sin)  # type: ignore[no-untyped-call]
    return out


class _Rotary(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        ctx.save_for_backward(cos, sin)
        (cos_1, cos_2), (sin_1, sin_2) = cos.chunk(2, dim=-1), sin.chunk(2, dim=-1)
        return _combine(x, (cos_1, cos_2), (-sin_1, sin_2))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        cos, sin = ctx.saved_tensors
        (cos_1, cos_2), (sin_1, sin_2) = cos.chunk(2, dim=-1), sin.chunk(2, dim=-1)
        return _combine(grad, (cos_1, cos_2), (sin_2, -sin_1)), None, None


def _combine(x: Tensor, own: tuple[Tensor, Tensor], other: tuple[Tensor, Tensor]) -> Tensor:
    """Returns each half of x times its factors plus the other half times its others.

    Args:
        x: (batch, heads, seq, head_dim).
        own: Two of (1 or batch, 1, seq, head_dim / 2).
        other: As own.
    """
    out = torch.empty_like(x)
    wide = torch.promote_types(x.dtype, own[0].dtype)
    batch, heads, seq, head_dim = x.shape
    for block in cache_blocks(heads, batch * seq * head_dim, x.device):
        first, second = x[:, block].to(wide).chunk(2, dim=-1)
        out_1, out_2 = out[:, block].chunk(2, dim=-1)
        out_1.copy_((first * own[0]).add_(second * other[0]))
        out_2.copy_((second * own[1]).add_(first * other[1]))
    return out
