"""One attention call, checked and in the form that every backend takes."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from bc2_model.kernels.errors import KernelError

_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
_INTEGERS = (torch.int8, torch.int16, torch.int32, torch.int64, torch.uint8)


@dataclass(frozen=True, slots=True)
class AttentionProblem:
    """What a backend computes.

    Attributes:
        q: (batch, heads, queries, head_dim).
        k: (batch, kv_heads, keys, head_dim), kv_heads divides heads; query head h reads
            key-value head h // (heads // kv_heads).
        v: As k.
        slopes: float32 (heads,), positive, or None for no bias. The bias is -slope * |i - j|.
        causal: Whether query i sees only the keys j <= i.
        scale: Positive factor of the scores q . k.
        shift: Index of the key that the first query stands on: query row r has i = r + shift in
            the numbering of the keys. May be negative or beyond the last key.
        query_ids: Integers (batch, queries), or None. A query sees the keys with its own id, and
            none where its id is 0.
        key_ids: Integers (batch, keys); given together with query_ids.
    """

    q: Tensor
    k: Tensor
    v: Tensor
    slopes: Tensor | None
    causal: bool
    scale: float
    shift: int
    query_ids: Tensor | None
    key_ids: Tensor | None

    @property
    def compute_dtype(self) -> torch.dtype:
        """The dtype of scores and sums: float64 for float64 tensors, float32 for all others."""
        return torch.promote_types(self.q.dtype, torch.float32)


def make_problem(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    alibi_slopes: Tensor | None,
    causal: bool,
    segment_ids: Tensor | None,
    cu_seqlens: Tensor | None,
    scale: float | None,
    q_offset: int | None,
    k_offset: int,
) -> AttentionProblem:
    """Checks the arguments of `attention` and returns them as one problem.

    Values are read only on the CPU: elsewhere that would stall the device in every layer.

    Raises:
        KernelError: Says which argument is wrong and how.
    """
    _check_tensors(q, k, v)
    if alibi_slopes is not None:
        _check_slopes(alibi_slopes, q)
    if scale is not None and not 0 < scale < math.inf:
        raise KernelError(f"scale must be positive, not {scale}")
    queries, keys = q.shape[2], k.shape[2]
    shift = keys - queries if q_offset is None else q_offset - k_offset
    if cu_seqlens is not None:
        if segment_ids is not None:
            raise KernelError("segment_ids and cu_seqlens say the same thing: give one of them")
        segment_ids = _ids_from_cu_seqlens(cu_seqlens, q, keys)
    query_ids = None
    if segment_ids is not None:
        _check_segment_ids(segment_ids, q, keys)
        if shift < 0 or shift + queries > keys:
            raise KernelError(
                f"segments need every query to stand on one of the {keys} keys, "
                f"but the queries stand on {shift} to {shift + queries - 1}"
            )
        query_ids = segment_ids[:, shift : shift + queries]
    return AttentionProblem(
        q=q,
        k=k,
        v=v,
        slopes=alibi_slopes,
        causal=causal,
        scale=q.shape[3] ** -0.5 if scale is None else scale,
        shift=shift,
        query_ids=query_ids,
        key_ids=segment_ids,
    )


def _check_tensors(q: Tensor, k: Tensor, v: Tensor) -> None:
    for name, tensor in (("q", q), ("k", k), ("v", v)):
        if tensor.dim() != 4 or 0 in tensor.shape:
            raise KernelError(
                f"{name} must be (batch, heads, seq, head_dim) with no empty dimension, "
                f"not {tuple(tensor.shape)}"
            )
    if k.shape != v.shape:
        raise KernelError(f"k {tuple(k.shape)} and v {tuple(v.shape)} must have one shape")
    if q.shape[0] != k.shape[0] or q.shape[3] != k.shape[3]:
        raise KernelError(
            f"q {tuple(q.shape)} and k {tuple(k.shape)} must agree in batch and head_dim"
        )
    if q.shape[1] % k.shape[1] != 0:
        raise KernelError(f"{k.shape[1]} key-value heads do not divide {q.shape[1]} query heads")
    if q.dtype not in _DTYPES or not q.dtype == k.dtype == v.dtype:
        raise KernelError(
            "q, k and v must have one dtype of float16, bfloat16, float32 and float64, "
            f"not {q.dtype}, {k.dtype}, {v.dtype}"
        )
    if not q.device == k.device == v.device:
        raise KernelError(
            f"q, k and v must be on one device, not {q.device}, {k.device}, {v.device}"
        )


def _check_slopes(slopes: Tensor, q: Tensor) -> None:
    if slopes.dtype != torch.float32:
        # In 16 bits slope * distance loses whole units from a distance of about 256.
        raise KernelError(f"alibi_slopes must be float32, not {slopes.dtype}")
    if slopes.shape != (q.shape[1],):
        raise KernelError(
            f"alibi_slopes must be ({q.shape[1]},), one a head of q, not {tuple(slopes.shape)}"
        )
    if slopes.device != q.device:
        raise KernelError(f"alibi_slopes are on {slopes.device}, q is on {q.device}")
    if slopes.requires_grad:
        raise KernelError("alibi_slopes are constants: no backend has a gradient for them")
    if slopes.device.type == "cpu" and not bool((slopes > 0).all()):
        raise KernelError("alibi_slopes must be positive: the bias is -slope * (i - j)")


def _check_segment_ids(segment_ids: Tensor, q: Tensor, keys: int) -> None:
    if segment_ids.dtype not in _INTEGERS:
        raise KernelError(f"segment_ids must be integers, not {segment_ids.dtype}")
    if segment_ids.shape != (q.shape[0], keys):
        raise KernelError(
            f"segment_ids must be ({q.shape[0]}, {keys}), one a key, not {tuple(segment_ids.shape)}"
        )
    if segment_ids.device != q.device:
        raise KernelError(f"segment_ids are on {segment_ids.device}, q is on {q.device}")


def _ids_from_cu_seqlens(cu_seqlens: Tensor, q: Tensor, keys: int) -> Tensor:
    """Returns the segment ids 1, 2, 3 ... that cumulative lengths stand for, (1, keys)."""
    if q.shape[0] != 1:
        raise KernelError(f"cu_seqlens is for batch 1, not {q.shape[0]}: use segment_ids")
    if cu_seqlens.dim() != 1 or cu_seqlens.dtype not in _INTEGERS or len(cu_seqlens) < 2:
        raise KernelError(
            "cu_seqlens must be integers (segments + 1,), "
            f"not {cu_seqlens.dtype} {tuple(cu_seqlens.shape)}"
        )
    lengths = cu_seqlens.diff()
    if cu_seqlens.device.type == "cpu" and (
        int(cu_seqlens[0]) != 0 or int(cu_seqlens[-1]) != keys or bool((lengths < 0).any())
    ):
        raise KernelError(f"cu_seqlens must rise from 0 to {keys}, not {cu_seqlens.tolist()}")
    ids = torch.arange(1, len(lengths) + 1, device=cu_seqlens.device)
    return torch.repeat_interleave(ids, lengths, output_size=keys)[None].to(q.device)
