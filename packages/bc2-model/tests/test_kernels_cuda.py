"""The backends for CUDA on values: on a GPU, or our Triton kernels alone in Triton's interpreter.

The interpreter (TRITON_INTERPRET=1) runs a kernel's own code on a CPU, tile by tile;
test_kernels_triton.py starts it on this file, with tiles so small that every loop turns.
"""

from __future__ import annotations

import os

import pytest
import torch
from torch import Tensor

from bc2_model.kernels import alibi_slopes, attention
from bc2_model.kernels.backends import (
    cuda_flash_attn,
    cuda_flex,
    cuda_triton,
    cuda_triton_plan,
    reference,
    registry,
)
from bc2_model.kernels.backends.cuda_triton import Launch, Launches
from bc2_model.kernels.problem import make_problem

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
if not INTERPRETED and not torch.cuda.is_available():
    pytest.skip("no GPU; test_kernels_triton.py runs it interpreted", allow_module_level=True)
if INTERPRETED:
    pytest.importorskip("triton")

DEVICE = "cpu" if INTERPRETED else "cuda"
BACKENDS = [cuda_triton] if INTERPRETED else [cuda_flash_attn, cuda_triton, cuda_flex]
on_a_gpu = pytest.mark.skipif(INTERPRETED, reason="too large for the interpreter")

IDS = torch.tensor([[1] * 14 + [2] * 5 + [3] + [4] * 17 + [0] * 3, [0] * 9 + [7] * 31])
RETURNING = torch.tensor([[1] * 6 + [2] * 10 + [1] * 20 + [0] * 2 + [2] * 2])
CASES = {
    # batch, heads, kv_heads, queries, keys, head_dim, ids, shift
    "one token": (1, 2, 2, 1, 1, 16, None, None),
    "several tiles": (1, 2, 2, 66, 66, 16, None, None),
    "12 heads": (1, 12, 12, 5, 5, 16, None, None),
    "head_dim 24": (1, 1, 1, 20, 20, 24, None, None),
    "grouped": (2, 4, 2, 18, 18, 16, None, None),
    "multi-query": (1, 3, 1, 17, 17, 16, None, None),
    "decoding": (2, 2, 1, 1, 60, 16, None, None),
    "chunk after a cache": (1, 2, 1, 20, 50, 16, None, None),
    "more queries than keys": (1, 1, 1, 40, 25, 16, None, None),
    "queries past the keys": (1, 1, 1, 20, 30, 16, None, 25),
    "all queries past the keys": (1, 1, 1, 20, 30, 16, None, 500),
    "queries before the keys": (1, 1, 1, 20, 30, 16, None, -15),
    "nothing to see": (1, 1, 1, 20, 30, 16, None, -40),
    "segments": (2, 2, 1, 40, 40, 16, IDS, None),
    "segments in a chunk": (2, 1, 1, 20, 40, 16, IDS, 15),
    "a segment that returns": (1, 1, 1, 40, 40, 16, RETURNING, None),
    "padding only": (1, 2, 2, 9, 9, 16, torch.zeros(1, 9, dtype=torch.int32), None),
}


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    if INTERPRETED:
        small = Launches(Launch(32, 16, 1, 1), Launch(16, 32, 1, 1), Launch(32, 16, 1, 1))
        monkeypatch.setattr(cuda_triton, "launches", lambda dtype, head_dim: small)


def inputs_of(batch, heads, kv_heads, queries, keys, head_dim, dtype) -> list[Tensor]:
    """Returns q, k, v and the gradient of the output."""
    rng = torch.Generator().manual_seed(queries + keys)
    shapes = [(heads, queries), (kv_heads, keys), (kv_heads, keys), (heads, queries)]
    made = [torch.randn(batch, *shape, head_dim, generator=rng) for shape in shapes]
    return [x.to(DEVICE, dtype) for x in made]


def run(backend, inputs: list[Tensor], dtype: torch.dtype, **options) -> tuple[Tensor, ...]:
    """Returns the output and the gradients of q, k and v; skips what the backend cannot do."""
    *qkv, grad = [x.detach().to(dtype) for x in inputs]
    leaves = [x.requires_grad_() for x in qkv]
    arguments = {"alibi_slopes": None, "causal": True, "segment_ids": None, "cu_seqlens": None}
    arguments |= {"scale": None, "q_offset": None, "k_offset": 0} | options
    problem = make_problem(*leaves, **arguments)
    if not INTERPRETED and (reason := backend.unsupported_reason(problem)):
        pytest.skip(reason)
    out = backend.attention(problem)
    return out, *torch.autograd.grad(out, leaves, grad)


