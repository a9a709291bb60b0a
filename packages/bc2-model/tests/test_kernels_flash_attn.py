"""The calls into flash-attn, against a stand-in that computes what its docstrings say.

Whether flash-attn itself computes that is tested in test_kernels_cuda.py, where there is a GPU.
"""

from __future__ import annotations

import itertools
import sys
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from bc2_model.kernels import alibi_slopes
from bc2_model.kernels.backends import cuda_flash_attn, reference
from bc2_model.kernels.problem import AttentionProblem, make_problem


def flash_attn_func(q, k, v, *, softmax_scale, causal, alibi_slopes, deterministic) -> Tensor:
    """(batch, seq, heads, head_dim); the bias -slope * |i + seqlen_k - seqlen_q - j|."""
    assert isinstance(deterministic, bool)
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    group = q.shape[1] // k.shape[1]
    k, v = (x.repeat_interleave(group, 1) for x in (k, v))
    rows = torch.arange(q.shape[2]) + k.shape[2] - q.shape[2]
    distance = rows[:, None] - torch.arange(k.shape[2])
    scores = softmax_scale * q.double() @ k.double().mT
    if alibi_slopes is not None:
        assert alibi_slopes.dtype == torch.float32
        scores = scores - alibi_slopes[:, None, None] * distance.abs()
    if causal:
        scores = scores.masked_fill(distance < 0, -torch.inf)
    return (scores.softmax(-1).nan_to_num() @ v.double()).to(q.dtype).transpose(1, 2)


def flash_attn_varlen_func(
    q, k, v, *, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k, **options
) -> Tensor:
    """(tokens, heads, head_dim), one sequence after the other."""
    assert cu_seqlens_q.dtype == cu_seqlens_k.dtype == torch.int32
    assert cu_seqlens_q.diff().max() == max_seqlen_q == max_seqlen_k
    parts = []
    for a, b in itertools.pairwise(cu_seqlens_q.tolist()):
        parts.append(flash_attn_func(*(x[a:b][None] for x in (q, k, v)), **options)[0])
    return torch.cat(parts)


@pytest.fixture(autouse=True)
def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    library = SimpleNamespace(
        __version__="stand-in",
        flash_attn_func=flash_attn_func,
        flash_attn_varlen_func=flash_attn_varlen_func,
    )
    monkeypatch.setitem(sys.modules, "flash_attn", library)
    cuda_flash_attn._library.cache_clear()
    yield
    cuda_flash_attn._library.cache_clear()


IDS = torch.tensor([[1] * 5 + [2] * 7 + [3] + [0] * 3, [0] * 2 + [4] * 14])
CASES = {
    "whole": (1, 4, 4, 9, 9, None),
    "grouped": (2, 6, 2, 9, 9, None),
    "decoding": (2, 4, 2, 1, 9, None),
    "chunk after a cache": (1, 4, 4, 4, 9, None),
    "more queries than keys": (1, 4, 4, 9, 4, None),
    "segments and padding": (2, 4, 2, 16, 16, IDS),
    "segments alone": (1, 4, 2, 16, 16, torch.tensor([[1] * 4 + [5] * 12])),
}


def a_problem(case: str, causal: bool, alibi: bool, dtype: torch.dtype) -> AttentionProblem:
    batch, heads, kv_heads, queries, keys, ids = CASES[case]
    rng = torch.Generator().manual_seed(0)
    shapes = [(heads, queries), (kv_heads, keys), (kv_heads, keys)]
    q, k, v = (
        torch.randn(batch, *shape, 8, generator=rng).to(dtype).requires_grad_() for shape in shapes
    )
    slopes = alibi_slopes(heads) if alibi else None
    return make_problem(q, k, v, slopes, causal, ids, None, 0.4, None, 0)


@pytest.mark.parametrize("alibi", [True, False], ids=["alibi", "plain"])
@pytest.mark.parametrize("causal", [True, False], ids=["causal", "full"])
@pytest.mark.parametrize("case", CASES)
def test_calls_mean_what_the_problem_says(case: str, causal: bool, alibi: bool) -> None:
    problem = a_problem(case, causal, alibi, torch.float32)
    leaves = (problem.q, problem.k, problem.v)
    expected = reference.attention(problem)
    out = cuda_flash_attn.attention(problem)
    torch.testing.assert_close(out, expected)
    grad = torch.randn(out.shape, generator=torch.Generator().manual_seed(1))
    for got, want in zip(
        torch.autograd.grad(out, leaves, grad),
        torch.autograd.grad(expected, leaves, grad),
        strict=True,
    ):
        torch.testing.assert_close(got, want)


@pytest.mark.parametrize("case", CASES)
def test_takes_bfloat16(case: str) -> None:
    assert cuda_flash_attn._shape_reason(a_problem(case, True, True, torch.bfloat16)) is None


def refused(
    heads: int = 2,
    queries: int = 8,
    keys: int = 8,
    head_dim: int = 8,
    dtype: torch.dtype = torch.bfloat16,
    ids: list[int] | None = None,
    shift: int | None = None,
    causal: bool = True,
) -> str | None:
    q = torch.zeros(1, heads, queries, head_dim, dtype=dtype)
    k = torch.zeros(1, heads, keys, head_dim, dtype=dtype)
    segment_ids = None if ids is None else torch.tensor([ids])
    problem = make_problem(q, k, k, None, causal, segment_ids, None, None, shift, 0)
    return cuda_flash_attn._shape_reason(problem)


def test_what_it_cannot_do_has_a_reason() -> None:
    assert "float32" in refused(dtype=torch.float32)
    assert "head_dim 12" in refused(head_dim=12)
    assert "head_dim 264" in refused(head_dim=264)
    assert "last query" in refused(shift=3)
    assert refused(shift=3, causal=False) is None  # without bias and mask positions do not matter
    assert "every query" in refused(queries=4, ids=[1] * 8)
    assert "several places" in refused(ids=[1, 1, 2, 2, 1, 1, 1, 1])
    assert "padding" in refused(ids=[0] * 8)


def test_a_library_that_is_too_old_or_broken_has_a_reason(monkeypatch) -> None:
    old = SimpleNamespace(__version__="2.3", flash_attn_func=lambda q, k, v: q)
    monkeypatch.setitem(sys.modules, "flash_attn", old)
    cuda_flash_attn._library.cache_clear()
    assert cuda_flash_attn._library() == "flash_attn 2.3 has no alibi_slopes: install 2.4 or later"
    monkeypatch.setitem(sys.modules, "flash_attn", None)
    cuda_flash_attn._library.cache_clear()
    assert "cannot be imported" in cuda_flash_attn._library()
