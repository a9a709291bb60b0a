"""Training on CPUs: lets the unmodified megatron-core from PyPI run without CUDA, over gloo.

megatron-core asks ``torch.cuda`` for the current device, synchronises streams, draws random
numbers from the CUDA generator and creates its scalars with ``device="cuda"``. `install` gives the
modules below ``megatron.core``, and no others, a ``torch`` whose ``cuda`` and factory functions
mean the CPU. Three functions are replaced where they are: ``torch.Tensor.type`` and ``.cuda``, for
calls from megatron-core alone, which compares types with ``torch.cuda.FloatTensor``; and
megatron-core's setter of the CUDA generator, which is written on private functions of torch.
"""

from __future__ import annotations

import functools
import importlib
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import torch

from bc2_train.errors import TrainError

TESTED_MEGATRON = ("0.16.1",)

_CPU = torch.device("cpu")
_TYPE_NAMES = {torch.float32: "Float", torch.float16: "Half", torch.bfloat16: "BFloat16"}
_FACTORIES = ("arange", "empty", "full", "ones", "rand", "randn", "tensor", "zeros")

# Everything of megatron-core that training reaches: what is imported later keeps the real torch.
_MODULES = (
    "megatron.core.datasets.blended_megatron_dataset_builder",
    "megatron.core.datasets.gpt_dataset",
    "megatron.core.dist_checkpointing",
    "megatron.core.dist_checkpointing.strategies.async_utils",
    "megatron.core.dist_checkpointing.strategies.torch",
    "megatron.core.distributed",
    "megatron.core.models.gpt",
    "megatron.core.optimizer",
    "megatron.core.pipeline_parallel.schedules",
)


def install() -> torch.device:
    """Prepares this process for megatron-core on the CPU; a second call does nothing.

    Raises:
        TrainError: megatron-core is of a version that this was not tested with.
    """
    import megatron.core

    version = megatron.core.__version__
    if version not in TESTED_MEGATRON:
        raise TrainError(
            f"the CPU runtime was not tested with megatron-core {version}",
            f"python3 -m pip install megatron-core=={TESTED_MEGATRON[-1]}",
        )
    for name in _MODULES:
        importlib.import_module(name)
    if isinstance(megatron.core.parallel_state.torch, _CpuTorch):
        return _CPU

    cpu_torch = _CpuTorch()
    for name, module in list(sys.modules.items()):
        if name.startswith("megatron.core"):
            _rebind(module, cpu_torch)
    tensor: Any = torch.Tensor
    tensor.type = _for_megatron(tensor.type, _cuda_type)
    tensor.cuda = _for_megatron(tensor.cuda, _stay)
    random = sys.modules["megatron.core.tensor_parallel.random"]
    random._set_cuda_rng_state = _set_rng_state  # type: ignore[attr-defined]
    return _CPU


class _CpuTorch(ModuleType):
    """A view of torch in which CUDA means the CPU."""

    def __init__(self) -> None:
        super().__init__("torch")
        self.__dict__.update(torch.__dict__)
        self.cuda = _CpuCuda()
        for name in _FACTORIES:
            setattr(self, name, _on_cpu(getattr(torch, name)))

    def __getattr__(self, name: str) -> Any:  # torch loads some of its submodules late
        return getattr(torch, name)


class _CpuCuda(ModuleType):
    """A view of torch.cuda for a host without CUDA: one device, nothing to synchronise."""

    def __init__(self) -> None:
        super().__init__("torch.cuda")
        self.random = ModuleType("torch.cuda.random")
        self.random.get_rng_state = _get_rng_state  # type: ignore[attr-defined]
        self.get_rng_state = _get_rng_state
        self.manual_seed = torch.manual_seed

    def __getattr__(self, name: str) -> Any:
        return getattr(torch.cuda, name)

    @staticmethod
    def current_device() -> torch.device:
        return _CPU

    @staticmethod
    def synchronize(device: Any = None) -> None:
        """Does nothing: on a CPU an operation has ended when its call returns."""


def _rebind(module: ModuleType, cpu_torch: ModuleType) -> None:
    for name, value in list(vars(module).items()):
        if value is torch:
            setattr(module, name, cpu_torch)
        elif hasattr(value, "_torchdynamo_orig_callable"):
            # megatron-core compiles small functions at import; on a CPU their compilation costs
            # half a minute a process and saves nothing.
            setattr(module, name, value._torchdynamo_orig_callable)


def _on_cpu(factory: Callable[..., Any]) -> Callable[..., Any]:
    """Lets a factory function take ``device="cuda"`` and ``pin_memory=True`` for the CPU."""

    @functools.wraps(factory)
    def create(*args: Any, **kwargs: Any) -> Any:
        if "device" in kwargs and torch.device(kwargs["device"] or "cpu").type == "cuda":
            kwargs["device"] = _CPU
        kwargs.pop("pin_memory", None)
        return factory(*args, **kwargs)

    return create


def _for_megatron(original: Callable[..., Any], adapted: Callable[..., Any]) -> Callable[..., Any]:
    """Returns a method that is `adapted` where megatron-core calls it, else `original`."""

    @functools.wraps(original)
    def method(tensor: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        caller = sys._getframe(1).f_globals.get("__name__", "")
        chosen = adapted if caller.startswith("megatron.core") else original
        return chosen(tensor, *args, **kwargs)

    return method


def _cuda_type(tensor: torch.Tensor) -> str:
    """Returns such as ``torch.cuda.FloatTensor``."""
    return f"torch.cuda.{_TYPE_NAMES[tensor.dtype]}Tensor"


def _stay(tensor: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
    """Returns the tensor: it is on the device already."""
    return tensor


def _get_rng_state(device: Any = None) -> torch.Tensor:
    return torch.get_rng_state()


def _set_rng_state(new_state: torch.Tensor, device: int = -1, graph_safe: bool = False) -> None:
    torch.set_rng_state(new_state)
