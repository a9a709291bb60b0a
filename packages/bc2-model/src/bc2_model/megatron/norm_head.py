"""NormHead as a vocabulary-parallel output layer.

Source: ``NormHead`` in the official modeling_baichuan.py, which multiplies by the row-normalised
weight in training and evaluation alike.
"""

from __future__ import annotations

from typing import Any

import torch
from megatron.core.tensor_parallel import ColumnParallelLinear
from megatron.core.tensor_parallel.mappings import gather_from_tensor_model_parallel_region


class NormHead(ColumnParallelLinear):
    """Output layer whose logits are those of the row-normalised weight.

    The stored weight stays raw, and no normalised copy of it is made: the row norms scale the
    columns of the logits. Rows beyond the true vocabulary, which tensor parallelism adds, get the
    smallest logit of the dtype and so no part in any softmax.

    Args:
        hidden_size: Width of the input.
        padded_vocab_size: Rows of the weight over all ranks.
        vocab_size: True rows.
        normalise: Whether to divide by the row norms; false for Baichuan 1.
        **options: Those of ColumnParallelLinear.
    """

    def __init__(
        self,
        hidden_size: int,
        padded_vocab_size: int,
        *,
        vocab_size: int,
        normalise: bool,
        **options: Any,
    ) -> None:
        super().__init__(hidden_size, padded_vocab_size, bias=False, **options)
        first = self.tp_group.rank() * self.output_size_per_partition
        self.true_rows = min(max(vocab_size - first, 0), self.output_size_per_partition)
        self.normalise = normalise

    def forward(
        self,
        input_: torch.Tensor,
        weight: torch.Tensor | None = None,
        runtime_gather_output: bool | None = None,
    ) -> tuple[torch.Tensor, None]:
        """Returns the logits of this rank's rows, or of all rows where they are gathered.

        Args:
            input_: (seq, batch, hidden_size); a shard of seq under sequence parallelism.
            weight: Must be None: Baichuan does not tie its embeddings.
            runtime_gather_output: Overrides ``gather_output``.

        Returns:
            (seq, batch, rows) and None for the bias.
        """
        logits, _ = super().forward(input_, weight, runtime_gather_output=False)
        if self.normalise:
            norms = torch.linalg.vector_norm(self.weight, dim=1, dtype=torch.float32)
            # The epsilon is that of torch.nn.functional.normalize; padding rows are zero.
            logits = logits * norms.clamp_min(1e-12).reciprocal().to(logits.dtype)
        if self.true_rows < self.output_size_per_partition:
            logits[..., self.true_rows :] = torch.finfo(logits.dtype).min
        gather = self.gather_output if runtime_gather_output is None else runtime_gather_output
        if gather:
            logits = gather_from_tensor_model_parallel_region(logits, group=self.tp_group)
        return logits, None
