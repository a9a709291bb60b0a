"""Gives values to NPU tensors that lie in host memory.

The stand-in for CANN (`cann.py`) has memory and no operators. Here every operator, below autograd,
runs as its CPU kernel on that same memory; torch_npu's fused operators run as their documentation
in torch_npu 2.13 describes them (``torch_npu/_op_plugin_docs.py``), and the bias that
npu_fusion_attention makes itself as MindSpeed and CANN's kernel sources do. It is our reading of
that documentation: where reading and hardware differ, nothing here notices.
"""

from __future__ import annotations

import ctypes
from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import silu
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

COMPRESSED = (2048, 2048)


class Emulator(TorchDispatchMode):
    """While it is active, NPU tensors can be computed with.

    Attributes:
        calls: How often each fused operator of torch_npu was called, by name.
    """

    def __init__(self) -> None:
        super().__init__()
        self.calls: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        device = kwargs.get("device")
        makes_npu = device is not None and torch.device(device).type == "npu"
        takes_npu = any(map(_on_npu, tree_flatten((args, kwargs))[0]))
        if not makes_npu and not takes_npu:
            return func(*args, **kwargs)
        name = func._schema.name
        if name.startswith("npu::"):
            self.calls[name.removeprefix("npu::")] += 1
        if func.is_view or name in ("aten::detach", "aten::_unsafe_view"):
            return func(*args, **kwargs)
        originals: dict[int, Tensor] = {}

        def to_host(x: Any) -> Any:
            if not _on_npu(x):
                return x
            host = host_view(x)
            originals[id(host)] = x
            return host

        args, kwargs = tree_map(to_host, (args, kwargs))
        if device is not None:
            kwargs["device"] = "cpu"
        result = _OPERATORS.get(name, func)(*args, **kwargs)
        if device is not None and not makes_npu:
            return result

        def to_npu(x: Any) -> Any:
            if not isinstance(x, Tensor):
                return x
            return originals[id(x)] if id(x) in originals else _copy_to_npu(x)

        return tree_map(to_npu, result)


def host_view(x: Tensor) -> Tensor:
    """Returns the memory of an NPU tensor as a CPU tensor."""
    storage = x.untyped_storage()
    if storage.nbytes() == 0:
        return torch.empty_strided(x.shape, x.stride(), dtype=x.dtype)
    memory = (ctypes.c_char * storage.nbytes()).from_address(storage.data_ptr())
    bytes_ = torch.frombuffer(memory, dtype=torch.uint8)
    view = torch.empty(0, dtype=x.dtype)
    return view.set_(bytes_.untyped_storage(), x.storage_offset(), x.shape, x.stride())


def _on_npu(x: Any) -> bool:
    return isinstance(x, Tensor) and x.device.type == "npu"


def _copy_to_npu(x: Tensor) -> Tensor:
    made = torch.empty_strided(x.shape, x.stride(), dtype=x.dtype, device="npu")
    if x.numel():
        host_view(made).copy_(x)
    return made


# npu_fusion_attention_v2 on one sequence: q (heads, queries, head_dim), k and v (heads, keys,
# head_dim).


def _scores(q: Tensor, k: Tensor, options: dict[str, Any]) -> Tensor:
    """Returns the masked scores, float32 (heads, queries, keys)."""
    scale, bias, kind = options["scale"], options["pse"], options["pse_type"]
    product = q.float() @ k.float().mT
    queries, keys = product.shape[-2:]
    if bias is None:
        scores = scale * product
    elif kind == 2:
        assert queries == keys, "pse_type 2 needs as many queries as keys"
        assert bias.dtype == torch.float32
        distance = torch.arange(queries)[:, None] - torch.arange(keys)
        scores = scale * product - bias[:, None, None] * distance.abs()
    else:
        raise NotImplementedError(f"pse_type {kind}")
    mask, mode = options["atten_mask"], options["sparse_mode"]
    if mask is None:  # then sparse_mode has no effect: every query sees every key
        return scores
    assert mask.shape == COMPRESSED
    assert torch.equal(mask, torch.ones_like(mask).triu(1))
    if mode == 2:  # the diagonal begins top left
        hidden = torch.ones(queries, keys).triu(1)
    elif mode == 3:  # it ends bottom right
        assert queries <= keys
        hidden = torch.ones(queries, keys).triu(1 + keys - queries)
    else:
        raise NotImplementedError(f"sparse_mode {mode}")
    return scores.masked_fill(hidden.bool(), -torch.inf)


def _sequences(tensors: list[Tensor], layout: str, ends: list[int] | None) -> list[list[Tensor]]:
    """Returns each sequence's tensors as (heads, seq, head_dim)."""
    if layout == "BNSD":
        return [[x[b] for x in tensors] for b in range(len(tensors[0]))]
    assert layout == "TND"
    assert ends is not None
    starts = [0, *ends[:-1]]
    return [[x[a:b].transpose(0, 1) for x in tensors] for a, b in zip(starts, ends, strict=True)]


def _joined(parts: list[Tensor], layout: str) -> Tensor:
    if layout == "BNSD":
        return torch.stack(parts)
    return torch.cat([part.transpose(0, 1) for part in parts]).contiguous()


# An argument that has its default value does not get as far as the emulator.
_DEFAULTS = {
    "pse": None,
    "pse_type": 1,
    "atten_mask": None,
    "sparse_mode": 0,
    "actual_seq_qlen": None,
    "actual_seq_kvlen": None,
}


