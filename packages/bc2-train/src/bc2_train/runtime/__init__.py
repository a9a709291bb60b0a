"""What megatron-core's calls to ``torch.cuda`` mean on the device at hand.

`install` is called once, explicitly, in a training process; importing this package changes
nothing.
"""

from __future__ import annotations

import os

import torch

from bc2_train.errors import TrainError
from bc2_train.runtime import cpu, cuda, npu

DEVICES = ("auto", "npu", "cuda", "cpu")

# Read by the libraries when they first compute or communicate.
_DETERMINISTIC: dict[str, dict[str, str]] = {
    "cpu": {},
    # Two buffers of cuBLAS whose use does not depend on timing; one way round the ranks.
    "cuda": {"CUBLAS_WORKSPACE_CONFIG": ":4096:8", "NCCL_ALGO": "Ring"},
    "npu": {"HCCL_DETERMINISTIC": "true"},
}

_BACKENDS = {"cpu": "gloo", "cuda": "nccl", "npu": "hccl"}


def install(device: str) -> torch.device:
    """Prepares this process for training on a device and returns that device.

    Args:
        device: ``npu``, ``cuda``, ``cpu``, or ``auto`` for the first of them that is there.

    Raises:
        TrainError: The device is not there, or megatron-core is of a version that the CPU runtime
            was not tested with.
    """
    if device == "auto":
        device = _best()
    match device:
        case "cpu":
            return cpu.install()
        case "cuda":
            return cuda.install()
        case "npu":
            return npu.install()
    raise TrainError(f"device {device!r} is not supported", f"device is one of {DEVICES}")


def make_deterministic(kind: str) -> None:
    """Restricts this process to operators that give the same bits every time.

    Must be called before anything is computed on the device or sent between processes.

    Args:
        kind: The type of the device: ``npu``, ``cuda`` or ``cpu``.
    """
    for name, value in _DETERMINISTIC[kind].items():
        os.environ.setdefault(name, value)
    torch.backends.cudnn.benchmark = False
    torch.use_deterministic_algorithms(True)


def backend(device: torch.device) -> str:
    """Returns the torch.distributed backend of a device: ``gloo``, ``nccl`` or ``hccl``."""
    return _BACKENDS[device.type]


def synchronize(device: torch.device) -> None:
    """Waits until the device has computed what it was given; a CPU always has."""
    if device.type != "cpu":
        getattr(torch, device.type).synchronize(device)


def _best() -> str:
    if npu.available():
        return "npu"
    return "cuda" if torch.cuda.is_available() else "cpu"
