"""Attention on NVIDIA GPUs through our own Triton kernels (extra `cuda`).

Takes every problem with tensors of 16 or 32 bits. triton is imported only when a problem runs.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from bc2_model.kernels.backends.cuda_triton_plan import Geometry, key_blocks, query_blocks
from bc2_model.kernels.problem import AttentionProblem

NAME = "triton"

MAX_HEAD_DIM = 128


@dataclass(frozen=True, slots=True)
class Launch:
    """How a kernel is cut and launched.

    Attributes:
        block_m: Queries a tile.
        block_n: Keys a tile.
        warps: Of 32 threads, a program.
        stages: Tiles on their way from memory at a time.
    """

    block_m: int
    block_n: int
    warps: int
    stages: int


@dataclass(frozen=True, slots=True)
class Launches:
    """Those of the three kernels."""

    forward: Launch
    backward_q: Launch
    backward_kv: Launch


def launches(dtype: torch.dtype, head_dim: int) -> Launches:
    """Returns how the kernels are launched.

    The sizes keep every kernel within 99 KB of shared memory, what the smallest GPU of compute
    capability 8.x gives to one program, and without register spills to speak of; both are read
    from the compiled kernels in the tests.
    """
    if dtype == torch.float32:  # multiplied without tensor cores
        return Launches(Launch(64, 32, 8, 1), Launch(32, 32, 8, 1), Launch(16, 32, 4, 1))
    if head_dim <= 64:
        return Launches(Launch(128, 64, 4, 2), Launch(64, 64, 4, 2), Launch(64, 64, 8, 2))
    return Launches(Launch(128, 64, 8, 2), Launch(64, 64, 8, 2), Launch(32, 64, 8, 2))


def unsupported_reason(problem: AttentionProblem) -> str | None:
    """Returns why this problem cannot run here, or None where it can."""
    device = problem.q.device
    if device.type != "cuda":
        return f"the tensors are on {device}"
    if importlib.util.find_spec("triton") is None:
        return "triton is not installed: python3 -m pip install 'bc2-model[cuda]'"
    capability = torch.cuda.get_device_capability(device)
    if capability < (8, 0):
        major, minor = capability
        return f"{device} has compute capability {major}.{minor}, the kernels need 8.0"
    if problem.q.dtype == torch.float64:
        return "float64 has no Triton kernel"
    if problem.q.shape[3] > MAX_HEAD_DIM:
        return f"head_dim {problem.q.shape[3]} is above {MAX_HEAD_DIM}"
    return None


def attention(problem: AttentionProblem) -> Tensor:
    """Solves a problem that has no `unsupported_reason`."""
    geometry = Geometry(
        queries=problem.q.shape[2],
        keys=problem.k.shape[2],
        shift=problem.shift,
        causal=problem.causal,
        scale=problem.scale,
        slopes=None if problem.slopes is None else problem.slopes.contiguous(),
        query_ids=_as_ids(problem.query_ids),
        key_ids=_as_ids(problem.key_ids),
    )
    q, k, v = (_unit_stride(x) for x in (problem.q, problem.k, problem.v))
    out: Tensor = _Attention.apply(q, k, v, geometry)  # type: ignore[no-untyped-call]
    return out


def _as_ids(ids: Tensor | None) -> Tensor | None:
    return None if ids is None else ids.to(torch.int32).contiguous()


def _unit_stride(x: Tensor) -> Tensor:
    """Returns x with neighbouring elements along head_dim, which the kernels take for granted."""
    return x if x.stride(-1) == 1 else x.contiguous()


class _Attention(torch.autograd.Function):
    """Shapes as in AttentionProblem."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, geometry: Geometry) -> Tensor:
        from bc2_model.kernels.backends import cuda_triton_kernels as kernels

        batch, heads, queries, head_dim = q.shape
        launch = launches(q.dtype, head_dim).forward
        plan = key_blocks(geometry, q, k, launch.block_m, launch.block_n)
        out = torch.empty_like(q)
        log_sum = torch.empty(q.shape[:3], dtype=torch.float32, device=q.device)
        with torch.cuda.device_of(q):  # type: ignore[no-untyped-call]
            kernels.forward[-(-queries // launch.block_m), heads, batch](
                q,
                k,
                v,
                out,
                log_sum,
                geometry.slopes,
                geometry.query_ids,
                geometry.key_ids,
                plan,
                *_strides(q, k, v, out),
                _plan_strides(plan),
                **_sizes(kernels.forward, geometry, q, k, launch),
            )
        ctx.save_for_backward(q, k, v, out, log_sum)
        ctx.geometry = geometry
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        from bc2_model.kernels.backends import cuda_triton_kernels as kernels

        q, k, v, out, log_sum = ctx.saved_tensors
        geometry: Geometry = ctx.geometry
        grad = _unit_stride(grad)
        batch, heads, queries, head_dim = q.shape
        kv_heads, keys = k.shape[1:3]
        dq, dk, dv = (torch.empty_like(x) for x in (q, k, v))
        delta = torch.empty_like(log_sum)
        common = (log_sum, delta, geometry.slopes, geometry.query_ids, geometry.key_ids)
        with torch.cuda.device_of(q):  # type: ignore[no-untyped-call]
            launch = launches(q.dtype, head_dim).backward_q
            plan = key_blocks(geometry, q, k, launch.block_m, launch.block_n)
            kernels.backward_q[-(-queries // launch.block_m), heads, batch](
                q,
                k,
                v,
                out,
                grad,
                dq,
                *common,
                plan,
                *_strides(q, k, v, out, grad, dq),
                _plan_strides(plan),
                **_sizes(kernels.backward_q, geometry, q, k, launch),
            )
            launch = launches(q.dtype, head_dim).backward_kv
            plan = query_blocks(geometry, q, k, launch.block_m, launch.block_n)
            kernels.backward_kv[-(-keys // launch.block_n), kv_heads, batch](
                q,
                k,
                v,
                grad,
                dk,
                dv,
                *common,
                plan,
                *_strides(q, k, v, grad, dk, dv),
                _plan_strides(plan),
                **_sizes(kernels.backward_kv, geometry, q, k, launch),
            )
        return dq, dk, dv, None


def _strides(*tensors: Tensor) -> list[tuple[int, ...]]:
    """Returns the strides over batch, heads and rows."""
    return [x.stride()[:3] for x in tensors]


def _plan_strides(plan: Tensor) -> tuple[int, ...]:
    """Returns the strides over batch, heads and blocks: 0 where one plan serves all."""
    strides = zip(plan.shape[:3], plan.stride()[:3], strict=True)
    return tuple(0 if size == 1 else stride for size, stride in strides)


def _sizes(
    kernel: object, geometry: Geometry, q: Tensor, k: Tensor, launch: Launch
) -> dict[str, object]:
    """Returns the arguments that the three kernels share."""
    import triton.language as tl
    from triton import JITFunction

    dot = getattr(tl, str(q.dtype).removeprefix("torch."))
    if dot == tl.bfloat16 and not isinstance(kernel, JITFunction):
        dot = tl.float32  # Triton's interpreter multiplies bfloat16 as if it were uint16.
    return {
        "queries": geometry.queries,
        "keys": geometry.keys,
        "shift": geometry.shift,
        "group": q.shape[1] // k.shape[1],
        "scale": geometry.scale,
        "HEAD_DIM": q.shape[3],
        "BLOCK_M": launch.block_m,
        "BLOCK_N": launch.block_n,
        "CAUSAL": geometry.causal,
        "DOT": dot,
        "num_warps": launch.warps,
        "num_stages": launch.stages,
    }
