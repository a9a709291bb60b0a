"""Causal ALiBi attention as others do it, beside our backends."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from bc2_model.kernels import alibi_slopes, attention
from bc2_model.kernels.backends.registry import BACKENDS
from bc2_model.kernels.problem import make_problem

Attention = Callable[[Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True, slots=True)
class Competitor:
    """One way to compute attention.

    Attributes:
        name: In the table.
        prepare: Makes what a call needs beside q, k and v, and returns the call. A bias that a
            model would make once for all its layers is made here.
    """

    name: str
    prepare: Callable[[], Attention]


def competitors(q: Tensor) -> tuple[list[Competitor], dict[str, str]]:
    """Returns what can run causal ALiBi attention of tensors like q, and why the rest cannot.

    Args:
        q: (batch, heads, seq, head_dim); k and v are like it.

    Returns:
        The competitors, the slowest way first, and by name a reason for each that is left out.
    """
    slopes = alibi_slopes(q.shape[1]).to(q.device)
    problem = make_problem(q, q, q, slopes, True, None, None, None, None, 0)
    found = [
        Competitor("eager, bias", functools.partial(_eager, q, slopes)),
        Competitor("sdpa, bias", functools.partial(_sdpa_with_bias, q, slopes)),
        Competitor("sdpa, no bias", lambda: _sdpa_without_bias),
    ]
    reasons = {}
    for backend in reversed(BACKENDS):
        reason = backend.unsupported_reason(problem)
        if reason is None:
            call = functools.partial(attention, alibi_slopes=slopes, backend=backend.NAME)
            found.append(Competitor(f"bc2 {backend.NAME}", functools.partial(_given, call)))
        else:
            reasons[f"bc2 {backend.NAME}"] = reason
    return found, reasons


def _given(call: Attention) -> Attention:
    return call


def _eager(q: Tensor, slopes: Tensor) -> Attention:
    """The official modelling code: a (heads, seq, seq) bias and whole scores."""
    bias = _bias(q, slopes)

    def call(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        scores = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5 + bias
        return torch.softmax(scores, -1) @ v

    return call


def _sdpa_with_bias(q: Tensor, slopes: Tensor) -> Attention:
    return functools.partial(scaled_dot_product_attention, attn_mask=_bias(q, slopes)[None])


def _sdpa_without_bias(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """No ALiBi at all: what attention itself costs."""
    return scaled_dot_product_attention(q, k, v, is_causal=True)


def _bias(q: Tensor, slopes: Tensor) -> Tensor:
    """Returns (heads, seq, seq): ALiBi, and -inf after the diagonal."""
    positions = torch.arange(q.shape[2], device=q.device)
    bias = slopes.view(-1, 1, 1) * (positions - positions[:, None])
    return bias.masked_fill_(positions > positions[:, None], float("-inf")).to(q.dtype)
