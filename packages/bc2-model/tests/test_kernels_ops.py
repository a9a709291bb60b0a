"""The small operations against the plain formulas of the official modelling code."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - torch's own abbreviation
from torch import Tensor

from bc2_model.kernels import (
    KernelError,
    alibi_slopes,
    norm_head_logits,
    rms_norm,
    rotary,
    rotary_tables,
    swiglu,
)


def randn(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    rng = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=rng, dtype=torch.float64).to(dtype)


def press(heads: int) -> list[float]:
    """The rule in the words of its authors' code."""

    def power_of_two(n: int) -> list[float]:
        start = 2 ** (-(2 ** -(math.log2(n) - 3)))
        return [start * start**i for i in range(n)]

    if math.log2(heads).is_integer():
        return power_of_two(heads)
    lower = 2 ** math.floor(math.log2(heads))
    return power_of_two(lower) + press(2 * lower)[0::2][: heads - lower]


@pytest.mark.parametrize("heads", [1, 2, 3, 8, 10, 12, 32, 40, 64, 100])
def test_slopes_follow_the_authors_rule(heads: int) -> None:
    slopes = alibi_slopes(heads)
    assert slopes.dtype == torch.float32
    torch.testing.assert_close(slopes, torch.tensor(press(heads)), rtol=2e-7, atol=0)


def test_slopes_of_baichuan2_13b() -> None:
    slopes = alibi_slopes(40)
    torch.testing.assert_close(slopes[:32], 2.0 ** (-0.25 * torch.arange(1, 33)))
    last = [0.917004, 0.771105, 0.648420, 0.545254, 0.458502, 0.385553, 0.324210, 0.272627]
    torch.testing.assert_close(slopes[32:], torch.tensor(last), rtol=0, atol=1e-6)


def test_slopes_need_a_head() -> None:
    with pytest.raises(KernelError, match="at least 1"):
        alibi_slopes(0)


def official_rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    variance = x.to(torch.float32).pow(2).mean(-1, keepdim=True)
    x = x * torch.rsqrt(variance + eps)
    if weight.dtype in (torch.float16, torch.bfloat16):
        x = x.to(weight.dtype)
    return weight * x


@pytest.mark.parametrize(
    ("x_dtype", "weight_dtype", "tolerance"),
    [
        (torch.float32, torch.float32, 2e-6),
        (torch.bfloat16, torch.bfloat16, 2e-2),
        (torch.bfloat16, torch.float32, 2e-2),
        (torch.float32, torch.bfloat16, 2e-2),
    ],
    ids=str,
)
def test_rms_norm_is_the_official_one(
    x_dtype: torch.dtype, weight_dtype: torch.dtype, tolerance: float
) -> None:
    x = randn(3, 5, 64, dtype=x_dtype).requires_grad_()
    weight = (1 + 0.1 * randn(64, seed=1)).to(weight_dtype).requires_grad_()
    ours = rms_norm(x, weight, 1e-6)
    official = official_rms_norm(x, weight, 1e-6)
    assert ours.dtype == official.dtype
    assert torch.equal(ours, official)
    grad = randn(3, 5, 64, dtype=ours.dtype, seed=2)
    for got, want in zip(
        torch.autograd.grad(ours, (x, weight), grad),
        torch.autograd.grad(official, (x, weight), grad),
        strict=True,
    ):
        assert got.dtype == want.dtype
        assert (got - want).abs().max() <= tolerance * want.abs().max()


