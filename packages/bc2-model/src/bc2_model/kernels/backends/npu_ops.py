"""Fused operators of torch_npu behind `rms_norm`, `swiglu` and `rotary`.

Each is used where `takes` says so and checks what torch_npu hands to CANN unchecked.

Source: the operators' documentation in torch_npu 2.13.
"""

from __future__ import annotations

import importlib
from typing import Any

import torch
from torch import Tensor

from bc2_model.kernels.backends.npu import library_reason
from bc2_model.kernels.errors import KernelError

_DTYPES = (torch.float16, torch.bfloat16, torch.float32)
_ROTARY_MAX_HEAD_DIM = 895
_ROTARY_MAX_BATCH_OR_HEADS = 999


def takes(*tensors: Tensor) -> bool:
    """Returns whether tensors are on an NPU and have one dtype that the operators take."""
    first = tensors[0]
    return (
        first.device.type == "npu"
        and first.dtype in _DTYPES
        and all(x.dtype == first.dtype for x in tensors)
        and library_reason() is None
    )


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """See `bc2_model.kernels.rms_norm`; x and weight have one dtype."""
    if weight.shape != x.shape[-1:]:
        raise KernelError(f"the weight {tuple(weight.shape)} is not one number a column of x")
    out: Tensor = _torch_npu().npu_rms_norm(x, weight, epsilon=eps)[0]
    return out


def swiglu(x: Tensor) -> Tensor:
    """See `bc2_model.kernels.swiglu`; the last dimension of x is even."""
    out: Tensor = _torch_npu().npu_swiglu(x, dim=-1)
    return out


def takes_rotary(x: Tensor) -> bool:
    """Returns whether `rotary` takes a tensor of this shape."""
    batch, heads, _, head_dim = x.shape
    return (
        takes(x)
        and max(batch, heads) <= _ROTARY_MAX_BATCH_OR_HEADS
        and head_dim <= _ROTARY_MAX_HEAD_DIM
    )


def rotary(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """See `bc2_model.kernels.rotary`; cos and sin are float32 (1 or batch, 1, seq, head_dim)."""
    # In the dtype of x the angles' cosines would be rounded to 16 bits.
    turned: Tensor = _torch_npu().npu_rotary_mul(x.to(cos.dtype), cos, sin, rotary_mode="half")
    return turned.to(x.dtype)


def _torch_npu() -> Any:
    return importlib.import_module("torch_npu")
