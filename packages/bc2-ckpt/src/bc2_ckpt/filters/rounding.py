"""Another dtype, rounded once."""

from __future__ import annotations

import torch
from torch import Tensor

from bc2_ckpt.errors import CkptError


class OverflowsError(CkptError):
    """A finite weight is too large for the dtype that was asked for."""


def rounded(tensor: Tensor, dtype: torch.dtype, name: str) -> Tensor:
    """Returns a tensor in another floating-point dtype, rounded to nearest, ties to even.

    Args:
        tensor: What to convert; infinities and NaN stay what they are.
        dtype: The dtype of the result.
        name: The tensor's name, for the error.

    Raises:
        OverflowsError: A finite element would become infinite.
    """
    if tensor.dtype == dtype:
        return tensor
    narrow = tensor
    if tensor.dtype == torch.float64 and dtype != torch.float32:
        narrow = _float32_rounded_to_odd(tensor)
    result = narrow.to(dtype)
    lost = result.isinf() & tensor.isfinite() if result.isinf().any() else None
    if lost is not None and lost.any():
        largest = tensor[lost].abs().max().item()
        kind = str(dtype).removeprefix("torch.")
        raise OverflowsError(
            f"{name} holds {largest:.6g}, but {kind} ends at {torch.finfo(dtype).max:.6g}",
            "keep the dtype, or choose --dtype bfloat16 or float32",
        )
    return result


def _float32_rounded_to_odd(tensor: Tensor) -> Tensor:
    """Rounds float64 so that a second rounding, to 16 bits, gives what a single one would.

    torch converts by way of float32 and rounds twice. An inexact value that is cut off and gets its
    last bit set can no longer look like a tie (Boldo and Melquiond, Emulation of FMA and
    correctly rounded sums, 2008).
    """
    nearest = tensor.float()
    back = nearest.double()
    bits = nearest.view(torch.int32)
    cut_off = torch.where(back.abs() > tensor.abs(), bits - 1, bits)
    odd = torch.where((back != tensor) & ~tensor.isnan(), cut_off | 1, bits)
    return odd.view(torch.float32)
