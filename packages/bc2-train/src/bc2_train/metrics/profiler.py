"""Traces of some steps by the profiler of torch, or on NPUs by that of torch_npu.

``RUN/profile/`` then holds Chrome traces, which https://ui.perfetto.dev and TensorBoard show.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from bc2_train.metrics.records import Record, StepMetrics


class StepProfiler:
    """Records this process from now on until the steps that were asked for are over.

    Args:
        folder: Where the traces go.
        device: This process's device.
        settling: Steps that pass unrecorded before one that warms the profiler up.
        steps: Steps to record.
    """

    def __init__(self, folder: Path, device: torch.device, *, settling: int, steps: int) -> None:
        folder.mkdir(exist_ok=True)
        make = _npu_profile if device.type == "npu" else _torch_profile
        self._profile: Any = make(folder, settling, steps)
        self._profile.start()

    def write(self, record: Record) -> None:
        """Is told with its metrics that a step has ended."""
        if isinstance(record, StepMetrics):
            self._profile.step()

    def close(self) -> None:
        """Ends the recording; a run that ends early leaves the trace of what there was."""
        self._profile.stop()


def _torch_profile(folder: Path, settling: int, steps: int) -> torch.profiler.profile:
    from torch.profiler import ProfilerActivity, profile, schedule

    activities = [ProfilerActivity.CPU]
    if torch.cuda.is_available():
        activities.append(ProfilerActivity.CUDA)
    return profile(
        activities=activities,
        schedule=schedule(wait=settling, warmup=1, active=steps, repeat=1),
        on_trace_ready=_export(folder),
        profile_memory=True,
        record_shapes=True,
    )


def _export(folder: Path) -> Callable[[Any], None]:
    def export(profile: Any) -> None:
        profile.export_chrome_trace(str(folder / "rank_0.json.gz"))

    return export


def _npu_profile(folder: Path, settling: int, steps: int) -> Any:
    """Returns torch_npu's profiler, which writes a folder with ``trace_view.json`` and tables.

    Source: torch_npu/profiler/profiler.py, whose arguments are those of torch.profiler.
    """
    profiler = importlib.import_module("torch_npu").profiler
    activity = profiler.ProfilerActivity
    return profiler.profile(
        activities=[activity.CPU, activity.NPU],
        schedule=profiler.schedule(wait=settling, warmup=1, active=steps, repeat=1),
        on_trace_ready=profiler.tensorboard_trace_handler(str(folder)),
        profile_memory=True,
        record_shapes=True,
    )
