"""RMSNorm for megatron-core layers."""

from __future__ import annotations

from typing import Any

import torch
from megatron.core.transformer.transformer_config import TransformerConfig

from bc2_model import kernels


class RMSNorm(torch.nn.Module):
    """Root-mean-square norm that also works on a sequence-parallel shard.

    megatron-core's own torch norm refuses sequence parallelism.

    Args:
        config: The model under its parallel layout.
        hidden_size: Width of the input's last dimension.
        eps: Added to the mean square.
        **_: What megatron-core passes to other norms.
    """

    def __init__(
        self, config: TransformerConfig, hidden_size: int, eps: float = 1e-6, **_: Any
    ) -> None:
        super().__init__()
        self.eps = eps
        device = None if config.use_cpu_initialization else torch.cuda.current_device()
        weight = torch.ones(hidden_size, dtype=config.params_dtype, device=device)
        self.weight = torch.nn.Parameter(weight)
        # Tells megatron-core to sum this gradient over the tensor-parallel group: each rank has
        # seen a part of the sequence.
        self.weight.sequence_parallel = config.sequence_parallel  # type: ignore[attr-defined]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Normalises x (..., hidden_size) over its last dimension."""
        return kernels.rms_norm(x, self.weight, self.eps)