def _attention(q, k, v, head_num: int, layout: str, **given: Any) -> tuple[Any, ...]:
    options = _DEFAULTS | given
    assert head_num == q.shape[1]
    assert options["actual_seq_qlen"] == options["actual_seq_kvlen"]
    out, largest, total = [], [], []
    for q1, k1, v1 in _sequences([q, k, v], layout, options["actual_seq_qlen"]):
        group = len(q1) // len(k1)
        scores = _scores(q1, k1.repeat_interleave(group, 0), options)
        top = scores.amax(-1, keepdim=True)
        weights = (scores - top).exp()
        row = weights.sum(-1, keepdim=True)
        out.append((weights / row @ v1.float().repeat_interleave(group, 0)).to(q.dtype))
        largest.append(top.expand(-1, -1, 8))
        total.append(row.expand(-1, -1, 8))
    kept = [_joined(x, layout).contiguous() for x in (out, largest, total)]
    return (*kept, q.new_empty(0), 0, 0, 0)


def _attention_grad(q, k, v, grad, head_num: int, layout: str, **given: Any) -> tuple[Any, ...]:
    options = _DEFAULTS | given | {"scale": given["scale_value"]}
    saved = [options["attention_in"], options["softmax_max"], options["softmax_sum"]]
    parts = []
    for sequence in _sequences([q, k, v, grad, *saved], layout, options["actual_seq_qlen"]):
        q1, k1, v1, grad1, out, largest, total = (x.float() for x in sequence)
        group = len(q1) // len(k1)
        k2, v2 = (x.repeat_interleave(group, 0) for x in (k1, v1))
        weights = (_scores(q1, k2, options) - largest[..., :1]).exp() / total[..., :1]
        delta = (grad1 * out).sum(-1, keepdim=True)
        d_scores = weights * (grad1 @ v2.mT - delta) * options["scale"]
        of_group = [
            x.unflatten(0, (-1, group)).sum(1) for x in (d_scores.mT @ q1, weights.mT @ grad1)
        ]
        parts.append([d_scores @ k2, *of_group])
    grads = [_joined(list(x), layout).to(q.dtype) for x in zip(*parts, strict=True)]
    return (*grads, *(q.new_empty(0) for _ in range(3)), None)


def _rms_norm(x: Tensor, gamma: Tensor, epsilon: float = 1e-6) -> tuple[Tensor, Tensor]:
    reverse_rms = (x.float().square().mean(-1, keepdim=True) + epsilon).rsqrt()
    return (x.float() * reverse_rms * gamma.float()).to(x.dtype), reverse_rms


def _rms_norm_grad(
    grad: Tensor, x: Tensor, gamma: Tensor, reverse_rms: Tensor
) -> tuple[Tensor, Tensor]:
    normal, wide = x.float() * reverse_rms, grad.float() * gamma.float()
    along = (wide * normal).mean(-1, keepdim=True)
    grad_gamma = (grad.float() * normal).flatten(0, -2).sum(0)
    return ((wide - normal * along) * reverse_rms).to(x.dtype), grad_gamma


def _swiglu(x: Tensor, dim: int = -1) -> Tensor:
    gate, up = x.chunk(2, dim)
    return silu(gate) * up


def _swiglu_grad(grad: Tensor, x: Tensor, dim: int = -1) -> Tensor:
    gate, up = x.chunk(2, dim)
    return torch.cat((torch.ops.aten.silu_backward(grad * up, gate), grad * silu(gate)), dim)


def _turned(x: Tensor) -> Tensor:
    first, second = x.chunk(2, -1)
    return torch.cat((-second, first), -1)


def _rotary(x: Tensor, cos: Tensor, sin: Tensor, rotary_mode: str = "half", rotate=None) -> Tensor:
    assert rotary_mode == "half"
    assert rotate is None
    return x * cos + _turned(x) * sin


def _rotary_grad(grad, x, cos, sin, rotary_mode: str = "half", *_: Any) -> tuple[Tensor, ...]:
    assert rotary_mode == "half"
    wide = (grad * x).sum_to_size(cos.shape), (grad * _turned(x)).sum_to_size(sin.shape)
    return grad * cos - _turned(grad * sin), *wide


def _matmul_grad(grad: Tensor, a: Tensor, b: Tensor, mask: list[bool]) -> tuple[Any, Any]:
    """torch_npu keeps matmul whole for autograd; CPUs have no kernel of that name."""
    grad_a = (grad @ b.mT).sum_to_size(a.shape) if mask[0] else None
    if not mask[1]:
        return grad_a, None
    if b.dim() == 2 and a.dim() > 2:
        return grad_a, a.flatten(0, -2).mT @ grad.flatten(0, -2)
    return grad_a, (a.mT @ grad).sum_to_size(b.shape)


_OPERATORS: dict[str, Callable[..., Any]] = {
    "aten::matmul_backward": _matmul_grad,
    "npu::npu_fusion_attention_v2": _attention,
    "npu::npu_fusion_attention_grad_v2": _attention_grad,
    "npu::npu_rms_norm": _rms_norm,
    "npu::npu_rms_norm_backward": _rms_norm_grad,
    "npu::npu_swiglu": _swiglu,
    "npu::npu_swiglu_backward": _swiglu_grad,
    "npu::npu_rotary_mul": _rotary,
    "npu::npu_rotary_mul_backward": _rotary_grad,
}
