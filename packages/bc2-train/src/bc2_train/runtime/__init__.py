"""What megatron-core's calls to ``torch.cuda`` mean on the device at hand.

`install` is called once, explicitly, in a training process; importing this package changes
nothing.
"""

from __future__ import annotations

import torch

from bc2_train.errors import TrainError

DEVICES = ("auto", "cuda", "cpu")


def install(device: str) -> torch.device:
    """Prepares this process for training on a device and returns that device.

    Args:
        device: ``cpu``, ``cuda``, or ``auto`` for CUDA where it is available and CPU otherwise.

    Raises:
        TrainError: The device is not there, or megatron-core is of a version that the CPU runtime
            was not tested with.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cpu":
        from bc2_train.runtime import cpu

        return cpu.install()
    if device == "cuda":
        from bc2_train.runtime import cuda

        return cuda.install()
    raise TrainError(f"device {device!r} is not supported", f"device is one of {DEVICES}")


def backend(device: torch.device) -> str:
    """Returns the torch.distributed backend of a device: ``gloo`` or ``nccl``."""
    return {"cpu": "gloo", "cuda": "nccl"}[device.type]
