"""What a call adds to the memory in use, on any device."""

from __future__ import annotations

import ctypes
import gc
import re
from collections.abc import Callable
from pathlib import Path

import torch


def peak_of(call: Callable[[], object], device: torch.device) -> int | None:
    """Returns how many bytes a call adds at most to what is in use.

    On a CPU that is the resident memory of the process, which only Linux tells: None elsewhere.
    """
    gc.collect()
    if device.type == "cpu":
        return _resident_peak_of(call)
    accelerator = torch.get_device_module(device)
    accelerator.synchronize(device)
    accelerator.reset_peak_memory_stats(device)
    before = int(accelerator.memory_allocated(device))
    call()
    accelerator.synchronize(device)
    return int(accelerator.max_memory_allocated(device)) - before


def _resident_peak_of(call: Callable[[], object]) -> int | None:
    marks = Path("/proc/self/clear_refs")
    if not marks.exists():
        return None
    ctypes.CDLL(None).malloc_trim(0)  # or what was freed before would serve this call unseen
    marks.write_text("5")  # sets the high-water mark to the present
    before = _resident("VmRSS")
    call()
    return _resident("VmHWM") - before


def _resident(name: str) -> int:
    """Returns a number of bytes out of /proc/self/status."""
    status = Path("/proc/self/status").read_text()
    found = re.search(rf"^{name}:\s+(\d+) kB", status, re.MULTILINE)
    assert found is not None, f"/proc/self/status has no {name}"
    return int(found[1]) * 1024
