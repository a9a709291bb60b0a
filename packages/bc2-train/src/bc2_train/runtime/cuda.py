"""Training on NVIDIA GPUs: megatron-core's own ground, so there is little to prepare."""

from __future__ import annotations

import os

import torch

from bc2_train.errors import TrainError


def install() -> torch.device:
    """Takes the GPU of this process's local rank and returns it.

    Raises:
        TrainError: This host has no such GPU.
    """
    rank = int(os.environ.get("LOCAL_RANK", "0"))
    if rank >= torch.cuda.device_count():
        raise TrainError(
            f"local rank {rank} has no GPU: this host shows {torch.cuda.device_count()}",
            "start fewer processes with --nproc-per-node, or add --set device=cpu",
        )
    torch.cuda.set_device(rank)
    return torch.device("cuda", rank)
