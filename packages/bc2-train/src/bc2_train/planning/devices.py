"""What the devices that a run may be planned for can do."""

from __future__ import annotations

from dataclasses import dataclass

from bc2_train.peaks import peak_tflops

GIGA = 1e9


@dataclass(frozen=True, kw_only=True)
class Device:
    """One accelerator and its share of the links of its node.

    Attributes:
        name: As ``--device`` has it.
        memory: Bytes.
        usable: The share of `memory` that a run may plan with; the rest is for the driver, for
            the buffers of the communication library and for fragmentation.
        peak: Floating-point operations a second of dense matrix products in 16 bits.
        peak_float32: The same in float32.
        efficiency: The share of the peak that the matrix products of a step reach.
        memory_bandwidth: Bytes a second between the device and its memory.
        inside: Bytes a second that the device sends to others of its node, in one direction.
        between: Bytes a second that the device sends to other nodes.
        latency: Seconds until a message inside a node arrives.
        latency_between: Seconds until a message to another node arrives.
    """

    name: str
    memory: float
    usable: float = 0.9
    peak: float
    peak_float32: float
    efficiency: float
    memory_bandwidth: float
    inside: float
    between: float
    latency: float = 5e-6
    latency_between: float = 15e-6

    def rate(self, precision: str) -> float:
        """Returns the operations a second that matrix products reach."""
        return self.efficiency * (self.peak_float32 if precision == "float32" else self.peak)

    @property
    def budget(self) -> float:
        """Bytes that a run may need."""
        return self.memory * self.usable


def _peak(name: str) -> float:
    tflops = peak_tflops(name, "bfloat16")
    assert tflops is not None
    return tflops * 1e12


DEVICES = {
    "ascend-910b": Device(
        name="ascend-910b",
        memory=64 * GIGA,
        peak=_peak("910B3"),
        peak_float32=_peak("910B3") / 4,
        efficiency=0.51,
        memory_bandwidth=1.6e12,
        inside=196 * GIGA,
        between=25 * GIGA,
    ),
    "a100-80g": Device(
        name="a100-80g",
        memory=80 * GIGA,
        peak=_peak("A100"),
        peak_float32=19.5e12,
        efficiency=0.6,
        memory_bandwidth=2.039e12,
        inside=300 * GIGA,
        between=25 * GIGA,
    ),
    "h100": Device(
        name="h100",
        memory=80 * GIGA,
        peak=_peak("H100"),
        peak_float32=67e12,
        efficiency=0.5,
        memory_bandwidth=3.35e12,
        inside=450 * GIGA,
        between=50 * GIGA,
    ),
    "cpu": Device(
        name="cpu",
        memory=16 * GIGA,
        peak=100 * GIGA,
        peak_float32=100 * GIGA,
        efficiency=0.7,
        memory_bandwidth=10 * GIGA,
        inside=2 * GIGA,
        between=1 * GIGA,
        latency=50e-6,
        latency_between=100e-6,
    ),
}
"""The devices by name.

Sources. 910B: 64 GB of HBM at 1.6 TB/s, seven HCCS links of 28 GB/s a direction to the other
devices of its node, and one 200 Gbit/s RoCE port a device, of Huawei's Atlas 800T A2; the part is
taken for a 910B3. A100 and H100 (SXM): NVIDIA's data sheets; NVLink 600 and 900 GB/s counting both
directions; a 200 and 400 Gbit/s port a device as in DGX. CPU: one core with 16 GB to itself.

Efficiencies. 910B: calibrated on one row of AscendSpeed's README, the 7B on 8 devices. A100 and
H100: assumed, never measured here. CPU: measured on one core of an AMD EPYC (docs/benchmarks.md).
The rest of a step, communication and bubble, is modelled, so an efficiency is above the MFU of
whole runs. Latencies, and the bandwidths of CPUs, are assumptions as well.
"""
