"""Wrong arguments that torch_npu takes without a word, and our guard does not."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from bc2_model.kernels import KernelError, rms_norm
from bc2_model.kernels.backends import npu_fusion
from bc2_model.kernels.backends.npu_fusion import Call


def a_tensor(*shape: int, dtype: torch.dtype = torch.bfloat16) -> Tensor:
    return torch.empty(shape, dtype=dtype, device="npu")


def dense() -> Call:
    q = a_tensor(2, 4, 128, 64)
    mask = a_tensor(2048, 2048, dtype=torch.bool)
    return Call(q, q, q, "BNSD", mask, 2, a_tensor(4, dtype=torch.float32), 0.125, None)


def packed() -> Call:
    q = a_tensor(128, 4, 64)
    return replace(dense(), q=q, k=q, v=q, layout="TND", ends=[100, 128])


WRONG = {
    "v of another dtype": lambda: replace(dense(), v=a_tensor(2, 4, 128, 64, dtype=torch.float16)),
    "float64": lambda: replace(
        dense(), **dict.fromkeys("qkv", a_tensor(2, 4, 128, 64, dtype=torch.float64))
    ),
    "a bfloat16 mask": lambda: replace(dense(), mask=a_tensor(2048, 2048)),
    "a mask of 100 x 100": lambda: replace(dense(), mask=a_tensor(100, 100, dtype=torch.bool)),
    "heads that do not divide": lambda: replace(
        dense(), k=a_tensor(2, 3, 128, 64), v=a_tensor(2, 3, 128, 64)
    ),
    "a head_dim of 1000": lambda: replace(dense(), **dict.fromkeys("qkv", a_tensor(2, 4, 8, 1000))),
    "v of another length": lambda: replace(dense(), v=a_tensor(2, 4, 127, 64)),
    "slopes of all ranks": lambda: replace(dense(), slopes=a_tensor(8, dtype=torch.float32)),
    "16-bit slopes": lambda: replace(dense(), slopes=a_tensor(4)),
    "ALiBi with more keys": lambda: replace(
        dense(), k=a_tensor(2, 4, 256, 64), v=a_tensor(2, 4, 256, 64), sparse_mode=3
    ),
    "lengths that end early": lambda: replace(packed(), ends=[100, 120]),
    "an empty segment with ALiBi": lambda: replace(packed(), ends=[100, 100, 128]),
}


@pytest.mark.parametrize("call", [dense, packed])
def test_right_arguments_pass_our_guard_and_the_host_code_of_torch_npu(call) -> None:
    """Down to the call into CANN, whose operators do nothing here."""
    out = npu_fusion.run(call())
    assert out.shape == call().q.shape
    assert out.dtype == torch.bfloat16


@pytest.mark.parametrize("case", WRONG)
def test_our_guard_stops_what_torch_npu_lets_pass(case: str, monkeypatch) -> None:
    call = WRONG[case]()
    with pytest.raises(KernelError):
        npu_fusion.run(call)
    monkeypatch.setattr(npu_fusion, "check", lambda call: None)
    npu_fusion.run(call)  # where this begins to raise, torch_npu has learnt to check it


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"layout": "BSH"}, "layout"),
        ({"sparse_mode": 4}, "sparse_mode 4"),
        ({"sparse_mode": 0}, "come together"),
        ({"mask": None}, "come together"),
        ({"ends": [128]}, "TND"),
    ],
)
def test_combinations_that_bc2_never_makes(change: dict[str, object], message: str) -> None:
    with pytest.raises(KernelError, match=message):
        npu_fusion.check(replace(dense(), **change))


def test_a_norm_of_another_width() -> None:
    with pytest.raises(KernelError, match="one number a column"):
        rms_norm(a_tensor(3, 8), a_tensor(7), 1e-6)
