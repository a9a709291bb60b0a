"""Which tiles of the score matrix the Triton kernels visit.

The matrix is cut into tiles of BLOCK_M queries by BLOCK_N keys. For every block of queries
`key_blocks` says which blocks of keys the forward pass and dq go through, and `query_blocks` says
for every block of keys which blocks of queries dk and dv go through. A kernel only loops from the
first number to the last and masks where it is told to; why a tile may be left out is decided here,
in plain torch on the device of the tensors, without reading a value back:

- Causal: no query of the tile stands on or after a key of it.
- Segments: the ids of the two blocks have no value in common (their smallest and largest are
  compared; what lies between the first and the last tile that may match is visited).
- ALiBi: let a be the key nearest to query i. The share of key j in row i is at most
  exp(score(i, j) - score(i, a)), and by Cauchy-Schwarz that exponent is at most
  scale * |q_i| * (|k_j| + |k_a|) - slope * |a - j|. Where this is below ln(eps / keys), all that is
  left out of a row adds up to less than eps, the rounding of its sum. The norms are the largest of
  a block, so large queries or keys widen what is visited, up to everything.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

WINDOW_FROM = 512
"""Fewer queries or keys than this are visited whole: the bound would cost more than it saves."""


@dataclass(frozen=True, slots=True)
class Geometry:
    """An AttentionProblem without its q, k and v, which autograd keeps by its own rules."""

    queries: int
    keys: int
    shift: int
    causal: bool
    scale: float
    slopes: Tensor | None
    query_ids: Tensor | None
    key_ids: Tensor | None


def key_blocks(geometry: Geometry, q: Tensor, k: Tensor, block_m: int, block_n: int) -> Tensor:
    """Returns, a block of queries, the blocks of keys to visit.

    Args:
        geometry: The problem's.
        q: (batch, heads, queries, head_dim).
        k: (batch, kv_heads, keys, head_dim).
        block_m: Queries a block.
        block_n: Keys a block.

    Returns:
        int32 (batch or 1, heads or 1, query blocks, 3): start, middle, stop. The tiles from middle
        to stop need a mask; in those from start to middle every query sees every key.
    """
    first, last = _edges(geometry.queries, block_m, q.device)
    first, last = first + geometry.shift, last + geometry.shift
    keys = geometry.keys
    start = torch.zeros_like(first)
    stop = (last + 1).clamp(0, keys) if geometry.causal else torch.full_like(last, keys)
    clear = (first + 1).clamp(0, keys) if geometry.causal else stop
    window = _window(geometry, q, k, block_m, of_queries=True)
    if window is not None:
        start = (first.clamp(0, keys - 1) - window).clamp(min=0)
        if not geometry.causal:
            stop = torch.minimum(stop, last.clamp(0, keys - 1) + window + 1)
    start, middle, stop = start // block_n, clear // block_n, _ceil(stop, block_n)
    if geometry.query_ids is not None and geometry.key_ids is not None:
        left, right = _hull(_may_match(geometry, block_m, block_n))
        start, stop = torch.maximum(start, left), torch.minimum(stop, right)
        middle = start
    return _ranges(start, middle, stop)


def query_blocks(geometry: Geometry, q: Tensor, k: Tensor, block_m: int, block_n: int) -> Tensor:
    """Returns, a block of keys, the blocks of queries to visit.

    Arguments as in `key_blocks`.

    Returns:
        int32 (batch or 1, heads or 1, key blocks, 3): start, middle, stop. The tiles from start to
        middle need a mask; in those from middle to stop every query sees every key.
    """
    first, last = _edges(geometry.keys, block_n, q.device)
    queries, shift = geometry.queries, geometry.shift
    start = (first - shift).clamp(0, queries) if geometry.causal else torch.zeros_like(first)
    clear = (last - shift).clamp(0, queries) if geometry.causal else start
    stop = torch.full_like(last, queries)
    window = _window(geometry, q, k, block_n, of_queries=False)
    if window is not None:
        # A query past either end of the keys is as far from key j as that end is.
        reach = last + window
        stop = stop.where(reach >= geometry.keys - 1, (reach + 1 - shift).clamp(0, queries))
        if not geometry.causal:
            reach = first - window
            start = start.where(reach <= 0, (reach - shift).clamp(0, queries))
    start, middle, stop = start // block_m, _ceil(clear, block_m), _ceil(stop, block_m)
    if geometry.query_ids is not None and geometry.key_ids is not None:
        left, right = _hull(_may_match(geometry, block_m, block_n).mT)
        start, stop = torch.maximum(start, left), torch.minimum(stop, right)
        middle = stop
    return _ranges(start, middle, stop)


@functools.lru_cache(maxsize=64)
def _edges(size: int, block: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Returns the first and the last index of every block; shared by all layers."""
    first = torch.arange(0, size, block, device=device)
    return first, (first + (block - 1)).clamp(max=size - 1)


