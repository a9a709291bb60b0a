"""What our calls compute, by the operators' documentation, is what the reference computes."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from bc2_model import kernels
from bc2_model.kernels import alibi_slopes, attention
from npu_contract.emulator import Emulator, host_view

IDS = torch.tensor([[1] * 5 + [2] * 7 + [3] + [0] * 3, [0] * 2 + [4] * 14])
CASES = {
    # batch, heads, kv_heads, queries, keys, ids
    "whole": (2, 4, 4, 20, 20, None),
    "longer than the compressed mask": (1, 2, 2, 2100, 2100, None),
    "grouped": (2, 6, 2, 16, 16, None),
    "40 heads": (1, 40, 40, 9, 9, None),
    "one token": (1, 2, 2, 1, 1, None),
    "segments and padding": (2, 4, 2, 16, 16, IDS),
    "segments alone": (1, 4, 2, 16, 16, torch.tensor([[1] * 4 + [5] * 12])),
}
# ALiBi needs as many queries as keys.
WITHOUT_ALIBI = {
    "decoding": (2, 4, 2, 1, 20, None),
    "chunk after a cache": (1, 4, 4, 8, 20, None),
}


def grads(backend: str, inputs: list[Tensor], device: str, **options) -> list[Tensor]:
    *leaves, grad = [x.to(device) for x in inputs]
    leaves = [x.requires_grad_() for x in leaves]
    on_device = {
        name: value.to(device) if isinstance(value, Tensor) else value
        for name, value in options.items()
    }
    out = attention(*leaves, backend=backend, **on_device)
    return [out, *torch.autograd.grad(out, leaves, grad)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("causal", [True, False], ids=["causal", "full"])
@pytest.mark.parametrize(
    ("case", "alibi"),
    [(case, True) for case in CASES] + [(case, False) for case in (*CASES, *WITHOUT_ALIBI)],
)
def test_attention(emulator: Emulator, case: str, causal: bool, alibi: bool, dtype) -> None:
    batch, heads, kv_heads, queries, keys, ids = (CASES | WITHOUT_ALIBI)[case]
    rng = torch.Generator().manual_seed(0)
    shapes = [(heads, queries), (kv_heads, keys), (kv_heads, keys), (heads, queries)]
    inputs = [torch.randn(batch, *shape, 16, generator=rng).to(dtype) for shape in shapes]
    options = {
        "alibi_slopes": alibi_slopes(heads) if alibi else None,
        "causal": causal,
        "segment_ids": ids,
        "scale": 0.3,
    }
    expected = grads("reference", inputs, "cpu", **options)
    result = grads("npu", inputs, "npu", **options)
    assert emulator.calls["npu_fusion_attention_v2"] == 1
    assert emulator.calls["npu_fusion_attention_grad_v2"] == 1
    tolerance = 1e-5 if dtype == torch.float32 else 2e-2
    for got, want in zip(result, expected, strict=True):
        assert got.device.type == "npu"
        torch.testing.assert_close(host_view(got), want, rtol=tolerance, atol=tolerance)


def test_auto_takes_the_npu(emulator: Emulator) -> None:
    q = torch.randn(1, 2, 8, 16).to("npu")
    attention(q, q, q, alibi_slopes=alibi_slopes(2).to("npu"))
    assert emulator.calls["npu_fusion_attention_v2"] == 1


def test_what_the_operator_cannot_do_falls_back(emulator: Emulator) -> None:
    """Decoding with ALiBi: one query and more keys."""
    q, k = torch.randn(1, 2, 1, 16), torch.randn(1, 2, 9, 16)
    slopes = alibi_slopes(2)
    out = attention(q.to("npu"), k.to("npu"), k.to("npu"), alibi_slopes=slopes.to("npu"))
    assert not emulator.calls
    torch.testing.assert_close(host_view(out), attention(q, k, k, alibi_slopes=slopes))


def both(function, inputs: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    """Returns a function's output and gradients on the NPU and on the CPU."""
    results = []
    for device in ("npu", "cpu"):
        leaves = [x.to(device).requires_grad_() for x in inputs]
        out = function(*leaves)
        grad = torch.ones_like(out).cumsum(-1) / out.shape[-1]
        results.append([out, *torch.autograd.grad(out, leaves, grad)])
    return [host_view(x) for x in results[0]], results[1]


def test_rms_norm(emulator: Emulator) -> None:
    got, want = both(
        lambda x, w: kernels.rms_norm(x, w, 0.1), [torch.randn(3, 5, 8), torch.rand(8)]
    )
    assert emulator.calls["npu_rms_norm"] == 1
    torch.testing.assert_close(got, want)


def test_rms_norm_with_two_dtypes_is_our_own(emulator: Emulator) -> None:
    x, weight = torch.randn(3, 8).bfloat16(), torch.rand(8)
    out = kernels.rms_norm(x.to("npu"), weight.to("npu"), 1e-6)
    assert not emulator.calls
    torch.testing.assert_close(host_view(out), kernels.rms_norm(x, weight, 1e-6))


def test_swiglu(emulator: Emulator) -> None:
    got, want = both(kernels.swiglu, [torch.randn(3, 5, 8)])
    assert emulator.calls["npu_swiglu"] == 1
    torch.testing.assert_close(got, want)


@pytest.mark.parametrize(
    "positions", [torch.arange(6), torch.tensor([[0, 1, 2, 0, 1, 2], [5] * 6])]
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_rotary(emulator: Emulator, positions: Tensor, dtype: torch.dtype) -> None:
    def turn(x: Tensor) -> Tensor:
        tables = kernels.rotary_tables(positions, 16)
        return kernels.rotary(x, *(table.to(x.device) for table in tables))

    got, want = both(turn, [torch.randn(2, 3, 6, 16).to(dtype)])
    assert emulator.calls["npu_rotary_mul"] == 1
    torch.testing.assert_close(got, want)
