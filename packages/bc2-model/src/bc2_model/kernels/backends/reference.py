"""Attention as it is written in a textbook: any device, any problem, the measure of all others.

Scores, bias and softmax are float32 or better whatever the dtype of q. Memory grows with
queries * keys.
"""

from __future__ import annotations

import torch
from torch import Tensor

from bc2_model.kernels.problem import AttentionProblem

NAME = "reference"


def unsupported_reason(problem: AttentionProblem) -> str | None:
    """Returns None: every problem runs here."""
    del problem
    return None


def attention(problem: AttentionProblem) -> Tensor:
    """Solves a problem with plain differentiable operations."""
    dtype = problem.compute_dtype
    group = problem.q.shape[1] // problem.k.shape[1]
    q = problem.q.to(dtype)
    k, v = (x.to(dtype).repeat_interleave(group, dim=1) for x in (problem.k, problem.v))
    scores = q @ k.transpose(-1, -2) * problem.scale
    distance = _distance(problem)
    if problem.slopes is not None:
        scores = scores - problem.slopes.to(dtype)[:, None, None] * distance.abs()
    unseen = ~_visible(problem, distance)
    # The lowest finite number rather than -inf, so that the softmax of a row that sees no key is
    # finite; its weights are then cleared, and their gradients with them.
    weights = scores.masked_fill(unseen, torch.finfo(dtype).min).softmax(-1)
    return (weights.masked_fill(unseen, 0.0) @ v).to(problem.q.dtype)


def _distance(problem: AttentionProblem) -> Tensor:
    """Returns i - j, (queries, keys)."""
    device = problem.q.device
    rows = torch.arange(problem.q.shape[2], device=device) + problem.shift
    return rows[:, None] - torch.arange(problem.k.shape[2], device=device)


def _visible(problem: AttentionProblem, distance: Tensor) -> Tensor:
    """Returns which query sees which key; bool, broadcasts to (batch, 1, queries, keys)."""
    visible = distance >= 0 if problem.causal else torch.ones_like(distance, dtype=torch.bool)
    if problem.query_ids is None or problem.key_ids is None:
        return visible
    query_ids, key_ids = problem.query_ids[:, None, :, None], problem.key_ids[:, None, None, :]
    return visible & (query_ids == key_ids) & (query_ids != 0)
