"""Which device to compute on."""

from __future__ import annotations

import importlib
import importlib.util

import torch

from bc2_model.errors import ModelError


def pick_device(name: str) -> torch.device:
    """Returns the device of a name: ``auto`` (NPU or CUDA where there is one), cpu, cuda, npu.

    Raises:
        ModelError: The device cannot be used here.
    """
    available = {"npu": _has_npu(), "cuda": torch.cuda.is_available(), "cpu": True}
    if name == "auto":
        name = next(kind for kind, usable in available.items() if usable)
    if not available[name]:
        raise ModelError(f"no {name} device can be used here", "use --device auto")
    return torch.device(name)


def _has_npu() -> bool:
    """Whether torch_npu is installed and sees a device; importing it makes torch know NPUs."""
    if importlib.util.find_spec("torch_npu") is None:
        return False
    return bool(importlib.import_module("torch_npu").npu.is_available())
