"""Attention on NVIDIA GPUs through PyTorch's FlexAttention: the last resort.

It is compiled by torch.compile on first use, which takes a while, and again for other kinds of
problems. On a CPU it has no backward pass.

Source: Dong et al., "Flex Attention" (2024).
"""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Callable

import torch
from torch import Tensor

from bc2_model.kernels.problem import AttentionProblem

NAME = "flex"

_Modification = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]
_Mask = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


def unsupported_reason(problem: AttentionProblem) -> str | None:
    """Returns why this problem cannot run here, or None where it can."""
    if problem.q.device.type != "cuda":
        return f"the tensors are on {problem.q.device}"
    if importlib.util.find_spec("triton") is None:
        return "torch.compile needs triton, which is not installed"
    if problem.q.dtype == torch.float64:
        return "float64 is not compiled for"
    if problem.q.shape[3] < 16:
        return f"head_dim {problem.q.shape[3]} is below 16"
    return None


def attention(problem: AttentionProblem) -> Tensor:
    """Solves a problem that has no `unsupported_reason`."""
    return solve(problem, _compiled())


def solve(problem: AttentionProblem, flex_attention: Callable[..., Tensor]) -> Tensor:
    """Solves a problem with FlexAttention's function, compiled or not."""
    from torch.nn.attention.flex_attention import create_block_mask

    batch, heads, queries = problem.q.shape[:3]
    keys = problem.k.shape[2]
    # A tensor, so that another shift does not compile another kernel.
    shift = torch.tensor(problem.shift, device=problem.q.device)
    mask = None
    if problem.causal or problem.key_ids is not None:
        mask = create_block_mask(
            visible(problem, shift),
            batch if problem.key_ids is not None else None,
            None,
            queries,
            keys,
            device=str(problem.q.device),
        )
    return flex_attention(
        problem.q,
        problem.k,
        problem.v,
        score_mod=bias(problem.slopes, shift),
        block_mask=mask,
        scale=problem.scale,
        enable_gqa=heads != problem.k.shape[1],
    )


def bias(slopes: Tensor | None, shift: Tensor) -> _Modification | None:
    """Returns the score_mod that adds -slope * |i - j|."""
    if slopes is None:
        return None

    def biased(score: Tensor, batch: Tensor, head: Tensor, row: Tensor, key: Tensor) -> Tensor:
        del batch
        return score - slopes[head] * (row + shift - key).abs()

    return biased


def visible(problem: AttentionProblem, shift: Tensor) -> _Mask:
    """Returns the mask_mod that says which query sees which key."""
    causal, query_ids, key_ids = problem.causal, problem.query_ids, problem.key_ids

    def seen(batch: Tensor, head: Tensor, row: Tensor, key: Tensor) -> Tensor:
        del head
        allowed = key <= row + shift if causal else key >= 0
        if query_ids is None or key_ids is None:
            return allowed
        query_id = query_ids[batch, row]
        return allowed & (query_id == key_ids[batch, key]) & (query_id != 0)

    return seen


@functools.cache
def _compiled() -> Callable[..., Tensor]:
    from torch.nn.attention.flex_attention import flex_attention

    compiled: Callable[..., Tensor] = torch.compile(flex_attention, dynamic=True)
    return compiled
