"""`attention`: checks its arguments and hands them to the best backend that can run."""

from __future__ import annotations

from torch import Tensor

from bc2_model.kernels.backends.registry import AUTO, select
from bc2_model.kernels.problem import make_problem


def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    alibi_slopes: Tensor | None = None,
    causal: bool = True,
    segment_ids: Tensor | None = None,
    cu_seqlens: Tensor | None = None,
    scale: float | None = None,
    q_offset: int | None = None,
    k_offset: int = 0,
    backend: str = AUTO,
) -> Tensor:
    """Returns softmax(scale * q k^T - slope * (i - j)) v, differentiable in q, k and v.

    Positions. Query row r has position i = q_offset + r, key c has j = k_offset + c; only their
    difference matters. Without q_offset the last query stands on the last key, which aligns the
    causal mask bottom-right: a chunk of new queries after a cache of keys, or the single query of
    a decoding step, needs no offsets. Under context parallelism q_offset and k_offset are the
    positions of the local first query and first key in the whole sequence. A query that sees no
    key gives zeros and has no gradient.

    Source: Press et al., "Train Short, Test Long" (2022), for the bias; Dao, "FlashAttention-2"
    (2023), for the alignment.

    Args:
        q: (batch, heads, queries, head_dim); float16, bfloat16, float32 or float64.
        k: (batch, kv_heads, keys, head_dim), dtype and device of q. kv_heads divides heads
            (grouped-query attention): query head h reads key-value head h // (heads // kv_heads).
        v: As k.
        alibi_slopes: float32 (heads,), positive, sliced from `alibi_slopes` of the whole model;
            None for no bias. Without `causal` the bias is -slope * |i - j|.
        causal: Whether a query sees only the keys at its own and earlier positions.
        segment_ids: Integers (batch, keys): a query sees only the keys with the id found at its
            own position. 0 is padding: it is seen by none and its output is zero.
        cu_seqlens: Integers (segments + 1,), rising from 0 to keys: where the segments of a batch
            of one begin, instead of segment_ids.
        scale: Positive factor of the scores; head_dim ** -0.5 by default.
        q_offset: Position of the first query; k_offset + keys - queries by default.
        k_offset: Position of the first key.
        backend: "auto", or the name of one backend.

    Returns:
        Shape and dtype of q.

    Raises:
        KernelError: An argument is wrong, or the named backend cannot run this call.
    """
    problem = make_problem(
        q, k, v, alibi_slopes, causal, segment_ids, cu_seqlens, scale, q_offset, k_offset
    )
    return select(problem, backend).attention(problem)
