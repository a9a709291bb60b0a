"""Every backend of attention against a float64 gold that shares no code with them."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from bc2_model.kernels import KernelError, alibi_slopes, attention
from bc2_model.kernels.backends import cpu, cpu_tiles, reference

NAMES = [cpu.NAME, reference.NAME]
# Relative to the largest element; float32 rounding of the ALiBi term dominates.
TOLERANCE = {torch.float64: 1e-12, torch.float32: 2e-6, torch.bfloat16: 2e-2, torch.float16: 3e-3}

Result = tuple[Tensor, Tensor, Tensor, Tensor]


def gold(q, k, v, *, slopes=None, causal=True, ids=None, scale=None, shift=None) -> Tensor:
    """Attention by the definition: a pair of positions at a time decides what is seen."""
    batch, heads, queries, head_dim = q.shape
    keys = k.shape[2]
    shift = keys - queries if shift is None else shift
    ids = [[1] * keys] * batch if ids is None else ids.tolist()

    def seen(b: int, i: int, j: int) -> bool:
        if causal and j > i:
            return False
        return True if not 0 <= i < keys else ids[b][i] == ids[b][j] != 0

    positions = [row + shift for row in range(queries)]
    visible = torch.tensor(
        [[[[seen(b, i, j) for j in range(keys)] for i in positions]] for b in range(batch)]
    )
    out = []
    for head in range(heads):
        kv_head = head * k.shape[1] // heads
        scores = torch.einsum("bid,bjd->bij", q[:, head], k[:, kv_head])
        scores = scores * (head_dim**-0.5 if scale is None else scale)
        if slopes is not None:
            distance = torch.tensor([[abs(i - j) for j in range(keys)] for i in positions])
            scores = scores - slopes[head].double() * distance.double()
        weights = scores.exp() * visible[:, 0]
        total = weights.sum(-1, keepdim=True)
        out.append(weights / total.where(total > 0, 1.0) @ v[:, kv_head])
    return torch.stack(out, dim=1)


def tensors(batch, heads, kv_heads, queries, keys, head_dim, seed=0) -> list[Tensor]:
    """Returns q, k, v and the gradient of the output, float64."""
    rng = torch.Generator().manual_seed(seed)
    shapes = [(heads, queries), (kv_heads, keys), (kv_heads, keys), (heads, queries)]
    return [
        torch.randn(batch, *shape, head_dim, generator=rng, dtype=torch.float64) for shape in shapes
    ]


def run(function: Callable[..., Tensor], inputs: list[Tensor], dtype: torch.dtype) -> Result:
    """Returns the output and the gradients of q, k and v."""
    *qkv, grad = [x.to(dtype) for x in inputs]
    leaves = [x.requires_grad_() for x in qkv]
    out = function(*leaves)
    return out, *torch.autograd.grad(out, leaves, grad)


def assert_close(result: Result, expected: Result, tolerance: float) -> None:
    for name, got, want in zip(("out", "dq", "dk", "dv"), result, expected, strict=True):
        assert got.shape == want.shape
        error = (got.double() - want).abs().max().item()
        limit = tolerance * max(want.abs().max().item(), 0.1)
        assert error <= limit, f"{name}: error {error:.2e} exceeds {limit:.2e}"


def attention_or_skip(*args: Tensor, **options: object) -> Tensor:
    try:
        return attention(*args, **options)
    except KernelError as error:
        if "cannot run this" not in str(error):
            raise
        pytest.skip(str(error))


IDS = torch.tensor([[1] * 20 + [2] * 7 + [3] + [4] * 30 + [0] * 6, [0] * 9 + [7] * 55])
RETURNING = torch.tensor([[1] * 10 + [2] * 20 + [1] * 30 + [0] * 2 + [2] * 2])
CASES = {
    # batch, heads, kv_heads, queries, keys, ids, shift
    "one token": (1, 2, 2, 1, 1, None, None),
    "short": (2, 3, 3, 7, 7, None, None),
    "ragged": (1, 2, 2, 300, 300, None, None),
    "several blocks": (1, 2, 2, 600, 600, None, None),
    "40 heads": (1, 40, 40, 40, 40, None, None),
    "grouped": (2, 6, 2, 50, 50, None, None),
    "multi-query": (2, 4, 1, 33, 33, None, None),
    "decoding": (2, 4, 2, 1, 290, None, None),
    "chunk after a cache": (1, 4, 2, 30, 290, None, None),
    "more queries than keys": (1, 2, 2, 12, 5, None, None),
    "queries past the keys": (1, 2, 2, 20, 30, None, 25),
    "all queries past the keys": (1, 2, 2, 20, 30, None, 500),
    "queries before the keys": (1, 2, 2, 20, 30, None, -15),
    "nothing to see": (1, 2, 2, 20, 30, None, -40),
    "segments": (2, 4, 2, 64, 64, IDS, None),
    "segments while decoding": (2, 4, 2, 1, 64, IDS, None),
    "segments in a chunk": (2, 4, 2, 20, 64, IDS, 15),
    "a segment that returns": (1, 2, 2, 64, 64, RETURNING, None),
    "padding only": (1, 2, 2, 9, 9, torch.zeros(1, 9, dtype=torch.int32), None),
}


@pytest.mark.parametrize("alibi", [True, False], ids=["alibi", "plain"])
@pytest.mark.parametrize("causal", [True, False], ids=["causal", "full"])
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("backend", NAMES)
def test_matches_the_definition(backend: str, case: str, causal: bool, alibi: bool) -> None:
    batch, heads, kv_heads, queries, keys, ids, shift = CASES[case]
    inputs = tensors(batch, heads, kv_heads, queries, keys, head_dim=16)
    slopes = alibi_slopes(heads) if alibi else None

    def ours(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return attention_or_skip(
            q,
            k,
            v,
            alibi_slopes=slopes,
            causal=causal,
            segment_ids=ids,
            q_offset=shift,
            backend=backend,
        )

    def by_definition(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return gold(q, k, v, slopes=slopes, causal=causal, ids=ids, shift=shift)

    expected = run(by_definition, inputs, torch.float64)
    for dtype in (torch.float64, torch.float32):
        assert_close(run(ours, inputs, dtype), expected, TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("backend", NAMES)
def test_takes_16_bits(backend: str, dtype: torch.dtype) -> None:
    inputs = [x.to(dtype).double() for x in tensors(1, 4, 2, 300, 300, head_dim=16)]
    slopes = alibi_slopes(4)
    result = run(
        lambda q, k, v: attention(q, k, v, alibi_slopes=slopes, backend=backend), inputs, dtype
    )
    assert all(x.dtype == dtype for x in result)
    expected = run(lambda q, k, v: gold(q, k, v, slopes=slopes), inputs, torch.float64)
    assert_close(result, expected, TOLERANCE[dtype])


@pytest.mark.parametrize("backend", NAMES)
def test_scale_is_taken(backend: str) -> None:
    inputs = tensors(1, 2, 2, 9, 9, head_dim=8)
    for scale in (0.05, 2):
        result = run(
            lambda q, k, v, s=scale: attention(q, k, v, scale=s, backend=backend),
            inputs,
            torch.float64,
        )
        expected = run(lambda q, k, v, s=scale: gold(q, k, v, scale=s), inputs, torch.float64)
        assert_close(result, expected, 1e-12)


@pytest.mark.parametrize("backend", NAMES)
def test_any_strides(backend: str) -> None:
    """Transposed layouts, a strided last dimension and an expanded gradient give the same."""
    q, k, v, _ = tensors(2, 4, 2, 20, 20, head_dim=8)
    slopes = alibi_slopes(4)
    plain = run(
        lambda *qkv: attention(*qkv, alibi_slopes=slopes, backend=backend),
        [q, k, v, torch.ones_like(q)],
        torch.float64,
    )
    leaves = [
        x.transpose(dims[0], dims[1]).contiguous().transpose(dims[0], dims[1]).requires_grad_()
        for x, dims in zip((q, k, v), ((1, 2), (2, 3), (1, 3)), strict=True)
    ]
    out = attention(*leaves, alibi_slopes=slopes, backend=backend)
    grads = torch.autograd.grad(out.sum(), leaves)
    assert_close((out, *grads), plain, 1e-12)


@pytest.mark.parametrize("backend", NAMES)
def test_rows_that_see_nothing_give_zeros(backend: str) -> None:
    inputs = tensors(2, 4, 2, 64, 64, head_dim=8)
    slopes = alibi_slopes(4)
    out, grad_q, grad_k, grad_v = run(
        lambda q, k, v: attention(q, k, v, alibi_slopes=slopes, segment_ids=IDS, backend=backend),
        inputs,
        torch.float32,
    )
    padding = (IDS == 0)[:, None, :, None]
    assert padding.any()
    for x in (out, grad_q, grad_k, grad_v):
        assert not x.isnan().any()
        assert x.masked_select(padding).eq(0).all()
        assert x.masked_select(~padding).ne(0).any()


@pytest.mark.parametrize("backend", NAMES)
def test_packed_equals_a_loop_over_the_documents(backend: str) -> None:
    lengths = [3, 261, 1, 35]
    bounds = [0, *itertools.accumulate(lengths)]
    inputs = tensors(1, 4, 4, bounds[-1], bounds[-1], head_dim=16)
    slopes = alibi_slopes(4)
    ids = torch.repeat_interleave(torch.arange(1, 5), torch.tensor(lengths))[None]

    def loop(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        documents = [
            attention(*(x[:, :, a:b] for x in (q, k, v)), alibi_slopes=slopes, backend=backend)
            for a, b in itertools.pairwise(bounds)
        ]
        return torch.cat(documents, dim=2)

    expected = run(loop, inputs, torch.float64)
    for packing in ({"segment_ids": ids}, {"cu_seqlens": torch.tensor(bounds, dtype=torch.int32)}):
        result = run(
            lambda *qkv, p=packing: attention(*qkv, alibi_slopes=slopes, backend=backend, **p),
            inputs,
            torch.float64,
        )
        assert_close(result, expected, 1e-12)


@pytest.mark.parametrize("ids", [None, IDS[:1]], ids=["whole", "segments"])
@pytest.mark.parametrize("backend", NAMES)
def test_context_parallel_parts_equal_the_whole(backend: str, ids: Tensor | None) -> None:
    """Local queries against all gathered keys, as each of four ranks computes them."""
    inputs = tensors(1, 4, 4, 64, 64, head_dim=16)
    slopes = alibi_slopes(4)
    options = {"alibi_slopes": slopes, "segment_ids": ids, "backend": backend}

    def parts(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        starts = range(0, 64, 16)
        return torch.cat(
            [
                attention(q[:, :, a : a + 16], k, v, q_offset=1000 + a, k_offset=1000, **options)
                for a in starts
            ],
            dim=2,
        )

    whole = run(lambda *qkv: attention(*qkv, **options), inputs, torch.float64)
    assert_close(run(parts, inputs, torch.float64), whole, 1e-12)


@pytest.mark.parametrize("backend", NAMES)
def test_only_the_difference_of_the_offsets_counts(backend: str) -> None:
    q, k, v, _ = tensors(1, 4, 4, 300, 300, head_dim=16)
    options = {"alibi_slopes": alibi_slopes(4), "backend": backend}
    near = attention(q, k, v, q_offset=17, k_offset=5, **options)
    far = attention(q, k, v, q_offset=10**9 + 17, k_offset=10**9 + 5, **options)
    assert torch.equal(near, far)
    aligned = attention(q[:, :, -7:], k, v, **options)
    assert torch.equal(aligned, attention(q[:, :, -7:], k, v, q_offset=293, **options))


@pytest.mark.parametrize("backend", NAMES)
def test_gradcheck(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu_tiles, "ALIBI_BLOCK", 3)
    q, k, v, _ = (x.requires_grad_() for x in tensors(1, 4, 2, 5, 8, head_dim=3))
    ids = torch.tensor([[1, 1, 2, 2, 1, 1, 1, 0]])
    for slopes, segment_ids in ((alibi_slopes(4), None), (alibi_slopes(4), ids), (None, ids)):
        assert torch.autograd.gradcheck(
            lambda *qkv, s=slopes, i=segment_ids: attention(
                *qkv, alibi_slopes=s, segment_ids=i, backend=backend
            ),
            (q, k, v),
        )


@st.composite
def problems(draw: st.DrawFn) -> dict[str, object]:
    keys = draw(st.integers(1, 24))
    queries = draw(st.integers(1, 24))
    ids = shift = None
    if draw(st.booleans()):
        queries = min(queries, keys)
        shift = draw(st.integers(0, keys - queries))
        ids = torch.tensor([draw(st.lists(st.integers(0, 3), min_size=keys, max_size=keys))])
    else:
        shift = draw(st.none() | st.integers(-30, 60))
    kv_heads = draw(st.integers(1, 2))
    return {
        "shape": (1, kv_heads * draw(st.integers(1, 3)), kv_heads, queries, keys, 4),
        "ids": ids,
        "shift": shift,
        "alibi": draw(st.booleans()),
        "causal": draw(st.booleans()),
        "block": draw(st.integers(1, 9)),
        "seed": draw(st.integers(0, 99)),
    }


@pytest.mark.parametrize("backend", NAMES)
@settings(max_examples=60, deadline=None)
@given(problem=problems())
def test_any_shape_offset_and_segments(backend: str, problem: dict[str, object]) -> None:
    inputs = tensors(*problem["shape"], seed=problem["seed"])
    slopes = alibi_slopes(problem["shape"][1]) if problem["alibi"] else None
    causal = problem["causal"] or slopes is not None
    shift = problem["shift"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cpu_tiles, "ALIBI_BLOCK", problem["block"])
        result = run(
            lambda *qkv: attention(
                *qkv,
                alibi_slopes=slopes,
                causal=causal,
                segment_ids=problem["ids"],
                q_offset=shift,
                backend=backend,
            ),
            inputs,
            torch.float64,
        )
    expected = run(
        lambda *qkv: gold(*qkv, slopes=slopes, causal=causal, ids=problem["ids"], shift=shift),
        inputs,
        torch.float64,
    )
    assert_close(result, expected, 1e-12)
