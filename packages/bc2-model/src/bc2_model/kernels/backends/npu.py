"""Attention on Ascend NPUs through torch_npu's fused operator, with ALiBi made inside it.

Whole sequences go in as (batch, heads, seq, head_dim), packed segments as tokens with cumulative
lengths (TND). The causal mask is one compressed 2048 x 2048 triangle for every length, and the
operator makes the bias from the slopes: nothing grows with the square of the length.

Source: the documentation of ``npu_fusion_attention_v2`` in torch_npu 2.13 for arguments and limits;
MindSpeed's fusion_attention for the bias, -slope * |i - j| with both counted from the top left.
"""

from __future__ import annotations

import functools
import importlib

import torch
from torch import Tensor

from bc2_model.kernels.backends import npu_fusion
from bc2_model.kernels.packing import gather, pack, scatter
from bc2_model.kernels.problem import AttentionProblem

NAME = "npu"


def unsupported_reason(problem: AttentionProblem) -> str | None:
    """Returns why this problem cannot run here, or None where it can."""
    if problem.q.device.type != "npu":
        return f"the tensors are on {problem.q.device}"
    reason = library_reason()
    return _shape_reason(problem) if reason is None else reason


@functools.cache
def library_reason() -> str | None:
    """Returns why torch_npu cannot be used, or None where it can."""
    try:
        library = importlib.import_module("torch_npu")
    except ImportError as error:
        return f"torch_npu cannot be imported: {error}"
    if not hasattr(library, "npu_fusion_attention_v2"):
        return f"torch_npu {library.__version__} has no npu_fusion_attention_v2"
    return None


def _shape_reason(problem: AttentionProblem) -> str | None:
    """Returns what in the arguments the operator does not take."""
    heads, queries, head_dim = problem.q.shape[1:]
    keys, shift = problem.k.shape[2], problem.shift
    if problem.q.dtype not in npu_fusion.DTYPES:
        return f"{problem.q.dtype} is not supported"
    if heads > npu_fusion.MAX_HEADS:
        return f"{heads} heads are above {npu_fusion.MAX_HEADS}"
    if head_dim > npu_fusion.MAX_HEAD_DIM:
        return f"head_dim {head_dim} is above {npu_fusion.MAX_HEAD_DIM}"
    square = queries == keys and shift == 0
    if problem.slopes is not None and not square:
        return "the operator makes ALiBi's bias only for queries that stand on the keys"
    if problem.key_ids is not None:
        if not square:
            return "with segments it needs a key for every query and no other"
        packing = pack(problem.key_ids)
        if packing is None:
            return "a segment lies in several places"
        if not 0 < len(packing.ends) <= npu_fusion.MAX_SEGMENTS:
            return f"{len(packing.ends)} segments are not between 1 and {npu_fusion.MAX_SEGMENTS}"
    elif problem.causal and not (shift == keys - queries >= 0):
        return "the last query does not stand on the last key, or a query sees no key"
    return None


def attention(problem: AttentionProblem) -> Tensor:
    """Solves a problem that has no `unsupported_reason`."""
    q, k, v = problem.q, problem.k, problem.v
    mask, sparse_mode = None, npu_fusion.NO_MASK
    if problem.causal:
        mask = _triangle(q.device)
        square = q.shape[2] == k.shape[2]
        sparse_mode = npu_fusion.CAUSAL if square else npu_fusion.CAUSAL_BOTTOM_RIGHT
    if problem.key_ids is None:
        call = npu_fusion.Call(
            q, k, v, "BNSD", mask, sparse_mode, problem.slopes, problem.scale, ends=None
        )
        return npu_fusion.run(call)
    packing = pack(problem.key_ids)
    assert packing is not None
    q, k, v = (gather(x, packing) for x in (q, k, v))
    call = npu_fusion.Call(
        q, k, v, "TND", mask, sparse_mode, problem.slopes, problem.scale, packing.ends
    )
    return scatter(npu_fusion.run(call), packing, problem.q.shape[0], problem.q.shape[2])


@functools.cache
def _triangle(device: torch.device) -> Tensor:
    """Returns the compressed causal mask: True is masked out; shared by all layers."""
    ones = torch.ones(npu_fusion.MASK_SHAPE, dtype=torch.bool, device=device)
    return ones.triu(1)
