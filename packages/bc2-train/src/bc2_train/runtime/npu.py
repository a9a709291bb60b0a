"""Training on Ascend NPUs, through torch_npu's own transfer of ``torch.cuda``.

``torch_npu.contrib.transfer_to_npu`` makes torch.cuda mean the NPU in the whole process, which is
the way Ascend's documentation gives for code written for CUDA, megatron-core included. It has been
checked here as far as that goes without a device; see docs/architecture.md.
"""

from __future__ import annotations

import importlib
import os

import torch

from bc2_train.errors import TrainError


def available() -> bool:
    """Returns whether torch_npu is there and sees a device."""
    npu = getattr(torch, "npu", None)
    return npu is not None and bool(npu.is_available())


def install() -> torch.device:
    """Takes the NPU of this process's local rank and returns it.

    Raises:
        TrainError: torch_npu is not installed, or there is no such device.
    """
    try:
        importlib.import_module("torch_npu")
    except ImportError as error:
        raise TrainError(
            f"torch_npu cannot be imported: {error}",
            "python3 -m pip install 'bc2-train[npu]', with CANN's set_env.sh sourced",
        ) from error
    importlib.import_module("torch_npu.contrib.transfer_to_npu")
    rank = int(os.environ.get("LOCAL_RANK", "0"))
    count = torch.npu.device_count()  # type: ignore[attr-defined]
    if rank >= count:
        raise TrainError(
            f"local rank {rank} has no NPU: this host shows {count}",
            "start fewer processes with --nproc-per-node; npu-smi info lists the devices",
        )
    torch.npu.set_device(rank)  # type: ignore[attr-defined]
    return torch.device("npu", rank)
