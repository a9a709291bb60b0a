"""Attention on NVIDIA GPUs through the flash-attn package, 2.4 or later, where it is installed.

Its ALiBi is inside the kernel, forward and backward. Segments go through its functions for
sequences of varying length.

Source: Dao, "FlashAttention-2" (2023); ``flash_attn/flash_attn_interface.py`` for the arguments.
"""

from __future__ import annotations

import functools
import importlib
import inspect
from types import ModuleType

import torch
from torch import Tensor

from bc2_model.kernels.packing import gather, pack, scatter
from bc2_model.kernels.problem import AttentionProblem

NAME = "flash-attn"

_MAX_HEAD_DIM = 256


def unsupported_reason(problem: AttentionProblem) -> str | None:
    """Returns why this problem cannot run here, or None where it can."""
    device = problem.q.device
    if device.type != "cuda":
        return f"the tensors are on {device}"
    library = _library()
    if isinstance(library, str):
        return library
    capability = torch.cuda.get_device_capability(device)
    if capability < (8, 0):
        return f"{device} has compute capability {capability[0]}.{capability[1]}, it needs 8.0"
    return _shape_reason(problem)


def _shape_reason(problem: AttentionProblem) -> str | None:
    """Returns what in the arguments flash-attn does not take."""
    queries, head_dim = problem.q.shape[2:]
    keys = problem.k.shape[2]
    if problem.q.dtype not in (torch.float16, torch.bfloat16):
        return f"it takes float16 and bfloat16, not {problem.q.dtype}"
    if head_dim > _MAX_HEAD_DIM or head_dim % 8 != 0:
        return f"head_dim {head_dim} is not a multiple of 8 up to {_MAX_HEAD_DIM}"
    if problem.key_ids is not None:
        if queries != keys:
            return "with segments it needs a key for every query and no other"
        packing = pack(problem.key_ids)
        if packing is None:
            return "a segment lies in several places"
        if not packing.ends:
            return "every position is padding"
    if problem.shift != keys - queries and (problem.causal or problem.slopes is not None):
        return "the last query does not stand on the last key"
    return None


def attention(problem: AttentionProblem) -> Tensor:
    """Solves a problem that has no `unsupported_reason`."""
    library = _library()
    assert not isinstance(library, str)
    options = {
        "softmax_scale": problem.scale,
        "causal": problem.causal,
        "alibi_slopes": problem.slopes,
        "deterministic": torch.are_deterministic_algorithms_enabled(),
    }
    out: Tensor
    if problem.key_ids is None:
        q, k, v = (x.transpose(1, 2) for x in (problem.q, problem.k, problem.v))
        out = library.flash_attn_func(q, k, v, **options)
        return out.transpose(1, 2)
    packing = pack(problem.key_ids)
    assert packing is not None
    out = library.flash_attn_varlen_func(
        *(gather(x, packing) for x in (problem.q, problem.k, problem.v)),
        cu_seqlens_q=packing.cu_seqlens,
        cu_seqlens_k=packing.cu_seqlens,
        max_seqlen_q=packing.longest,
        max_seqlen_k=packing.longest,
        **options,
    )
    return scatter(out, packing, problem.q.shape[0], problem.q.shape[2])


@functools.cache
def _library() -> ModuleType | str:
    """Returns flash_attn, or why it cannot be used."""
    try:
        library = importlib.import_module("flash_attn")
    except ImportError as error:
        return f"flash_attn cannot be imported: {error}"
    if "alibi_slopes" not in inspect.signature(library.flash_attn_func).parameters:
        return f"flash_attn {library.__version__} has no alibi_slopes: install 2.4 or later"
    return library