def test_rms_norm_gradients_are_exact() -> None:
    x = randn(2, 3, 8, dtype=torch.float64).requires_grad_()
    weight = randn(8, dtype=torch.float64, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(lambda x, w: rms_norm(x, w, 1e-6), (x, weight))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_swiglu_takes_the_gate_first(dtype: torch.dtype) -> None:
    x = randn(2, 3, 10, dtype=dtype)
    gate, up = x[..., :5], x[..., 5:]
    expected = gate.double() * torch.sigmoid(gate.double()) * up.double()
    result = swiglu(x)
    assert result.dtype == dtype
    torch.testing.assert_close(result, expected.to(dtype))
    with pytest.raises(KernelError, match="even"):
        swiglu(x[..., :9])


def official_rotary(x: Tensor, positions: Tensor, base: float) -> Tensor:
    """``RotaryEmbedding`` and ``apply_rotary_pos_emb`` of Baichuan2-7B; positions (batch, seq)."""
    dim = x.shape[-1]
    inv_freq = 1.0 / (base ** (torch.arange(0, dim, 2).float() / dim))
    freqs = torch.outer(torch.arange(int(positions.max()) + 1, dtype=torch.float32), inv_freq)
    emb = torch.cat((freqs, freqs), dim=-1)
    cos, sin = emb.cos()[positions].unsqueeze(1), emb.sin()[positions].unsqueeze(1)
    half = torch.cat((-x.float()[..., dim // 2 :], x.float()[..., : dim // 2]), dim=-1)
    return (x.float() * cos + half * sin).to(x.dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_rotary_is_the_official_one(dtype: torch.dtype) -> None:
    x = randn(2, 3, 6, 16, dtype=dtype)
    positions = torch.tensor([[0, 1, 2, 3, 4, 5], [0, 1, 0, 1, 2, 4095]])
    result = rotary(x, *rotary_tables(positions, 16, 10000.0))
    assert result.dtype == dtype
    assert torch.equal(result, official_rotary(x, positions, 10000.0))
    one_row = rotary(x[1:], *rotary_tables(positions[1], 16, 10000.0))
    assert torch.equal(one_row, result[1:])


def test_rotary_turns_back_in_its_gradient() -> None:
    x = randn(1, 2, 5, 8, dtype=torch.float64).requires_grad_()
    tables = rotary_tables(torch.arange(5), 8, 10000.0)
    assert all(table.dtype == torch.float32 for table in tables)
    assert torch.autograd.gradcheck(lambda x: rotary(x, *tables), (x,))
    with pytest.raises(KernelError, match="even"):
        rotary_tables(torch.arange(5), 7, 10000.0)


def official_norm_head(hidden: Tensor, weight: Tensor) -> Tensor:
    return F.linear(hidden, F.normalize(weight))


@pytest.mark.parametrize("shape", [(5, 16), (2, 3, 16)], ids=str)
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-13), (torch.float32, 1e-6)], ids=str
)
def test_norm_head_is_the_official_one(
    shape: tuple[int, ...], dtype: torch.dtype, tolerance: float
) -> None:
    hidden = randn(*shape, dtype=dtype).requires_grad_()
    weight = (randn(11, 16, seed=1) * torch.logspace(-3, 2, 11)[:, None]).to(dtype)
    weight[3] = 0
    weight[4] *= 1e-16  # shorter than eps: F.normalize divides by eps and forgets the norm
    before = weight.clone()
    weight.requires_grad_()
    ours, official = norm_head_logits(hidden, weight), official_norm_head(hidden, weight)
    grad = randn(*ours.shape, dtype=dtype, seed=2)
    our_grads = torch.autograd.grad(ours, (hidden, weight), grad)
    official_grads = torch.autograd.grad(official, (hidden, weight), grad)
    torch.testing.assert_close(ours, official, rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(our_grads[0], official_grads[0], rtol=tolerance, atol=tolerance)
    size = official_grads[1].abs().amax(-1, keepdim=True)
    assert ((our_grads[1] - official_grads[1]).abs() <= 5 * tolerance * size).all()
    assert torch.equal(weight, before)


def test_norm_head_gradients_are_exact() -> None:
    hidden = randn(3, 6, dtype=torch.float64).requires_grad_()
    weight = randn(5, 6, dtype=torch.float64, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(norm_head_logits, (hidden, weight))


def test_norm_head_in_bfloat16_is_no_worse_than_the_official_one() -> None:
    hidden, weight = randn(64, 128), randn(96, 128, seed=1)
    grad = randn(64, 96, seed=2)

    def run(function: object, dtype: torch.dtype) -> tuple[Tensor, ...]:
        leaves = [x.bfloat16().to(dtype).requires_grad_() for x in (hidden, weight)]
        out = function(*leaves)
        return out, *torch.autograd.grad(out, leaves, grad.bfloat16().to(dtype))

    gold = run(official_norm_head, torch.float64)
    ours, official = (run(f, torch.bfloat16) for f in (norm_head_logits, official_norm_head))
    for got, other, want in zip(ours, official, gold, strict=True):
        assert got.dtype == torch.bfloat16
        assert (got - want).norm() <= 1.1 * (other - want).norm()


def test_norm_head_skips_the_gradient_of_a_frozen_weight() -> None:
    hidden, weight = randn(3, 6).requires_grad_(), randn(5, 6, seed=1)
    norm_head_logits(hidden, weight).sum().backward()
    assert hidden.grad is not None
    assert weight.grad is None
