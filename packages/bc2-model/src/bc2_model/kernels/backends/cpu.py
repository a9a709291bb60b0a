"""Attention on PyTorch's flash kernel for CPUs, with ALiBi at the price of no bias at all.

Within a row of scores only differences matter, so -slope * (i - j) may be replaced by
slope * (j - c) with any constant c: one bias a key instead of one a pair, which the kernel takes
as a mask that broadcasts over the queries. In float32 a single c for a long sequence costs
accuracy (slope * j reaches thousands, and its rounding errors enter the exponentials), therefore
the score matrix is cut into tiles with a c of their own; the parts of a row are merged through
their log-sum-exp, as FlashAttention merges blocks. No (queries, keys) tensor is ever made.

ALiBi also bounds what far keys can contribute: with slope * (i - j) > T,
T = 2 * scale * max|q| * max|k| + ln(keys / eps), the share of key j in row i is below eps / keys.
Such keys are left out, and what a row loses stays below the rounding of its sum.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from bc2_model.kernels.backends.cpu_tiles import ALIBI_BLOCK, Tile, plan, skip_far_keys
from bc2_model.kernels.problem import AttentionProblem

NAME = "cpu"

_FORWARD = "_scaled_dot_product_flash_attention_for_cpu"
_BACKWARD = "_scaled_dot_product_flash_attention_for_cpu_backward"

_FEWEST_HEADS = 2
"""Below that, calling the kernel more often costs what tighter windows save."""


def unsupported_reason(problem: AttentionProblem) -> str | None:
    """Returns why this problem cannot run here, or None where it can."""
    if problem.q.device.type != "cpu":
        return f"the tensors are on {problem.q.device}"
    if problem.slopes is not None and not problem.causal:
        return "ALiBi without a causal mask is no bias a key"
    if not (hasattr(torch.ops.aten, _FORWARD) and hasattr(torch.ops.aten, _BACKWARD)):
        return f"torch {torch.__version__} has no flash attention for CPUs"
    return None


def attention(problem: AttentionProblem) -> Tensor:
    """Solves a problem that has no `unsupported_reason`."""
    # Heads become (kv_heads, group), and keys and values are expanded over their group with
    # stride 0: grouped-query attention repeats nothing in memory.
    kv_heads = problem.k.shape[1]
    batch, heads, queries, head_dim = problem.q.shape
    q = _unit_stride(problem.q).view(batch, kv_heads, heads // kv_heads, queries, head_dim)
    k, v = (_unit_stride(x)[:, :, None] for x in (problem.k, problem.v))
    slopes = problem.slopes
    if slopes is not None:
        slopes = slopes.to(problem.compute_dtype).view(kv_heads, -1)
    tiles = plan(problem)
    last_key = k.shape[3] - 1
    if slopes is not None and last_key >= ALIBI_BLOCK:
        windows = _windows(q, k, slopes, problem.scale)
        # The kernel's backward pass gives a thread whole heads: a tile has enough for all threads.
        group = max(_FEWEST_HEADS, torch.get_num_threads())
        tiles = skip_far_keys(tiles, windows, group, last_key, problem.shift)
    schedule = _Schedule(list(tiles), slopes, problem.scale, problem.shift, last_key)
    out: Tensor = _Tiled.apply(q, k, v, schedule)  # type: ignore[no-untyped-call]
    return out.flatten(1, 2)


def _unit_stride(x: Tensor) -> Tensor:
    """Returns x with neighbouring elements along head_dim, which the kernel takes for granted."""
    return x if x.stride(-1) == 1 else x.contiguous()


def _windows(q: Tensor, k: Tensor, slopes: Tensor, scale: float) -> list[int]:
    """Returns, a key-value head, how far before its nearest key a query needs to look."""
    dtype, keys = slopes.dtype, k.shape[3]
    q_norm = torch.linalg.vector_norm(q.detach(), dim=-1, dtype=dtype).amax((0, 3))
    k_norm = torch.linalg.vector_norm(k.detach(), dim=-1, dtype=dtype).amax((0, 3))
    bound = 2 * scale * q_norm * k_norm + math.log(keys / torch.finfo(dtype).eps)
    reach = (bound / slopes).amax(1).nan_to_num(nan=keys).clamp(max=keys)
    return [math.ceil(window) for window in reach.tolist()]


@dataclass(frozen=True, slots=True)
class _Schedule:
    """The tiles of one call and what their biases are made of; holds no activation."""

    tiles: list[Tile]
    slopes: Tensor | None  # (kv_heads, group), in the dtype of the computation
    scale: float
    shift: int
    last_key: int

    def bias(self, tile: Tile) -> Tensor | None:
        """Returns slope * (j - c), (kv_heads, group, 1, keys), or None without ALiBi."""
        if self.slopes is None:
            return None
        relative = torch.arange(tile.keys.start, tile.keys.stop) - tile.centre
        return self.slopes[tile.heads, :, None, None] * relative

    def frame(self, tile: Tile) -> Tensor | float:
        """Returns slope * (a - c), (kv_heads, group, rows): what makes tiles comparable.

        The log-sum-exp of a row is kept relative to its nearest key a, whatever the tile's c.
        """
        if self.slopes is None:
            return 0.0
        nearest = torch.arange(tile.rows.start, tile.rows.stop) + self.shift
        return self.slopes[tile.heads, :, None] * (nearest.clamp(max=self.last_key) - tile.centre)


class _Tiled(torch.autograd.Function):
    """Runs the kernel tile by tile.

    q is (batch, kv_heads, group, queries, head_dim), k and v are (batch, kv_heads, 1, keys,
    head_dim). The forward pass runs in the dtype of q. The backward pass of 16-bit tensors runs
    in float32: it is the more accurate, and several times faster on a CPU without bfloat16
    instructions.
    """

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, schedule: _Schedule) -> Tensor:
        kernel = getattr(torch.ops.aten, _FORWARD)
        dtype = torch.promote_types(q.dtype, torch.float32)
        out = torch.zeros_like(q, dtype=dtype)
        lse = torch.full(q.shape[:-1], -math.inf, dtype=dtype)
        for tile in schedule.tiles:
            rows, keys = _index(tile, tile.rows), _index(tile, tile.keys)
            part_q = q[rows]
            part, part_lse = kernel(
                part_q,
                k[keys].expand(-1, part_q.shape[1], -1, -1),
                v[keys].expand(-1, part_q.shape[1], -1, -1),
                is_causal=tile.causal,
                attn_mask=schedule.bias(tile),
                scale=schedule.scale,
            )
            part_lse = part_lse - schedule.frame(tile)
            # The share of this tile in the rows so far: e^part / (e^lse + e^part).
            share = torch.sigmoid(part_lse - lse[rows])
            out[rows].lerp_(part.to(dtype), share[..., None])
            lse[rows] = torch.logaddexp(lse[rows], part_lse)
        out = out.to(q.dtype)
        ctx.save_for_backward(q, k, v, out, lse)
        ctx.schedule = schedule
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        kernel = getattr(torch.ops.aten, _BACKWARD)
        q, k, v, out, lse = ctx.saved_tensors
        schedule: _Schedule = ctx.schedule
        dtype = lse.dtype
        grad = _unit_stride(grad)
        grad_q, grad_k, grad_v = (torch.zeros_like(x, dtype=dtype) for x in (q, k, v))
        for tile in schedule.tiles:
            rows, keys = _index(tile, tile.rows), _index(tile, tile.keys)
            part_q = q[rows].to(dtype)
            part_grad_q, part_grad_k, part_grad_v = kernel(
                grad[rows].to(dtype),
                part_q,
                k[keys].to(dtype).expand(-1, part_q.shape[1], -1, -1),
                v[keys].to(dtype).expand(-1, part_q.shape[1], -1, -1),
                out[rows].to(dtype),
                lse[rows] + schedule.frame(tile),
                dropout_p=0.0,
                is_causal=tile.causal,
                attn_mask=schedule.bias(tile),
                scale=schedule.scale,
            )
            grad_q[rows] += part_grad_q
            grad_k[keys] += _sum_of_group(part_grad_k)
            grad_v[keys] += _sum_of_group(part_grad_v)
        return grad_q.to(q.dtype), grad_k.to(k.dtype), grad_v.to(v.dtype), None


def _sum_of_group(grad: Tensor) -> Tensor:
    """Returns the sum over the query heads that share a key-value head; a group of one as it is."""
    return grad if grad.shape[1] == 1 else grad.sum(1, keepdim=True)


def _index(tile: Tile, positions: range) -> tuple[int, slice, slice, slice]:
    """Returns where a tile's queries or keys lie in a 5-D tensor."""
    return tile.batch, tile.heads, slice(None), slice(positions.start, positions.stop)
