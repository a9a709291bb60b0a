"""Tells DeepSpeed which device it runs on, and keeps it from compiling anything on a CPU."""

from __future__ import annotations

import logging
import os

import torch


def install(device: torch.device) -> None:
    """Sets DeepSpeed's accelerator; a second call does nothing.

    On a CPU, DeepSpeed compiles a C++ module when it first communicates. A process that dies in the
    middle leaves a lock behind on which every later run hangs, and the module serves inference
    alone. Its accelerator for CPUs is therefore replaced by one that has nothing to compile.

    Args:
        device: This process's device.
    """
    os.environ["DS_ACCELERATOR"] = device.type  # read when deepspeed is first imported
    import deepspeed.accelerator

    # It warns about all that our settings ask for on purpose.
    logging.getLogger("DeepSpeed").setLevel(logging.ERROR)
    if device.type == "cpu":
        from bc2_train.engines.deepspeed.cpu_accelerator import CpuAccelerator

        if not isinstance(deepspeed.accelerator.get_accelerator(), CpuAccelerator):
            deepspeed.accelerator.set_accelerator(CpuAccelerator())
