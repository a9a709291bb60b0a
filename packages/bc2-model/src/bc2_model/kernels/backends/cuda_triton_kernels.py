"""FlashAttention-2 in Triton, with ALiBi, segments, grouped heads and unequal lengths.

Source: Dao, "FlashAttention-2" (2023); Press et al., "Train Short, Test Long" (2022).

Three kernels. `forward` and `backward_q` own a block of queries and loop over blocks of keys;
`backward_kv` owns a block of keys and loops over blocks of queries, so that no two programs ever
write to one place and results are the same in every run. Which blocks a program visits it reads
from a plan (cuda_triton_plan.py), as three block numbers: start, middle and stop.

Conventions:

- q, out, grad and dq are (batch, heads, queries, head_dim); k, v, dk and dv are (batch, kv_heads,
  keys, head_dim). Each comes with its strides over batch, heads and rows; neighbours along
  head_dim are neighbours in memory.
- i is the position of a query in the numbering of the keys, j that of a key.
- Scores are kept in the base 2, log2(e) * (scale * q . k - slope * |i - j|), because the hardware
  has exp2 and no exp. `log_sum` is the base-2 log-sum-exp of a row, float32 (batch, heads,
  queries), and +inf for a row that sees no key: exp2(score - inf) is 0, and so are its gradients.
- The bias comes from the distance i - j, an exact integer, and never from a position: slope * j
  reaches thousands, and its rounding would enter the exponentials.
- DOT is the dtype of the operands of matrix products. float32 is multiplied as float32 ("ieee"),
  not as TF32.
"""

# Triton compiles these functions itself and knows the types of their arguments at launch.
# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, allow-untyped-decorators

from __future__ import annotations

import triton
import triton.language as tl

# log2(e), and the score before the first key: finite, so that differences of scores never are NaN.
LOG2_E = tl.constexpr(1.4426950408889634)
LOWEST = tl.constexpr(-3.4028234663852886e38)


@triton.jit
def _head(pointer, strides, batch, head):
    """Returns where a head begins."""
    return pointer + batch * strides[0] + head * strides[1]


@triton.jit
def _tile(head, strides, start, limit, ROWS: tl.constexpr, HEAD_DIM: tl.constexpr):
    """Returns pointers to the rows from `start`, (ROWS, power of 2), and which elements exist."""
    row = tl.arange(0, ROWS)
    column = tl.arange(0, triton.next_power_of_2(HEAD_DIM))
    pointers = head + start * strides[2] + row[:, None] * strides[2] + column[None, :]
    return pointers, (row + start < limit)[:, None] & (column < HEAD_DIM)[None, :]


@triton.jit
def _load(
    head, strides, start, limit, ROWS: tl.constexpr, HEAD_DIM: tl.constexpr, DOT: tl.constexpr
):
    """Returns the rows from `start`; zeros past `limit`."""
    pointers, exists = _tile(head, strides, start, limit, ROWS, HEAD_DIM)
    return tl.load(pointers, mask=exists, other=0.0).to(DOT)


@triton.jit
def _store(head, strides, start, limit, value, ROWS: tl.constexpr, HEAD_DIM: tl.constexpr):
    pointers, exists = _tile(head, strides, start, limit, ROWS, HEAD_DIM)
    tl.store(pointers, value.to(head.dtype.element_ty), mask=exists)


@triton.jit
def _positions(start, ROWS: tl.constexpr):
    return (tl.arange(0, ROWS) + start).to(tl.int32)


@triton.jit
def _scores(product, i, j, scale, slope, CAUSAL: tl.constexpr):
    """Returns base-2 scores from products q . k; i and j broadcast to their shape."""
    scores = product * (scale * LOG2_E)
    if slope is not None:
        distance = i - j
        if not CAUSAL:
            distance = tl.abs(distance)
        scores -= (slope * LOG2_E) * distance.to(tl.float32)
    return scores


