"""Are the devices there, and enough of them?"""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator
from typing import Any

from bc2_model.errors import ModelError
from bc2_train.doctor.finding import Finding, ok, problem, warning
from bc2_train.environment import device_name


def check(device: str, processes: int) -> Iterator[Finding]:
    """Yields what there is to compute on.

    Args:
        device: ``auto``, ``npu``, ``cuda`` or ``cpu``.
        processes: That would be started on this host, each with a device of its own.
    """
    import torch

    kind = chosen(device)
    if kind != "cuda" and glob.glob("/dev/nvidia[0-9]*") and not torch.cuda.is_available():
        yield warning(
            f"there is an NVIDIA GPU, but torch {torch.__version__} cannot use it",
            "install torch for CUDA, and a driver that is new enough for it: nvidia-smi",
        )
    if kind == "cpu":
        yield _cpu(processes)
        return
    module: Any = getattr(torch, kind)
    count = module.device_count()
    if count < processes:
        yield problem(
            f"{processes} processes need a {kind} device each, and {count} are visible",
            "start fewer with --nproc-per-node, or look at CUDA_VISIBLE_DEVICES or "
            "ASCEND_RT_VISIBLE_DEVICES",
        )
    for index in range(count):
        free, total = (size / 2**30 for size in module.mem_get_info(index))
        text = (
            f"{kind}:{index} {device_name(torch.device(kind, index))}, "
            f"{free:.1f} of {total:.1f} GiB free"
        )
        taken = free < 0.9 * total
        yield (
            warning(text, "another process uses it: nvidia-smi, or npu-smi info")
            if taken
            else (ok(text))
        )


def chosen(device: str) -> str:
    """Returns the kind of device that ``auto`` stands for on this machine, or the given one.

    Raises:
        ModelError: It cannot be used here.
    """
    import torch

    from bc2_model.device import pick_device

    try:
        return pick_device(device).type
    except (ImportError, OSError, RuntimeError) as error:
        if device != "auto":
            raise ModelError(
                f"device {device} cannot be used here: {error}", "what Ascend's checks say above"
            ) from error
        # torch_npu is broken, which is told already; the other checks look at what there is.
        return "cuda" if torch.cuda.is_available() else "cpu"


def _cpu(processes: int) -> Finding:
    import torch

    cores = len(os.sched_getaffinity(0))
    text = f"{cores} cores of {device_name(torch.device('cpu'))}"
    if cores < processes:
        return warning(
            f"{text}, fewer than {processes} processes", "start fewer with --nproc-per-node"
        )
    return ok(text)
