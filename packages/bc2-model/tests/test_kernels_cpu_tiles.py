"""The plan of the CPU backend: every visible pair once, and only as much as ALiBi needs."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bc2_model.kernels import alibi_slopes, attention
from bc2_model.kernels.backends import cpu, cpu_tiles, reference
from bc2_model.kernels.backends.cpu_tiles import Tile, plan, skip_far_keys
from bc2_model.kernels.problem import AttentionProblem, make_problem


def a_problem(
    queries: int, keys: int, shift: int | None = None, ids: object = None, alibi: bool = True
) -> AttentionProblem:
    q, kv = torch.zeros(1, 1, queries, 2), torch.zeros(1, 1, keys, 2)
    slopes = alibi_slopes(1) if alibi else None
    segment_ids = None if ids is None else torch.tensor([ids])
    return make_problem(q, kv, kv, slopes, True, segment_ids, None, None, shift, 0)


def computed(tiles: list[Tile], queries: int, keys: int) -> torch.Tensor:
    """Returns how often each pair is computed."""
    count = torch.zeros(queries, keys, dtype=torch.int64)
    for tile in tiles:
        part = torch.ones(len(tile.rows), len(tile.keys), dtype=torch.int64)
        if tile.causal:
            part = part.tril()
        assert part.any(1).all(), "a row of a tile must see a key"
        count[tile.rows.start : tile.rows.stop, tile.keys.start : tile.keys.stop] += part
    return count


@settings(max_examples=150, deadline=None)
@given(
    queries=st.integers(1, 30),
    keys=st.integers(1, 30),
    shift=st.none() | st.integers(-40, 70),
    block=st.integers(1, 12),
    alibi=st.booleans(),
)
def test_every_visible_pair_is_computed_once(queries, keys, shift, block, alibi) -> None:
    problem = a_problem(queries, keys, shift, alibi=alibi)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cpu_tiles, "ALIBI_BLOCK", block)
        tiles = list(plan(problem))
    visible = reference._visible(problem, reference._distance(problem))
    assert torch.equal(computed(tiles, queries, keys), visible.long())


@settings(max_examples=150, deadline=None)
@given(ids=st.lists(st.integers(0, 3), min_size=1, max_size=40), block=st.integers(1, 12))
def test_every_segment_is_computed_once(ids: list[int], block: int) -> None:
    problem = a_problem(len(ids), len(ids), ids=ids)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cpu_tiles, "ALIBI_BLOCK", block)
        tiles = list(plan(problem))
    visible = reference._visible(problem, reference._distance(problem))[0, 0]
    assert torch.equal(computed(tiles, len(ids), len(ids)), visible.long())


def test_calls_are_few() -> None:
    assert len(list(plan(a_problem(256, 256)))) == 1
    assert len(list(plan(a_problem(4096, 4096)))) == 16 + 15
    assert len(list(plan(a_problem(4096, 4096, alibi=False)))) == 1
    assert len(list(plan(a_problem(1, 4096)))) == 1
    assert len(list(plan(a_problem(30, 300, alibi=False)))) == 2


@settings(max_examples=100, deadline=None)
@given(
    queries=st.integers(1, 30),
    keys=st.integers(1, 30),
    shift=st.none() | st.integers(0, 70),
    windows=st.lists(st.integers(1, 40), min_size=1, max_size=7),
    group=st.integers(1, 4),
)
def test_keys_within_the_window_stay(queries, keys, shift, windows, group) -> None:
    problem = a_problem(queries, keys, shift)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cpu_tiles, "ALIBI_BLOCK", 4)
        tiles = [
            Tile(tile.batch, slice(0, len(windows)), tile.rows, tile.keys, tile.causal)
            for tile in plan(problem)
        ]
        kept = list(skip_far_keys(iter(tiles), windows, group, keys - 1, problem.shift))
    distance = reference._distance(problem)
    visible = reference._visible(problem, distance)
    from_nearest = distance - distance.amin(1, keepdim=True).clamp(min=0)
    for head, window in enumerate(windows):
        mine = [tile for tile in kept if tile.heads.start <= head < tile.heads.stop]
        count = computed(mine, queries, keys)
        assert (count <= visible.long()).all()
        assert count[visible & (from_nearest <= window)].eq(1).all()


def test_steep_slopes_compute_less(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the pairs left of the diagonal blocks, of all 40 heads; with few threads."""
    areas: list[int] = []

    def area(tiles: list[Tile]) -> int:
        far = [tile for tile in tiles if not tile.causal]
        return sum((t.heads.stop - t.heads.start) * len(t.rows) * len(t.keys) for t in far)

    def measured(tiles: Iterator[Tile], *rest: object) -> list[Tile]:
        complete = list(tiles)
        kept = list(skip_far_keys(iter(complete), *rest))
        areas.extend((area(complete), area(kept)))
        return kept

    monkeypatch.setattr(cpu, "skip_far_keys", measured)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    q, k, v = (torch.randn(1, 40, 2048, 8) for _ in range(3))
    with torch.no_grad():
        attention(q, k, v, alibi_slopes=alibi_slopes(40), backend="cpu")
    complete, kept = areas
    assert kept < 0.65 * complete
