"""The most that devices can compute, from their data sheets."""

from __future__ import annotations

_PEAKS = (
    ("H100 PCIe", 756.0),
    ("H100 NVL", 835.0),
    ("H100", 989.4),
    ("H200", 989.4),
    ("H800", 989.4),
    ("A100", 312.0),
    ("A800", 312.0),
    ("910B2", 376.0),
    ("910B3", 313.0),
    ("910B4", 280.0),
)
"""Part of a device's name, and its dense bfloat16 and float16 peak in TFLOP/s.

The first part that a name holds counts. Sources: NVIDIA's data sheets of A100, H100 and H200, the
rates without sparsity; of Ascend, a server's published peak divided by its eight devices.
"""


def peak_tflops(device: str, precision: str) -> float | None:
    """Returns the peak of a device in TFLOP/s, or None where it is not known.

    Args:
        device: Its name, as its driver has it.
        precision: Of the matrix products; float32 has no peak here, since what it means depends
            on whether TF32 may stand in for it.
    """
    if precision not in ("bfloat16", "float16"):
        return None
    return next((peak for part, peak in _PEAKS if part in device), None)
