"""Which tiles the Triton kernels visit: all that count, masked where they must be, and few more."""

from __future__ import annotations

import logging

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from bc2_model.kernels import alibi_slopes
from bc2_model.kernels.backends import cuda_triton_plan, reference
from bc2_model.kernels.backends.cuda_triton_plan import Geometry, key_blocks, query_blocks
from bc2_model.kernels.problem import AttentionProblem, make_problem

logger = logging.getLogger(__name__)


def geometry_of(problem: AttentionProblem) -> Geometry:
    return Geometry(
        problem.q.shape[2],
        problem.k.shape[2],
        problem.shift,
        problem.causal,
        problem.scale,
        problem.slopes,
        problem.query_ids,
        problem.key_ids,
    )


def visited(problem: AttentionProblem, m: int, n: int, *, by_keys: bool) -> tuple[Tensor, Tensor]:
    """Returns which pairs the kernels compute and which of those without a mask, (b, h, q, k)."""
    plan = (query_blocks if by_keys else key_blocks)(
        geometry_of(problem), problem.q, problem.k, m, n
    )
    batch, heads, queries = problem.q.shape[:3]
    keys = problem.k.shape[2]
    rows, columns = -(-queries // m), -(-keys // n)
    plan = plan.expand(batch, heads, -1, -1)
    assert plan.shape[2] == (columns if by_keys else rows)
    start, middle, stop = plan.unbind(-1)
    assert ((start >= 0) & (start <= middle) & (middle <= stop)).all()
    others = torch.arange(rows if by_keys else columns)
    assert (stop <= len(others)).all()
    inside = (others >= start[..., None]) & (others < stop[..., None])
    clear = others >= middle[..., None] if by_keys else others < middle[..., None]

    def as_pairs(tiles: Tensor) -> Tensor:
        tiles = tiles.mT if by_keys else tiles
        pairs = tiles.repeat_interleave(m, 2).repeat_interleave(n, 3)
        return pairs[:, :, :queries, :keys]

    return as_pairs(inside), as_pairs(inside & clear)


def visible_pairs(problem: AttentionProblem) -> Tensor:
    visible = reference._visible(problem, reference._distance(problem))
    return visible.expand(*problem.q.shape[:3], problem.k.shape[2])


@st.composite
def problems(draw: st.DrawFn) -> AttentionProblem:
    keys = draw(st.integers(1, 40))
    queries = draw(st.integers(1, 40))
    ids = shift = None
    if draw(st.booleans()):
        queries = min(queries, keys)
        shift = draw(st.integers(0, keys - queries))
        row = st.lists(st.integers(0, 3), min_size=keys, max_size=keys)
        ids = torch.tensor([draw(row), draw(row)], dtype=torch.int32)
    else:
        shift = draw(st.none() | st.integers(-50, 90))
    rng = torch.Generator().manual_seed(draw(st.integers(0, 99)))
    size = draw(st.sampled_from([0.1, 1.0, 10.0]))
    q = size * torch.randn(2, 4, queries, 4, generator=rng)
    k = size * torch.randn(2, 2, keys, 4, generator=rng)
    slopes = torch.tensor([64.0, 8.0, 1.0, 1 / 32]) if draw(st.booleans()) else None
    return make_problem(q, k, k, slopes, draw(st.booleans()), ids, None, None, shift, 0)


@pytest.mark.parametrize("by_keys", [False, True], ids=["keys of queries", "queries of keys"])
@settings(max_examples=300, deadline=None)
@given(problem=problems(), m=st.integers(1, 9), n=st.integers(1, 9))
def test_what_is_left_out_does_not_count(by_keys: bool, problem, m: int, n: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cuda_triton_plan, "WINDOW_FROM", 1)
        pairs, clear = visited(problem, m, n, by_keys=by_keys)
    visible = visible_pairs(problem)
    assert not (clear & ~visible).any(), "a tile without a mask has an invisible pair"
    scores = problem.q.double() @ problem.k.double().repeat_interleave(2, 1).mT * problem.scale
    if problem.slopes is not None:
        distance = reference._distance(problem).abs()
        scores = scores - problem.slopes[:, None, None].double() * distance
    share = scores.masked_fill(~visible, -torch.inf).softmax(-1).nan_to_num()
    left_out = (share * ~pairs).sum(-1)
    assert left_out.max() <= torch.finfo(torch.float32).eps
    if problem.slopes is None:
        assert not (visible & ~pairs).any()


def test_short_sequences_are_visited_whole() -> None:
    q = torch.zeros(1, 1, 500, 4)
    problem = make_problem(q, q, q, torch.tensor([100.0]), True, None, None, None, None, 0)
    pairs, _ = visited(problem, 64, 64, by_keys=False)
    assert (pairs | ~visible_pairs(problem)).all()


@pytest.mark.parametrize("by_keys", [False, True], ids=["keys of queries", "queries of keys"])
@pytest.mark.parametrize(("seq", "at_most"), [(2048, 0.75), (4096, 0.6), (8192, 0.5)])
def test_alibi_leaves_tiles_out(seq: int, at_most: float, by_keys: bool) -> None:
    """Of the causal tiles of all 40 heads with random-normal q and k."""
    rng = torch.Generator().manual_seed(0)
    q, k = (torch.randn(1, 40, seq, 128, generator=rng) for _ in range(2))

    def tiles(slopes: Tensor | None) -> int:
        problem = make_problem(q, k, k, slopes, True, None, None, None, None, 0)
        plan = (query_blocks if by_keys else key_blocks)(geometry_of(problem), q, k, 128, 64)
        start, _, stop = plan.expand(-1, 40, -1, -1).unbind(-1)
        return int((stop - start).sum())

    share = tiles(alibi_slopes(40)) / tiles(None)
    logger.info("%d tokens: %.0f %% of the causal tiles", seq, 100 * share)
    assert share < at_most


@pytest.mark.parametrize("by_keys", [False, True], ids=["keys of queries", "queries of keys"])
def test_segments_leave_tiles_out(by_keys: bool) -> None:
    """Eight documents of 512 tokens cost an eighth of one of 4,096, and a little at their edges."""
    q = torch.zeros(1, 1, 4096, 4)
    ids = torch.arange(1, 9).repeat_interleave(512)[None]
    problem = make_problem(q, q, q, None, False, ids, None, None, None, 0)
    pairs, clear = visited(problem, 64, 64, by_keys=by_keys)
    assert torch.equal(pairs, visible_pairs(problem))
    assert not clear.any()


@pytest.mark.parametrize("value", [float("inf"), float("nan"), 1e30])
def test_a_bound_that_fails_leaves_nothing_out(value: float) -> None:
    q = torch.zeros(1, 2, 600, 4)
    k = q.clone()
    k[0, 1, 17, 2] = value
    q[0, 1, 3, 2] = value
    problem = make_problem(q, k, k, torch.tensor([64.0, 64.0]), True, None, None, None, None, 0)
    for by_keys in (False, True):
        pairs, _ = visited(problem, 32, 32, by_keys=by_keys)
        missed = visible_pairs(problem) & ~pairs
        assert missed[0, 0].any()  # the head without the value
        rows = 3 if by_keys is False else slice(None)
        assert not missed[0, 1, rows].any()
