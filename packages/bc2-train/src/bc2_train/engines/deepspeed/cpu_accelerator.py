"""DeepSpeed's CPU, as it should be for training."""

from __future__ import annotations

from deepspeed.accelerator.cpu_accelerator import CPU_Accelerator


class CpuAccelerator(CPU_Accelerator):
    """Offers no operation that would have to be compiled first, and all precisions of torch."""

    def create_op_builder(self, op_name: str) -> None:
        """Returns None: without the operation, DeepSpeed calls torch."""

    def is_fp16_supported(self) -> bool:
        """Returns True: torch computes in float16 on any CPU, if slowly."""
        return True