@triton.jit
def _visible(i, j, keys, query_id, key_id, CAUSAL: tl.constexpr):
    """Returns which query sees which key; all arguments broadcast to the tile."""
    visible = j < keys
    if CAUSAL:
        visible = visible & (j <= i)
    if query_id is not None:
        visible = visible & (query_id == key_id) & (query_id != 0)
    return visible


@triton.jit
def _ids(pointer, batch, positions, limit):
    """Returns the segment ids of some positions, 0 (padding) past `limit`; None without ids."""
    if pointer is None:
        ids = None
    else:
        ids = tl.load(pointer + batch * limit + positions, mask=positions < limit, other=0)
    return ids


@triton.jit
def _plan(plan, strides, batch, head, block):
    """Returns start, middle and stop; int64, as offsets in memory are made of them."""
    entry = plan + batch * strides[0] + head * strides[1] + block * strides[2]
    return (
        tl.load(entry).to(tl.int64),
        tl.load(entry + 1).to(tl.int64),
        tl.load(entry + 2).to(tl.int64),
    )


@triton.jit
def forward(
    q,
    k,
    v,
    out,
    log_sum,
    slopes,
    query_ids,
    key_ids,
    plan,
    q_strides,
    k_strides,
    v_strides,
    out_strides,
    plan_strides,
    queries,
    keys,
    shift,
    group,
    scale,
    HEAD_DIM: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    CAUSAL: tl.constexpr,
    DOT: tl.constexpr,
):
    """Writes the output and log_sum of BLOCK_M queries of one head."""
    # The last queries see most keys under a causal mask: they start first.
    block = tl.num_programs(0) - 1 - tl.program_id(0).to(tl.int64)
    head, batch = tl.program_id(1).to(tl.int64), tl.program_id(2).to(tl.int64)
    row = block * BLOCK_M
    q_tile = _load(
        _head(q, q_strides, batch, head), q_strides, row, queries, BLOCK_M, HEAD_DIM, DOT
    )
    k_head = _head(k, k_strides, batch, head // group)
    v_head = _head(v, v_strides, batch, head // group)
    rows = _positions(row, BLOCK_M)
    i = (rows + shift)[:, None]
    query_id = _ids(query_ids, batch, rows[:, None], queries)
    slope = None if slopes is None else tl.load(slopes + head)

    largest = tl.full([BLOCK_M], LOWEST, tl.float32)
    total = tl.zeros([BLOCK_M], tl.float32)
    acc = tl.zeros([BLOCK_M, triton.next_power_of_2(HEAD_DIM)], tl.float32)
    start, middle, stop = _plan(plan, plan_strides, batch, head, block)
    for MASKED in tl.static_range(2):
        for n in range(middle if MASKED else start, stop if MASKED else middle):
            column = n * BLOCK_N
            k_tile = _load(k_head, k_strides, column, keys, BLOCK_N, HEAD_DIM, DOT)
            v_tile = _load(v_head, v_strides, column, keys, BLOCK_N, HEAD_DIM, DOT)
            j = _positions(column, BLOCK_N)[None, :]
            product = tl.dot(q_tile, tl.trans(k_tile), input_precision="ieee")
            scores = _scores(product, i, j, scale, slope, CAUSAL)
            if MASKED:
                key_id = _ids(key_ids, batch, j, keys)
                visible = _visible(i, j, keys, query_id, key_id, CAUSAL)
                scores = tl.where(visible, scores, float("-inf"))
            new_largest = tl.maximum(largest, tl.max(scores, 1))
            weights = tl.exp2(scores - new_largest[:, None])
            rescale = tl.exp2(largest - new_largest)
            total = total * rescale + tl.sum(weights, 1)
            acc = acc * rescale[:, None]
            acc = tl.dot(weights.to(DOT), v_tile, acc, input_precision="ieee")
            largest = new_largest

    sees_none = total == 0.0
    total = tl.where(sees_none, 1.0, total)
    acc = acc / total[:, None]
    _store(_head(out, out_strides, batch, head), out_strides, row, queries, acc, BLOCK_M, HEAD_DIM)
    log_total = tl.where(sees_none, float("inf"), largest + tl.log2(total))
    row_of_all = (batch * tl.num_programs(1) + head) * queries + rows
    tl.store(log_sum + row_of_all, log_total, mask=rows < queries)


@triton.jit
def backward_q(
    q,
    k,
    v,
    out,
    grad,
    dq,
    log_sum,
    delta,
    slopes,
    query_ids,
    key_ids,
    plan,
    q_strides,
    k_strides,
    v_strides,
    out_strides,
    grad_strides,
    dq_strides,
    plan_strides,
    queries,
    keys,
    shift,
    group,
    scale,
    HEAD_DIM: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    CAUSAL: tl.constexpr,
    DOT: tl.constexpr,
):
    """Writes dq of BLOCK_M queries of one head, and for `backward_kv` delta = out . grad."""
    block = tl.num_programs(0) - 1 - tl.program_id(0).to(tl.int64)
    head, batch = tl.program_id(1).to(tl.int64), tl.program_id(2).to(tl.int64)
    row = block * BLOCK_M
    q_tile = _load(
        _head(q, q_strides, batch, head), q_strides, row, queries, BLOCK_M, HEAD_DIM, DOT
    )
    out_head = _head(out, out_strides, batch, head)
    out_tile = _load(out_head, out_strides, row, queries, BLOCK_M, HEAD_DIM, tl.float32)
    grad_head = _head(grad, grad_strides, batch, head)
    grad_tile = _load(grad_head, grad_strides, row, queries, BLOCK_M, HEAD_DIM, DOT)
    k_head = _head(k, k_strides, batch, head // group)
    v_head = _head(v, v_strides, batch, head // group)
    rows = _positions(row, BLOCK_M)
    i = (rows + shift)[:, None]
    query_id = _ids(query_ids, batch, rows[:, None], queries)
    slope = None if slopes is None else tl.load(slopes + head)
    row_of_all = (batch * tl.num_programs(1) + head) * queries + rows
    row_log_sum = tl.load(log_sum + row_of_all, mask=rows < queries, other=float("inf"))
    row_delta = tl.sum(out_tile * grad_tile.to(tl.float32), 1)
    tl.store(delta + row_of_all, row_delta, mask=rows < queries)

    acc = tl.zeros([BLOCK_M, triton.next_power_of_2(HEAD_DIM)], tl.float32)
    start, middle, stop = _plan(plan, plan_strides, batch, head, block)
    for MASKED in tl.static_range(2):
        for n in range(middle if MASKED else start, stop if MASKED else middle):
            column = n * BLOCK_N
            k_tile = _load(k_head, k_strides, column, keys, BLOCK_N, HEAD_DIM, DOT)
            v_tile = _load(v_head, v_strides, column, keys, BLOCK_N, HEAD_DIM, DOT)
            j = _positions(column, BLOCK_N)[None, :]
            product = tl.dot(q_tile, tl.trans(k_tile), input_precision="ieee")
            scores = _scores(product, i, j, scale, slope, CAUSAL)
            weights = tl.exp2(scores - row_log_sum[:, None])
            if MASKED:
                key_id = _ids(key_ids, batch, j, keys)
                visible = _visible(i, j, keys, query_id, key_id, CAUSAL)
                weights = tl.where(visible, weights, 0.0)
            d_weights = tl.dot(grad_tile, tl.trans(v_tile), input_precision="ieee")
            d_scores = weights * (d_weights - row_delta[:, None])
            acc = tl.dot(d_scores.to(DOT), k_tile, acc, input_precision="ieee")
    dq_head = _head(dq, dq_strides, batch, head)
    _store(dq_head, dq_strides, row, queries, acc * scale, BLOCK_M, HEAD_DIM)


@triton.jit
def backward_kv(
    q,
    k,
    v,
    grad,
    dk,
    dv,
    log_sum,
    delta,
    slopes,
    query_ids,
    key_ids,
    plan,
    q_strides,
    k_strides,
    v_strides,
    grad_strides,
    dk_strides,
    dv_strides,
    plan_strides,
    queries,
    keys,
    shift,
    group,
    scale,
    HEAD_DIM: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    CAUSAL: tl.constexpr,
    DOT: tl.constexpr,
):
    """Writes dk and dv of BLOCK_N keys of one key-value head, summed over its `group` of heads.

    Tiles are transposed, (BLOCK_N, BLOCK_M): both accumulating products then take the weights as
    they lie in registers.
    """
    block = tl.program_id(0).to(tl.int64)
    kv_head, batch = tl.program_id(1).to(tl.int64), tl.program_id(2).to(tl.int64)
    column = block * BLOCK_N
    k_head = _head(k, k_strides, batch, kv_head)
    k_tile = _load(k_head, k_strides, column, keys, BLOCK_N, HEAD_DIM, DOT)
    v_head = _head(v, v_strides, batch, kv_head)
    v_tile = _load(v_head, v_strides, column, keys, BLOCK_N, HEAD_DIM, DOT)
    j = _positions(column, BLOCK_N)[:, None]
    key_id = _ids(key_ids, batch, j, keys)

    k_acc = tl.zeros([BLOCK_N, triton.next_power_of_2(HEAD_DIM)], tl.float32)
    v_acc = tl.zeros([BLOCK_N, triton.next_power_of_2(HEAD_DIM)], tl.float32)
    for member in range(group):
        head = kv_head * group + member
        q_head = _head(q, q_strides, batch, head)
        grad_head = _head(grad, grad_strides, batch, head)
        first_row_of_all = (batch * tl.num_programs(1) * group + head) * queries
        slope = None if slopes is None else tl.load(slopes + head)
        start, middle, stop = _plan(plan, plan_strides, batch, head, block)
        for CLEAR in tl.static_range(2):
            for m in range(middle if CLEAR else start, stop if CLEAR else middle):
                row = m * BLOCK_M
                q_tile = _load(q_head, q_strides, row, queries, BLOCK_M, HEAD_DIM, DOT)
                grad_tile = _load(grad_head, grad_strides, row, queries, BLOCK_M, HEAD_DIM, DOT)
                rows = _positions(row, BLOCK_M)
                i = (rows + shift)[None, :]
                exists = rows < queries
                row_of_all = first_row_of_all + rows
                row_log_sum = tl.load(log_sum + row_of_all, mask=exists, other=float("inf"))
                row_delta = tl.load(delta + row_of_all, mask=exists, other=0.0)
                product = tl.dot(k_tile, tl.trans(q_tile), input_precision="ieee")
                scores = _scores(product, i, j, scale, slope, CAUSAL)
                weights = tl.exp2(scores - row_log_sum[None, :])
                if not CLEAR:
                    query_id = _ids(query_ids, batch, rows[None, :], queries)
                    visible = _visible(i, j, keys, query_id, key_id, CAUSAL)
                    weights = tl.where(visible, weights, 0.0)
                v_acc = tl.dot(weights.to(DOT), grad_tile, v_acc, input_precision="ieee")
                d_weights = tl.dot(v_tile, tl.trans(grad_tile), input_precision="ieee")
                d_scores = weights * (d_weights - row_delta[None, :])
                k_acc = tl.dot(d_scores.to(DOT), q_tile, k_acc, input_precision="ieee")
    dk_head = _head(dk, dk_strides, batch, kv_head)
    _store(dk_head, dk_strides, column, keys, k_acc * scale, BLOCK_N, HEAD_DIM)
    dv_head = _head(dv, dv_strides, batch, kv_head)
    _store(dv_head, dv_strides, column, keys, v_acc, BLOCK_N, HEAD_DIM)