def gold(inputs: list[Tensor], **options) -> tuple[Tensor, ...]:
    return run(reference, inputs, torch.float64, **options)


def eager(inputs: list[Tensor], dtype: torch.dtype, slopes: Tensor | None) -> tuple[Tensor, ...]:
    """The official eager code, causal: every step in one dtype."""
    *qkv, grad = [x.to(dtype) for x in inputs]
    q, k, v = leaves = [x.requires_grad_() for x in qkv]
    seq, head_dim = q.shape[2:]
    rows = torch.arange(seq, device=q.device)
    distance = rows[:, None] - rows
    bias = torch.zeros_like(distance) if slopes is None else -slopes[:, None, None] * distance
    bias = bias.float().masked_fill(distance < 0, -torch.inf).to(dtype)
    out = (q @ k.transpose(-1, -2) / head_dim**0.5 + bias).softmax(-1) @ v
    return out, *torch.autograd.grad(out, leaves, grad)


def assert_close(result: tuple[Tensor, ...], expected: tuple[Tensor, ...]) -> None:
    """float32: relative to the norm, 5e-6 for the output and 1e-5 for the gradients."""
    for limit, got, want in zip((5e-6, 1e-5, 1e-5, 1e-5), result, expected, strict=True):
        assert got.shape == want.shape
        assert not got.isnan().any()
        assert (got.double() - want).norm() <= limit * want.norm().clamp(min=0.1)


def assert_as_good_as_eager(result, baseline, expected) -> None:
    """16 bits: the largest error at most twice eager's, thrice for gradients; the mean no worse."""
    for factor, got, other, want in zip((2, 3, 3, 3), result, baseline, expected, strict=True):
        error, allowed = (got - want).abs(), (other - want).abs()
        assert error.max() <= factor * allowed.max()
        assert error.mean() <= 1.1 * allowed.mean()


@pytest.mark.parametrize("alibi", [True, False], ids=["alibi", "plain"])
@pytest.mark.parametrize("causal", [True, False], ids=["causal", "full"])
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("backend", BACKENDS, ids=lambda backend: backend.NAME)
def test_float32_matches_float64(backend, case: str, causal: bool, alibi: bool) -> None:
    *shape, ids, shift = CASES[case]
    inputs = inputs_of(*shape, torch.float32)
    options = {
        "alibi_slopes": alibi_slopes(shape[1]).to(DEVICE) if alibi else None,
        "causal": causal,
        "segment_ids": None if ids is None else ids.to(DEVICE),
        "q_offset": shift,
    }
    result = run(backend, inputs, torch.float32, **options)
    expected = gold(inputs, **options)
    assert_close(result, expected)
    unseen = expected[0] == 0  # rows that see no key
    assert result[0][unseen].eq(0).all()
    assert result[1][unseen].eq(0).all()


