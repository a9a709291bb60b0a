"""What the kernels allocate and what they keep for the backward pass."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from bc2_model.kernels import alibi_slopes, attention, norm_head_logits, rms_norm


class FreshTensors(TorchDispatchMode):
    """Notes the name and size of every new tensor, views and in-place results left out."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[tuple[str, int]] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        results = result if isinstance(result, tuple) else (result,)
        for returned, tensor in zip(func._schema.returns, results, strict=True):
            if isinstance(tensor, Tensor) and returned.alias_info is None:
                self.sizes.append((func.overloadpacket.__name__, tensor.numel()))
        return result

    def at_least(self, elements: int) -> list[str]:
        return [name for name, size in self.sizes if size >= elements]


@contextmanager
def kept_for_backward() -> Iterator[list[Tensor]]:
    kept: list[Tensor] = []

    def pack(tensor: Tensor) -> Tensor:
        kept.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        yield kept


def heads_of(count: int, seq: int, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    return [torch.randn(1, count, seq, 16, dtype=dtype).requires_grad_() for _ in range(3)]


@pytest.mark.parametrize("causal", [True, False], ids=["alibi", "plain and full"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_cpu_attention_makes_no_bias_and_no_scores(dtype: torch.dtype, causal: bool) -> None:
    q, k, v = heads_of(4, 1024, dtype)
    slopes = alibi_slopes(4) if causal else None
    with FreshTensors() as fresh:
        out = attention(q, k, v, alibi_slopes=slopes, causal=causal, backend="cpu")
        out.backward(torch.ones_like(out))
    assert fresh.at_least(q.numel() + 1) == []
    assert fresh.at_least(q.numel()) != []  # the output, for one: the mode does see this call
    with FreshTensors() as eager:
        attention(q, k, v, alibi_slopes=slopes, causal=causal, backend="reference")
    assert eager.at_least(4 * 1024 * 1024) != []


def test_cpu_attention_repeats_no_keys_of_a_group() -> None:
    q = torch.randn(1, 32, 64, 16)
    k, v = (torch.randn(1, 2, 512, 16) for _ in range(2))
    with FreshTensors() as fresh:
        attention(q, k, v, alibi_slopes=alibi_slopes(32), backend="cpu")
    assert fresh.at_least(16 * k.numel()) == []
    assert fresh.at_least(q.numel()) != []


def test_cpu_attention_keeps_its_inputs_its_output_and_a_number_a_row() -> None:
    q, k, v = heads_of(4, 600, torch.bfloat16)
    with kept_for_backward() as kept:
        out = attention(q, k, v, alibi_slopes=alibi_slopes(4), backend="cpu")
    assert (
        sorted((x.numel(), x.dtype) for x in kept if x.dtype != torch.float32)
        == [(q.numel(), torch.bfloat16)] * 4
    )
    assert [x.numel() for x in kept if x.dtype == torch.float32] == [4 * 600]
    # Nothing is held beside the saved tensors, which activation checkpointing drops.
    assert {x.data_ptr() for x in kept} >= {x.data_ptr() for x in (q, k, v, out)}


def test_rms_norm_keeps_no_float32_copy_of_a_16_bit_input() -> None:
    x = torch.randn(4, 256, dtype=torch.bfloat16).requires_grad_()
    weight = torch.ones(256, dtype=torch.bfloat16, requires_grad=True)
    with kept_for_backward() as kept:
        rms_norm(x, weight, 1e-6)
    assert sorted(tensor.numel() for tensor in kept) == [4, 256, 4 * 256]
    assert max(kept, key=torch.numel).dtype == torch.bfloat16


def test_norm_head_makes_no_copy_of_the_weight() -> None:
    hidden = torch.randn(3, 16).requires_grad_()
    weight = torch.randn(9000, 16).requires_grad_()
    with FreshTensors() as forward:
        logits = norm_head_logits(hidden, weight)
    assert forward.at_least(weight.numel()) == []
    with FreshTensors() as backward:
        logits.backward(torch.ones_like(logits))
    assert backward.at_least(weight.numel()) == ["mm"]  # its gradient
