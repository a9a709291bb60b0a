"""One checked call of ``npu_fusion_attention_v2``.

torch_npu passes nearly everything on to CANN: tensors of different dtypes, a mask of the wrong
size, a head count that does not fit, an unknown pse_type. What the documentation of torch_npu 2.13
demands and the wheel does not check is checked here, before a device sees it.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from bc2_model.kernels.errors import KernelError

DTYPES = (torch.float16, torch.bfloat16, torch.float32)
MAX_HEADS = 256
MAX_HEAD_DIM = 768
MAX_SEGMENTS = 2000
MAX_SEQ = 1_000_000
MASK_SHAPE = (2048, 2048)

NO_MASK = 0
CAUSAL = 2
"""sparse_mode: the diagonal begins top left."""
CAUSAL_BOTTOM_RIGHT = 3
"""sparse_mode: the last query stands on the last key; no more queries than keys."""

_EXTERNAL_BIAS = 1
_INTERNAL_ALIBI = 2
"""pse_type: scale * q k^T - slope * |i - j|. Type 3 would take the root of the distance."""


@dataclass(frozen=True, slots=True)
class Call:
    """The arguments that bc2 uses.

    Attributes:
        q: (batch, heads, queries, head_dim) in layout BNSD, (tokens, heads, head_dim) in TND.
        k: As q, with kv_heads and keys.
        v: As k.
        layout: BNSD or TND.
        mask: bool (2048, 2048), True above the diagonal; None where every query sees every key.
        sparse_mode: NO_MASK, CAUSAL or CAUSAL_BOTTOM_RIGHT.
        slopes: float32 (heads,), or None.
        scale: Factor of the scores.
        ends: Cumulative lengths of the segments in TND, None in BNSD.
    """

    q: Tensor
    k: Tensor
    v: Tensor
    layout: str
    mask: Tensor | None
    sparse_mode: int
    slopes: Tensor | None
    scale: float
    ends: list[int] | None


def run(call: Call) -> Tensor:
    """Returns the output, shape and dtype of q; differentiable in q, k and v.

    Raises:
        KernelError: The operator's documentation forbids an argument.
    """
    check(call)
    operator = importlib.import_module("torch_npu").npu_fusion_attention_v2
    out: Tensor = operator(
        call.q,
        call.k,
        call.v,
        call.q.shape[1],
        call.layout,
        pse=call.slopes,
        pse_type=_EXTERNAL_BIAS if call.slopes is None else _INTERNAL_ALIBI,
        atten_mask=call.mask,
        sparse_mode=call.sparse_mode,
        scale=call.scale,
        actual_seq_qlen=call.ends,
        actual_seq_kvlen=call.ends,
    )[0]
    return out


def check(call: Call) -> None:
    """Raises KernelError where the operator's documentation forbids an argument."""
    dimensions = {"BNSD": 4, "TND": 3}.get(call.layout)
    if dimensions is None:
        raise KernelError(f"layout {call.layout!r} is neither BNSD nor TND")
    _check_tensors(call, dimensions)
    _check_mask(call)
    _check_lengths(call)
    if call.slopes is not None:
        heads = call.q.shape[1]
        if call.slopes.dtype != torch.float32 or call.slopes.shape != (heads,):
            raise KernelError(
                f"slopes must be float32 ({heads},), "
                f"not {call.slopes.dtype} {tuple(call.slopes.shape)}"
            )
    tensors = (call.q, call.k, call.v, call.mask, call.slopes)
    devices = {str(x.device) for x in tensors if x is not None}
    if len(devices) > 1:
        raise KernelError(f"tensors on several devices: {', '.join(sorted(devices))}")


def _check_tensors(call: Call, dimensions: int) -> None:
    q, k, v = call.q, call.k, call.v
    if not q.dim() == k.dim() == v.dim() == dimensions:
        raise KernelError(f"layout {call.layout} takes {dimensions} dimensions, q has {q.dim()}")
    if q.dtype not in DTYPES or not q.dtype == k.dtype == v.dtype:
        raise KernelError(
            "q, k and v must have one dtype of float16, bfloat16 and float32, "
            f"not {q.dtype}, {k.dtype}, {v.dtype}"
        )
    if k.shape != v.shape:
        raise KernelError(f"k {tuple(k.shape)} and v {tuple(v.shape)} must have one shape")
    if call.layout == "BNSD" and q.shape[0] != k.shape[0]:
        raise KernelError(f"batch sizes differ: q {tuple(q.shape)}, k {tuple(k.shape)}")
    heads, head_dim = q.shape[1], q.shape[-1]
    if heads > MAX_HEADS or heads % k.shape[1] != 0:
        raise KernelError(f"{heads} heads: at most {MAX_HEADS}, a multiple of {k.shape[1]}")
    if head_dim > MAX_HEAD_DIM or k.shape[-1] != head_dim:
        raise KernelError(
            f"head_dim {head_dim} of q, {k.shape[-1]} of k: must be one number up to {MAX_HEAD_DIM}"
        )
    if max(_length(q), _length(k)) > MAX_SEQ:
        raise KernelError(f"sequences are longer than {MAX_SEQ}")
    if call.slopes is not None and _length(q) != _length(k):
        raise KernelError(f"ALiBi needs as many queries as keys, not {_length(q)} and {_length(k)}")


def _check_mask(call: Call) -> None:
    if call.sparse_mode not in (NO_MASK, CAUSAL, CAUSAL_BOTTOM_RIGHT):
        raise KernelError(f"sparse_mode {call.sparse_mode} is not used here")
    if (call.mask is None) != (call.sparse_mode == NO_MASK):
        raise KernelError("a causal sparse_mode and its mask come together")
    if call.mask is not None and (call.mask.dtype, call.mask.shape) != (torch.bool, MASK_SHAPE):
        raise KernelError(
            f"the compressed mask must be bool {MASK_SHAPE}, "
            f"not {call.mask.dtype} {tuple(call.mask.shape)}"
        )
    queries, keys = _length(call.q), _length(call.k)
    if call.sparse_mode == CAUSAL and queries != keys:
        raise KernelError(f"{queries} queries and {keys} keys must be aligned bottom-right")
    if call.sparse_mode == CAUSAL_BOTTOM_RIGHT and queries > keys:
        raise KernelError(f"of {queries} queries the first see none of {keys} keys")


def _check_lengths(call: Call) -> None:
    if (call.ends is None) != (call.layout == "BNSD"):
        raise KernelError("cumulative lengths belong to layout TND, and to it alone")
    if call.ends is None:
        return
    if not 0 < len(call.ends) <= MAX_SEGMENTS:
        raise KernelError(f"{len(call.ends)} segments are not between 1 and {MAX_SEGMENTS}")
    if any(stop <= start for start, stop in pairwise([0, *call.ends])):
        raise KernelError(f"cumulative lengths must rise: {call.ends}")
    if not call.ends[-1] == _length(call.q) == _length(call.k):
        raise KernelError(
            f"the lengths end at {call.ends[-1]}, "
            f"of {_length(call.q)} queries and {_length(call.k)} keys"
        )


def _length(x: Tensor) -> int:
    """Returns the sequence length, or in TND the number of tokens."""
    return x.shape[-2] if x.dim() == 4 else x.shape[0]
