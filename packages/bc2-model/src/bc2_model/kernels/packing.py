"""Segments in the form of kernels for sequences of varying length: padding gone, lengths added up.

Such kernels take their lengths, or the longest of them, from the host. Reading them back stalls the
device, so the last result is kept: all layers of a step share one tensor of ids.
"""

from __future__ import annotations

import weakref
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor

from bc2_model.kernels.segments import runs


@dataclass(frozen=True, slots=True)
class Packing:
    """Where the segments of a batch lie.

    Attributes:
        tokens: int64 indices, among the batch * seq positions, of those that are not padding; None
            where none is.
        ends: Lengths of the segments, added up.
        cu_seqlens: int32 (segments + 1,): 0 and the ends, on the device of the ids.
        longest: Length of the longest segment.
    """

    tokens: Tensor | None
    ends: list[int]
    cu_seqlens: Tensor
    longest: int


_last: tuple[weakref.ref[Tensor] | None, int, Packing | None] = (None, 0, None)


def pack(ids: Tensor) -> Packing | None:
    """Returns the packing of segment ids, or None where one id stands in several places of a row.

    Args:
        ids: Integers (batch, seq); 0 is padding.
    """
    global _last
    if ids.is_inference():  # such tensors have no version that tells of a change
        return _pack(ids)
    reference, version, packing = _last
    if reference is not None and reference() is ids and version == ids._version:
        return packing
    packing = _pack(ids)
    _last = (weakref.ref(ids), ids._version, packing)
    return packing


def gather(x: Tensor, packing: Packing) -> Tensor:
    """Returns the tokens of x, (batch, heads, seq, head_dim), as (tokens, heads, head_dim)."""
    x = x.transpose(1, 2).flatten(0, 1)
    return x.contiguous() if packing.tokens is None else x.index_select(0, packing.tokens)


def scatter(x: Tensor, packing: Packing, batch: int, seq: int) -> Tensor:
    """Undoes `gather`; padding becomes zero."""
    if packing.tokens is not None:
        x = x.new_zeros(batch * seq, *x.shape[1:]).index_copy(0, packing.tokens, x)
    return x.view(batch, seq, *x.shape[1:]).transpose(1, 2)


def _pack(ids: Tensor) -> Packing | None:
    found = [runs(row) for row in ids.cpu()]
    for row in found:
        if len({run.id for run in row}) < len(row):
            return None
    lengths = [len(run.where) for row in found for run in row]
    ends = list(accumulate(lengths))
    tokens = None
    if sum(lengths) < ids.numel():
        tokens = ids.flatten().nonzero().flatten()
    return Packing(
        tokens=tokens,
        ends=ends,
        cu_seqlens=torch.tensor([0, *ends], dtype=torch.int32).to(ids.device),
        longest=max(lengths, default=0),
    )
