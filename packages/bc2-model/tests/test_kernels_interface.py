"""What `attention` refuses, which backend it takes, and what importing the kernels loads."""

from __future__ import annotations

import logging
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from bc2_model.kernels import KernelError, alibi_slopes, attention
from bc2_model.kernels.backends import cpu, reference, registry
from bc2_model.kernels.problem import AttentionProblem, make_problem
from bc2_model.kernels.segments import runs


def zeros(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.zeros(shape, dtype=dtype)


Q = zeros(2, 4, 5, 8)
WRONG = {
    "three dimensions": ({"q": zeros(4, 5, 8)}, "q must be"),
    "no keys": ({"k": zeros(2, 4, 0, 8), "v": zeros(2, 4, 0, 8)}, "no empty dimension"),
    "k unlike v": ({"v": zeros(2, 4, 6, 8)}, "one shape"),
    "another batch": ({"q": zeros(1, 4, 5, 8)}, "batch and head_dim"),
    "another head_dim": ({"q": zeros(2, 4, 5, 7)}, "batch and head_dim"),
    "heads that do not divide": ({"q": zeros(2, 6, 5, 8)}, "do not divide"),
    "two dtypes": ({"q": Q.bfloat16()}, "one dtype"),
    "integers": ({"q": Q.int(), "k": Q.int(), "v": Q.int()}, "one dtype"),
    "two devices": ({"q": Q.to("meta")}, "one device"),
    "16-bit slopes": ({"alibi_slopes": zeros(4, dtype=torch.bfloat16)}, "float32"),
    "slopes of all ranks": ({"alibi_slopes": alibi_slopes(8)}, "one a head"),
    "slopes elsewhere": ({"alibi_slopes": zeros(4).to("meta")}, "on meta"),
    "trained slopes": ({"alibi_slopes": alibi_slopes(4).requires_grad_()}, "no gradient|constants"),
    "negative slopes": ({"alibi_slopes": -alibi_slopes(4)}, "positive"),
    "a scale of zero": ({"scale": 0.0}, "scale must be positive"),
    "a scale that is none": ({"scale": float("nan")}, "scale must be positive"),
    "a float mask": ({"segment_ids": zeros(2, 5)}, "integers"),
    "a 4-D mask": ({"segment_ids": zeros(2, 1, 5, 5, dtype=torch.int64)}, r"\(2, 5\)"),
    "ids elsewhere": ({"segment_ids": zeros(2, 5, dtype=torch.int64).to("meta")}, "on meta"),
    "queries beyond the ids": (
        {"segment_ids": zeros(2, 5, dtype=torch.int64), "q_offset": 1},
        "stand on 1 to 5",
    ),
    "cu_seqlens of a batch": ({"cu_seqlens": torch.tensor([0, 5])}, "batch 1"),
    "an unknown backend": (
        {"backend": "cudnn"},
        "known: auto, cuda, npu, flash-attn, triton, flex, cpu, reference",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_arguments_are_named(case: str) -> None:
    change, message = WRONG[case]
    with pytest.raises(KernelError, match=message):
        attention(**{"q": Q, "k": Q, "v": Q} | change)


@pytest.mark.parametrize(
    ("cu_seqlens", "message"),
    [
        ([0, 3], "rise from 0 to 5"),
        ([1, 5], "rise from 0 to 5"),
        ([0, 4, 2, 5], "rise from 0 to 5"),
        ([5], "segments \\+ 1"),
        ([0.0, 5.0], "must be integers"),
    ],
)
def test_wrong_cu_seqlens_are_named(cu_seqlens: list[float], message: str) -> None:
    with pytest.raises(KernelError, match=message):
        attention(Q[:1], Q[:1], Q[:1], cu_seqlens=torch.tensor(cu_seqlens))


def test_segments_are_given_once() -> None:
    ids = torch.ones(1, 5, dtype=torch.int64)
    with pytest.raises(KernelError, match="give one of them"):
        attention(Q[:1], Q[:1], Q[:1], segment_ids=ids, cu_seqlens=torch.tensor([0, 5]))


def test_an_empty_document_is_no_error() -> None:
    q = torch.randn(1, 4, 5, 8)
    packed = attention(q, q, q, cu_seqlens=torch.tensor([0, 2, 2, 5]))
    assert torch.equal(packed, attention(q, q, q, cu_seqlens=torch.tensor([0, 2, 5])))


def a_problem(**changes: object) -> AttentionProblem:
    arguments = {
        "q": Q,
        "k": Q,
        "v": Q,
        "alibi_slopes": None,
        "causal": True,
        "segment_ids": None,
        "cu_seqlens": None,
        "scale": None,
        "q_offset": None,
        "k_offset": 0,
    }
    return make_problem(**arguments | changes)


def a_backend(name: str, reason: str | None) -> SimpleNamespace:
    return SimpleNamespace(NAME=name, unsupported_reason=lambda problem: reason)


def test_auto_takes_the_first_that_can_run() -> None:
    backends = (a_backend("npu", "no NPU"), a_backend("cuda", None), a_backend("cpu", None))
    assert registry.select(a_problem(), "auto", backends).NAME == "cuda"
    assert registry.select(a_problem(), "cpu", backends).NAME == "cpu"


def test_auto_prefers_the_fast_backend_and_falls_back() -> None:
    slopes = alibi_slopes(4)
    assert registry.select(a_problem(alibi_slopes=slopes)) is cpu
    assert registry.select(a_problem(alibi_slopes=slopes, causal=False)) is reference
    on_meta = {name: Q.to("meta") for name in "qkv"}
    assert registry.select(a_problem(**on_meta)) is reference


def test_a_named_backend_that_cannot_run_says_why() -> None:
    with pytest.raises(KernelError, match="'cpu' cannot run this: ALiBi without a causal mask"):
        attention(Q, Q, Q, alibi_slopes=alibi_slopes(4), causal=False, backend="cpu")
    with pytest.raises(KernelError, match="'cpu' cannot run this: the tensors are on meta"):
        attention(*[Q.to("meta")] * 3, backend="cpu")


def test_the_choice_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    registry._announce.cache_clear()
    with caplog.at_level(logging.INFO, logger="bc2_model"):
        attention(Q, Q, Q)
        attention(Q, Q, Q)
    assert [record.getMessage() for record in caplog.records] == ["attention backend: cpu"]


def test_runs_leave_padding_out_and_keep_returning_ids_apart() -> None:
    found = runs(torch.tensor([0, 3, 3, 1, 0, 0, 3]))
    assert found == [(3, range(1, 3)), (1, range(3, 4)), (3, range(6, 7))]
    assert runs(torch.tensor([0, 0])) == []


def test_importing_the_kernels_loads_torch_alone() -> None:
    script = (
        "import sys, torch\n"
        "before = set(sys.modules)\n"
        "import bc2_model.kernels\n"
        "new = {name.partition('.')[0] for name in set(sys.modules) - before}\n"
        "print(*sorted(new - set(sys.stdlib_module_names)))\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert set(result.stdout.split()) - {"torch"} == {"bc2_model"}
