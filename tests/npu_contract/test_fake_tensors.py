"""The NPU path on fake tensors: torch_npu's own schemas, autograd formulas and shape functions."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from bc2_model import kernels
from bc2_model.kernels import alibi_slopes, attention
from bc2_model.kernels.backends import npu_fusion

pytestmark = pytest.mark.usefixtures("fake_backward")


def a_leaf(*shape: int) -> Tensor:
    return torch.empty(shape, dtype=torch.bfloat16, device="npu", requires_grad=True)


@pytest.mark.parametrize("alibi", [True, False], ids=["alibi", "plain"])
def test_dense_attention(alibi: bool) -> None:
    """At the size of Baichuan2-13B: 40 heads of 128, 4,096 tokens."""
    with FakeTensorMode():
        leaves = [a_leaf(1, 40, 4096, 128) for _ in range(3)]
        slopes = torch.empty(40, device="npu") if alibi else None
        out = attention(*leaves, alibi_slopes=slopes, backend="npu")
        assert "NpuFusionAttentionV2" in out.grad_fn.name()
        out.sum().backward()
        assert all(x.grad.shape == x.shape and x.grad.dtype == x.dtype for x in leaves)


def test_packed_attention() -> None:
    with FakeTensorMode():
        leaves = [a_leaf(4096, heads, 128) for heads in (40, 8, 8)]
        mask = torch.empty(2048, 2048, dtype=torch.bool, device="npu")
        slopes = torch.empty(40, device="npu")
        call = npu_fusion.Call(*leaves, "TND", mask, 2, slopes, 0.088, [1000, 4096])
        out = npu_fusion.run(call)
        assert out.shape == (4096, 40, 128)
        out.sum().backward()
        assert all(x.grad.shape == x.shape for x in leaves)


def test_fused_operators() -> None:
    with FakeTensorMode():
        x, weight = a_leaf(2, 16, 512), a_leaf(512)
        kernels.rms_norm(x, weight, 1e-6).sum().backward()
        assert x.grad.shape == x.shape
        assert weight.grad.shape == weight.shape
        x = a_leaf(2, 16, 512)
        out = kernels.swiglu(x)
        assert out.shape == (2, 16, 256)
        out.sum().backward()
        assert x.grad.shape == x.shape
        x = a_leaf(2, 4, 16, 128)
        cos, sin = kernels.rotary_tables(torch.arange(16, device="npu"), 128)
        kernels.rotary(x, cos, sin).sum().backward()
        assert x.grad.shape == x.shape


def test_tensors_on_two_devices_are_refused() -> None:
    with FakeTensorMode(), pytest.raises(kernels.KernelError, match="alibi_slopes are on cpu"):
        attention(*[a_leaf(1, 4, 8, 64)] * 3, alibi_slopes=alibi_slopes(4), backend="npu")
