"""Our Triton kernels without a GPU: interpreted on values, and compiled for sm_80 and sm_90."""

from __future__ import annotations

import importlib
import logging
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import torch

from bc2_model.kernels import KernelError, attention
from bc2_model.kernels.backends import cuda_triton

triton = pytest.importorskip("triton", reason="triton is not installed")

logger = logging.getLogger(__name__)

# The kernels' tensors by argument name; all other lower-case arguments are integers but scale.
ACTIVATIONS = {"q", "k", "v", "out", "grad", "dq", "dk", "dv"}
POINTERS = {"log_sum": "*fp32", "delta": "*fp32", "plan": "*i32"}
NAMES = {torch.bfloat16: "bf16", torch.float16: "fp16", torch.float32: "fp32"}

SHARED_LIMIT = 99 * 1024
"""Shared memory that one program may have on compute capability 8.6 and 8.9; 8.0 and 9.0 more."""


def test_interpreted_kernels_compute_attention() -> None:
    """All of test_kernels_cuda.py, in a process of its own: triton reads the switch once."""
    path = Path(__file__).with_name("test_kernels_cuda.py")
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(path)],
        env=os.environ | {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout[-5000:] + result.stderr[-1000:]
    passed = re.search(r"(\d+) passed", result.stdout)
    assert passed is not None
    assert int(passed[1]) >= 75


def compiled(
    name: str,
    dtype: torch.dtype,
    capability: int,
    head_dim: int = 128,
    alibi: bool = True,
    segments: bool = True,
    ones: tuple[str, ...] = (),
):
    """Returns a kernel compiled as `cuda_triton` launches it, for a GPU that need not be there.

    `ones` names arguments that are 1: Triton compiles kernels of their own for those.
    """
    kernels = importlib.import_module("bc2_model.kernels.backends.cuda_triton_kernels")
    kernel = getattr(kernels, name)
    launch = getattr(cuda_triton.launches(dtype, head_dim), name)
    constants = {
        "HEAD_DIM": head_dim,
        "BLOCK_M": launch.block_m,
        "BLOCK_N": launch.block_n,
        "CAUSAL": True,
        "DOT": getattr(triton.language, str(dtype).removeprefix("torch.")),
    }
    if not alibi:
        constants["slopes"] = None
    if not segments:
        constants |= {"query_ids": None, "key_ids": None}
    constants |= dict.fromkeys(ones, 1)
    signature: dict[str, object] = {}
    for argument in kernel.arg_names:
        if argument in constants:
            signature[argument] = "constexpr"
        elif argument in ACTIVATIONS:
            signature[argument] = f"*{NAMES[dtype]}"
        elif argument in POINTERS or argument in ("slopes", "query_ids", "key_ids"):
            signature[argument] = POINTERS.get(
                argument, "*fp32" if argument == "slopes" else "*i32"
            )
        elif argument.endswith("_strides"):
            signature[argument] = ("i32", "i32", "i32")
        else:
            signature[argument] = "fp32" if argument == "scale" else "i32"
    # What the launcher finds out about real tensors: addresses and strides divide by 16.
    aligned = [["tt.divisibility", 16]]
    attributes = {}
    for place, kind in enumerate(signature.values()):
        if isinstance(kind, tuple):
            attributes |= {(place, axis): aligned for axis in range(3)}
        elif str(kind).startswith("*"):
            attributes[(place,)] = aligned
    return triton.compile(
        triton.compiler.ASTSource(kernel, signature, constants, attributes),
        target=triton.backends.compiler.GPUTarget("cuda", capability, 32),
        options={"num_warps": launch.warps, "num_stages": launch.stages},
    )


def spilled_bytes(cubin: bytes) -> int:
    """Returns the stack that a thread needs because registers do not suffice."""
    tool = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        usage = subprocess.run(
            [tool, "-res-usage", file.name], capture_output=True, text=True, check=True
        )
    found = re.search(r"STACK:(\d+)", usage.stdout)
    assert found is not None, usage.stdout
    return int(found[1])


@pytest.fixture(autouse=True)
def no_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(triton.knobs.cache, "dir", str(tmp_path))


@pytest.mark.parametrize("capability", [80, 90], ids=lambda capability: f"sm_{capability}")
@pytest.mark.parametrize("name", ["forward", "backward_q", "backward_kv"])
def test_compiles_with_all_features(name: str, capability: int) -> None:
    kernel = compiled(name, torch.bfloat16, capability)
    assert kernel.asm["cubin"].startswith(b"\x7fELF")
    assert kernel.metadata.shared <= SHARED_LIMIT
    spilled = spilled_bytes(kernel.asm["cubin"])
    assert spilled <= 32
    logger.info(
        "%s sm_%d: %.1f KB shared, %d bytes spilled, cubin %.0f KB",
        name,
        capability,
        kernel.metadata.shared / 1024,
        spilled,
        len(kernel.asm["cubin"]) / 1024,
    )
    # Products run on tensor cores, by the instructions of the architecture.
    assert ("wgmma.mma_async" if capability == 90 else "mma.sync") in kernel.asm["ptx"]


@pytest.mark.parametrize(
    ("dtype", "head_dim", "alibi", "segments"),
    [
        (torch.float16, 128, False, False),  # the 7B model's
        (torch.float16, 64, True, False),
        (torch.float32, 64, True, False),
    ],
    ids=["fp16 without bias", "fp16, 64", "fp32, 64"],
)
@pytest.mark.parametrize("name", ["forward", "backward_kv"])
def test_compiles_in_other_forms(name, dtype, head_dim, alibi, segments) -> None:
    kernel = compiled(name, dtype, 80, head_dim, alibi, segments)
    assert kernel.metadata.shared <= SHARED_LIMIT
    # float32 products must not be rounded to TF32.
    assert ("tf32" in kernel.asm["ptx"]) is False


def test_compiles_for_a_decoding_step() -> None:
    kernel = compiled("forward", torch.bfloat16, 80, ones=("queries", "group"))
    assert kernel.metadata.shared <= SHARED_LIMIT


def test_a_launch_that_is_too_large_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    large = cuda_triton.Launch(128, 128, 8, 3)
    monkeypatch.setattr(
        cuda_triton, "launches", lambda *_: cuda_triton.Launches(large, large, large)
    )
    assert compiled("forward", torch.bfloat16, 80).metadata.shared > SHARED_LIMIT


def test_a_cpu_has_a_reason() -> None:
    q = torch.zeros(1, 2, 4, 16)
    with pytest.raises(KernelError, match="'triton' cannot run this: the tensors are on cpu"):
        attention(q, q, q, backend="triton")
    with pytest.raises(KernelError, match=r"flash-attn: the tensors.*; triton: the.*; flex: the"):
        attention(q, q, q, backend="cuda")
