"""Rounding errors of every backend at the lengths that Baichuan2 is trained with.

ALiBi's traps: slope * j reaches thousands, so a bias that is kept relative to the start of the
sequence costs digits in float32 and is garbage in 16 bits.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from bc2_model.kernels import alibi_slopes, attention
from bc2_model.kernels.backends import cpu, reference

NAMES = [cpu.NAME, reference.NAME]
LAST = 256
"""Queries with an upstream gradient: the last ones, which are furthest from the start."""


def qkv(heads: int, seq: int, dtype: torch.dtype, head_dim: int = 64) -> list[Tensor]:
    rng = torch.Generator().manual_seed(heads + seq)
    return [torch.randn(1, heads, seq, head_dim, generator=rng).to(dtype) for _ in range(3)]


def last_rows(
    inputs: list[Tensor], slopes: Tensor, backend: str, dtype: torch.dtype
) -> tuple[Tensor, ...]:
    """Returns the last rows of the output and the gradients that flow from them alone."""
    leaves = [x.to(dtype).requires_grad_() for x in inputs]
    out = attention(*leaves, alibi_slopes=slopes, backend=backend)[:, :, -LAST:]
    grad = torch.randn(out.shape, generator=torch.Generator().manual_seed(1)).to(inputs[0].dtype)
    grads = torch.autograd.grad(out, leaves, grad.to(dtype))
    return out.detach(), grads[0][:, :, -LAST:], *grads[1:]


def gold_last_rows(inputs: list[Tensor], slopes: Tensor) -> tuple[Tensor, ...]:
    q, k, v = inputs
    return last_rows([q[:, :, -LAST:], k, v], slopes, "reference", torch.float64)


def relative(got: Tensor, want: Tensor) -> float:
    return ((got.double() - want).norm() / want.norm()).item()


@pytest.mark.parametrize("backend", NAMES)
def test_float32_at_4096(backend: str) -> None:
    """A bias relative to the first key has an error of 2e-5 here."""
    slopes = alibi_slopes(40)[[32, 11]]  # the steepest and a middle one: 0.917 and 1/8
    inputs = qkv(2, 4096, torch.float32)
    result = last_rows(inputs, slopes, backend, torch.float32)
    for got, want in zip(result, gold_last_rows(inputs, slopes), strict=True):
        assert relative(got, want) < 5e-6


@pytest.mark.parametrize("backend", NAMES)
def test_bfloat16_at_4096(backend: str) -> None:
    """An absolute bias in bfloat16 has an error of 0.7 here."""
    slopes = alibi_slopes(40)[[32, 11]]
    inputs = qkv(2, 4096, torch.bfloat16)
    result = last_rows(inputs, slopes, backend, torch.bfloat16)
    for got, want in zip(result, gold_last_rows(inputs, slopes), strict=True):
        assert relative(got, want) < 5e-3


def eager(q: Tensor, k: Tensor, v: Tensor, slopes: Tensor) -> Tensor:
    """The official eager code: every step in the dtype of q."""
    seq, head_dim = q.shape[2:]
    distance = torch.arange(seq)[:, None] - torch.arange(seq)
    bias = (-slopes[:, None, None] * distance).masked_fill(distance < 0, -torch.inf).to(q.dtype)
    return (q @ k.transpose(-1, -2) / head_dim**0.5 + bias).softmax(-1) @ v


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("backend", NAMES)
def test_16_bits_against_eager(backend: str, dtype: torch.dtype) -> None:
    """At most twice the largest error of eager for the output, thrice for the gradients."""
    slopes = alibi_slopes(4)
    inputs = qkv(4, 384, dtype)
    grad = torch.randn(inputs[0].shape, generator=torch.Generator().manual_seed(2)).to(dtype)

    def run(function: object, in_dtype: torch.dtype) -> tuple[Tensor, ...]:
        leaves = [x.to(in_dtype).requires_grad_() for x in inputs]
        out = function(*leaves)
        return out, *torch.autograd.grad(out, leaves, grad.to(in_dtype))

    gold = run(lambda *x: eager(*x, slopes.double()), torch.float64)
    other = run(lambda *x: eager(*x, slopes), dtype)
    ours = run(lambda *x: attention(*x, alibi_slopes=slopes, backend=backend), dtype)
    for factor, got, baseline, want in zip((2, 3, 3, 3), ours, other, gold, strict=True):
        assert (got - want).abs().max() <= factor * (baseline - want).abs().max()
        assert (got - want).abs().mean() <= 1.1 * (baseline - want).abs().mean()


@pytest.mark.parametrize("backend", NAMES)
def test_a_document_is_the_same_wherever_it_stands(backend: str) -> None:
    """Shift invariance: behind 3,000 other tokens as by itself."""
    slopes = alibi_slopes(2)
    q, k, v = qkv(2, 3200, torch.float32)
    ids = torch.tensor([[1] * 3000 + [2] * 200])
    packed = attention(q, k, v, alibi_slopes=slopes, segment_ids=ids, backend=backend)
    alone = attention(*(x[:, :, 3000:] for x in (q, k, v)), alibi_slopes=slopes, backend=backend)
    torch.testing.assert_close(packed[:, :, 3000:], alone, rtol=1e-6, atol=1e-6)


def test_left_out_keys_cost_no_accuracy(monkeypatch: pytest.MonkeyPatch) -> None:
    slopes = alibi_slopes(40)[32:]
    inputs = qkv(8, 2048, torch.float32)
    skipping = last_rows(inputs, slopes, "cpu", torch.float32)
    monkeypatch.setattr(cpu, "_windows", lambda q, k, slopes, scale: [k.shape[3]] * k.shape[1])
    complete = last_rows(inputs, slopes, "cpu", torch.float32)
    for got, want in zip(skipping, complete, strict=True):
        assert relative(got, want.double()) < 2e-7


@pytest.mark.parametrize("backend", NAMES)
def test_a_far_key_that_outweighs_its_distance_counts(backend: str) -> None:
    """Large queries and keys widen what has to be computed: here the first key wins every row."""
    seq = 1500
    q, k, v = (torch.zeros(1, 1, seq, 16) for _ in range(3))
    q[..., 0] = 60.0
    k[..., 0] = -60.0
    k[:, :, 0, 0] = 60.0  # 1,800 above the other scores, against a bias of at most 1,500
    v[:, :, 0] = 1.0
    out = attention(q, k, v, alibi_slopes=torch.tensor([1.0]), backend=backend)
    torch.testing.assert_close(out, torch.ones_like(out))


@pytest.mark.parametrize("backend", NAMES)
def test_keys_that_only_their_distance_weighs(backend: str) -> None:
    inputs = qkv(2, 1024, torch.float32)
    inputs[0].zero_()
    slopes = torch.tensor([1 / 16, 1 / 64])
    out, grad_q, grad_k, grad_v = last_rows(inputs, slopes, backend, torch.float32)
    gold_out, gold_q, gold_k, gold_v = gold_last_rows(inputs, slopes)
    for got, want in ((out, gold_out), (grad_q, gold_q), (grad_v, gold_v)):
        assert relative(got, want) < 2e-6
    assert grad_k.eq(gold_k).all()  # all zero, as the queries are


def test_cpu_keeps_its_digits_far_behind_the_keys() -> None:
    """Where every bias is in the thousands, only their differences may count."""
    inputs = qkv(8, 64, torch.float32)
    options = {"alibi_slopes": alibi_slopes(40)[32:], "q_offset": 5000}

    def run(backend: str, dtype: torch.dtype) -> tuple[Tensor, ...]:
        leaves = [x.to(dtype).requires_grad_() for x in inputs]
        out = attention(*leaves, backend=backend, **options)
        return out, *torch.autograd.grad(out.square().sum(), leaves)

    gold = run("reference", torch.float64)
    for got, want in zip(run("cpu", torch.float32), gold, strict=True):
        assert relative(got, want) < 5e-6


@pytest.mark.parametrize("backend", NAMES)
def test_a_nan_stays_in_its_row(backend: str) -> None:
    q, k, v = qkv(2, 600, torch.float32)
    options = {"alibi_slopes": alibi_slopes(2), "backend": backend}
    clean = attention(q, k, v, **options)
    q[:, :, 300] = torch.nan
    out = attention(q, k, v, **options)
    assert out[:, :, 300].isnan().all()
    others = torch.arange(600) != 300
    torch.testing.assert_close(out[:, :, others], clean[:, :, others])
