"""These tests run in the environment of `nox -s npu_contract` alone.

There the real torch_npu is installed and `cann.py` stands in for CANN; on a server with NPUs its
stand-ins must not be mixed with the real thing.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from bc2_model.kernels.backends import npu
from npu_contract.emulator import Emulator


@pytest.fixture(autouse=True)
def contract() -> Iterator[None]:
    if os.environ.get("BC2_NPU_CONTRACT") != "1":
        pytest.skip("needs torch_npu and stand-ins for CANN: nox -s npu_contract")
    assert torch.npu.device_count() == 1
    npu._triangle.cache_clear()  # a fake tensor of one test is none of the next
    yield
    npu._triangle.cache_clear()


@pytest.fixture
def emulator() -> Iterator[Emulator]:
    with Emulator() as running:
        yield running


@pytest.fixture(scope="session")
def fake_backward() -> None:
    """Mends torch_npu 2.13.0, whose shape function of the gradient passes a list for a tensor."""
    if os.environ.get("BC2_NPU_CONTRACT") != "1":
        return

    def shapes(query: Tensor, key: Tensor, value: Tensor, *_: object, **__: object):
        empty = [query.new_empty(0) for _ in range(3)]
        return (*(torch.empty_like(x) for x in (query, key, value)), *empty, None)

    library = torch.library.Library("npu", "IMPL", "Meta")
    library.impl("npu_fusion_attention_grad_v2", shapes, allow_override=True)
    _kept.append(library)


_kept: list[torch.library.Library] = []
"""A registration lasts as long as its library."""