@pytest.mark.parametrize("alibi", [True, False], ids=["alibi", "plain"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("backend", BACKENDS, ids=lambda backend: backend.NAME)
def test_16_bits_are_as_good_as_eager(backend, dtype: torch.dtype, alibi: bool) -> None:
    inputs = inputs_of(1, 4, 4, 50, 50, 16, dtype)
    slopes = alibi_slopes(4).to(DEVICE) if alibi else None
    result = run(backend, inputs, dtype, alibi_slopes=slopes)
    assert all(x.dtype == dtype for x in result)
    baseline = eager(inputs, dtype, slopes)
    assert_as_good_as_eager(result, baseline, gold(inputs, alibi_slopes=slopes))


@pytest.mark.parametrize("backend", BACKENDS, ids=lambda backend: backend.NAME)
def test_strided_tensors(backend) -> None:
    """The views of a fused projection, (batch, seq, 3, heads, head_dim), and a broadcast grad."""
    dtype = torch.float32 if INTERPRETED else torch.bfloat16
    packed = torch.randn(2, 40, 3, 2, 16, generator=torch.Generator().manual_seed(0))
    packed = packed.to(DEVICE, dtype).requires_grad_()
    slopes = alibi_slopes(2).to(DEVICE)

    def grads(solve, x: Tensor) -> tuple[Tensor, Tensor]:
        q, k, v = x.permute(2, 0, 3, 1, 4)
        problem = make_problem(q, k, v, slopes, True, None, None, 0.3, None, 0)
        if not INTERPRETED and (reason := backend.unsupported_reason(problem)):
            pytest.skip(reason)
        out = solve(problem)
        return out, torch.autograd.grad(out.sum(), x)[0]

    result = grads(backend.attention, packed)
    expected = grads(reference.attention, packed)
    for got, want in zip(result, expected, strict=True):
        torch.testing.assert_close(got, want)


@pytest.mark.parametrize("backend", BACKENDS, ids=lambda backend: backend.NAME)
def test_far_keys_that_are_left_out_do_not_count(backend, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda_triton_plan, "WINDOW_FROM", 1)
    seq = 100 if INTERPRETED else 3000
    for causal in (True, False):
        inputs = inputs_of(1, 2, 1, seq, seq, 16, torch.float32)
        options = {"alibi_slopes": torch.tensor([8.0, 1.0]).to(DEVICE), "causal": causal}
        result = run(backend, inputs, torch.float32, **options)
        assert_close(result, gold(inputs, **options))


@pytest.mark.parametrize("backend", BACKENDS, ids=lambda backend: backend.NAME)
def test_a_far_key_that_outweighs_its_distance_counts(backend, monkeypatch) -> None:
    """Large queries and keys widen what has to be computed: here the first key wins every row."""
    monkeypatch.setattr(cuda_triton_plan, "WINDOW_FROM", 1)
    seq = 100 if INTERPRETED else 1500
    dtype = torch.float32 if backend is not cuda_flash_attn else torch.bfloat16
    q, k, v = (torch.zeros(1, 1, seq, 16, device=DEVICE) for _ in range(3))
    q[..., 0] = 60.0
    k[..., 0] = -60.0
    k[:, :, 0, 0] = 60.0  # 1,800 above the other scores, against a bias of at most 1,700
    v[:, :, 0] = 1.0
    slopes = torch.full((1,), 1700 / seq, device=DEVICE)
    out, *_ = run(backend, [q, k, v, v], dtype, alibi_slopes=slopes)
    torch.testing.assert_close(out.float(), torch.ones_like(q))


@pytest.mark.parametrize("backend", BACKENDS, ids=lambda backend: backend.NAME)
def test_a_nan_stays_in_its_row(backend) -> None:
    inputs = inputs_of(1, 1, 1, 40, 40, 16, torch.float32)
    dtype = torch.bfloat16 if backend is cuda_flash_attn else torch.float32
    slopes = alibi_slopes(1).to(DEVICE)
    clean, *_ = run(backend, inputs, dtype, alibi_slopes=slopes)
    inputs[0] = inputs[0].index_fill(2, torch.tensor(30, device=DEVICE), torch.nan)
    out, *_ = run(backend, inputs, dtype, alibi_slopes=slopes)
    assert out[:, :, 30].isnan().all()
    others = torch.arange(40) != 30
    torch.testing.assert_close(out[:, :, others], clean[:, :, others])


@on_a_gpu
@pytest.mark.parametrize("backend", BACKENDS, ids=lambda backend: backend.NAME)
def test_bfloat16_at_4096_with_40_heads(backend) -> None:
    """An absolute bias in bfloat16 has an error of 0.7 here."""
    inputs = inputs_of(1, 40, 40, 4096, 4096, 128, torch.bfloat16)
    slopes = alibi_slopes(40).to(DEVICE)
    result = run(backend, inputs, torch.bfloat16, alibi_slopes=slopes)
    for head in (0, 11, 32, 39):
        part = [x[:, head : head + 1] for x in inputs]
        expected = gold(part, alibi_slopes=slopes[head : head + 1])
        for got, want in zip(result, expected, strict=True):
            mine = got[:, head : head + 1].double()
            assert (mine - want).norm() <= 5e-3 * want.norm()


@on_a_gpu
def test_triton_gives_the_same_bits_every_time() -> None:
    inputs = inputs_of(2, 8, 2, 1000, 1000, 128, torch.bfloat16)
    slopes = alibi_slopes(8).to(DEVICE)
    first = run(cuda_triton, inputs, torch.bfloat16, alibi_slopes=slopes)
    second = run(cuda_triton, inputs, torch.bfloat16, alibi_slopes=slopes)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@on_a_gpu
def test_auto_and_the_family_take_a_backend_for_cuda() -> None:
    q = torch.randn(1, 2, 64, 64, device=DEVICE, dtype=torch.bfloat16)
    problem = make_problem(q, q, q, None, True, None, None, None, None, 0)
    assert registry.select(problem) in BACKENDS
    assert attention(q, q, q, backend="cuda").isfinite().all()