def _ceil(index: Tensor, block: int) -> Tensor:
    return (index + (block - 1)) // block


def _ranges(start: Tensor, middle: Tensor, stop: Tensor) -> Tensor:
    """Returns start <= middle <= stop, int32 (batch or 1, heads or 1, blocks, 3)."""
    stop = torch.maximum(start, stop)
    middle = torch.minimum(torch.maximum(start, middle), stop)
    ranges = torch.stack([x.expand_as(stop) for x in (start, middle, stop)], dim=-1)
    ranges = ranges.to(torch.int32)
    return ranges.view((1,) * (4 - ranges.dim()) + ranges.shape)


def _window(
    geometry: Geometry, q: Tensor, k: Tensor, block: int, *, of_queries: bool
) -> Tensor | None:
    """Returns how far from their nearest key a block's pairs may lie, (batch, heads, blocks)."""
    keys = geometry.keys
    if geometry.slopes is None or min(geometry.queries, keys) < WINDOW_FROM:
        return None
    q_norm = torch.linalg.vector_norm(q.detach(), dim=-1, dtype=torch.float32)
    k_norm = torch.linalg.vector_norm(k.detach(), dim=-1, dtype=torch.float32)
    k_norm = k_norm.repeat_interleave(q.shape[1] // k.shape[1], dim=1)
    if of_queries:
        product = _block_max(q_norm, block) * (2 * k_norm.amax(-1, keepdim=True))
    else:
        in_reach = _block_max(k_norm, block) + k_norm.amax(-1, keepdim=True)
        product = q_norm.amax(-1, keepdim=True) * in_reach
    negligible = math.log(keys / torch.finfo(torch.float32).eps)
    window: Tensor = (geometry.scale * product + negligible) / geometry.slopes[:, None]
    return window.ceil().nan_to_num(nan=keys, posinf=keys).clamp(max=keys).long()


def _block_max(norms: Tensor, block: int) -> Tensor:
    """Returns the largest norm of every block, (batch, heads, blocks)."""
    return _in_blocks(norms, block).amax(-1)


def _in_blocks(x: Tensor, block: int) -> Tensor:
    """Returns x with its last dimension cut into (blocks, block), filled up with zeros."""
    padded = pad(x, (0, -x.shape[-1] % block))
    return padded.view(*x.shape[:-1], -1, block)


def _may_match(geometry: Geometry, block_m: int, block_n: int) -> Tensor:
    """Returns which blocks may share an id, bool (batch, 1, query blocks, key blocks)."""
    assert geometry.query_ids is not None
    assert geometry.key_ids is not None
    low, high = (edge[:, :, None] for edge in _id_range(geometry.query_ids, block_m))
    key_low, key_high = (edge[:, None, :] for edge in _id_range(geometry.key_ids, block_n))
    return ((low <= key_high) & (key_low <= high))[:, None]


def _id_range(ids: Tensor, block: int) -> tuple[Tensor, Tensor]:
    """Returns the smallest and the largest id of every block, an empty range without any."""
    limits = torch.iinfo(torch.int32)
    blocks = _in_blocks(ids, block)
    padding = blocks == 0
    low = blocks.masked_fill(padding, limits.max).amin(-1)
    return low, blocks.masked_fill(padding, limits.min).amax(-1)


def _hull(marked: Tensor) -> tuple[Tensor, Tensor]:
    """Returns where the marks of the last dimension begin and end; 0 and 0 without any."""
    marks = marked.int()
    first = marks.argmax(-1)
    stop = marks.shape[-1] - marks.flip(-1).argmax(-1)
    return first, stop.where(marked.any(-1), 0)
