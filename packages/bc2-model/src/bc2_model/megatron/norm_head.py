"""NormHead as a vocabulary-parallel output layer, which also knows its loss.

Source: ``NormHead`` in the official modeling_baichuan.py, which multiplies by the row-normalised
weight in training and evaluation alike.
"""

from __future__ import annotations

from typing import Any

import torch
from megatron.core.tensor_parallel import ColumnParallelLinear
from megatron.core.tensor_parallel.mappings import (
    gather_from_sequence_parallel_region,
    gather_from_tensor_model_parallel_region,
)

from bc2_model import kernels
from bc2_model.kernels.row_norms import EPS, row_lengths


class NormHead(ColumnParallelLinear):
    """Output layer whose logits are those of the row-normalised weight.

    The stored weight stays raw, and no normalised copy of it is made: the row norms scale the
    columns of the logits. Rows beyond the true vocabulary, which tensor parallelism adds, get the
    smallest logit of the dtype and so no part in any softmax. With labels it gives the losses
    instead, and the logits are never made.

    Args:
        hidden_size: Width of the input.
        padded_vocab_size: Rows of the weight over all ranks.
        vocab_size: True rows.
        normalise: Whether to divide by the row norms; false for Baichuan 1.
        z_loss_weight: Adds so much of the squared largest logit to each loss.
        **options: Those of ColumnParallelLinear.
    """

    def __init__(
        self,
        hidden_size: int,
        padded_vocab_size: int,
        *,
        vocab_size: int,
        normalise: bool,
        z_loss_weight: float,
        **options: Any,
    ) -> None:
        super().__init__(hidden_size, padded_vocab_size, bias=False, **options)
        first = self.tp_group.rank() * self.output_size_per_partition
        self.true_rows = min(max(vocab_size - first, 0), self.output_size_per_partition)
        self.vocab_size = vocab_size
        self.normalise = normalise
        self.z_loss_weight = z_loss_weight

    def forward(
        self,
        input_: torch.Tensor,
        weight: torch.Tensor | None = None,
        runtime_gather_output: bool | None = None,
        labels: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, None]:
        """Returns the logits of this rank's rows, or of all rows where they are gathered.

        Losses are computed here rather than in a method of their own, so that what hangs on the
        module's call (gathering of parameters, say) happens before.

        Args:
            input_: (seq, batch, hidden_size); a shard of seq under sequence parallelism.
            weight: Must be None: Baichuan does not tie its embeddings.
            runtime_gather_output: Overrides ``gather_output``.
            labels: (batch, seq), the whole seq; -100 is not trained.

        Returns:
            (seq, batch, rows), or with labels the losses (batch, seq) in float32; and None for the
            bias.
        """
        if labels is not None:
            return self._losses(input_, labels), None
        logits, _ = super().forward(input_, weight, runtime_gather_output=False)
        if self.normalise:
            # Not `row_scales`, whose steps in place have no gradient; padding rows are zero.
            scales = row_lengths(self.weight).clamp_min(EPS).reciprocal()
            logits = logits * scales.to(logits.dtype)
        if self.true_rows < self.output_size_per_partition:
            logits[..., self.true_rows :] = torch.finfo(logits.dtype).min
        gather = self.gather_output if runtime_gather_output is None else runtime_gather_output
        if gather:
            logits = gather_from_tensor_model_parallel_region(logits, group=self.tp_group)
        return logits, None

    def _losses(self, hidden: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        if self.sequence_parallel:
            # Every rank gets the whole gradient, of which it keeps its part of the sequence.
            hidden = gather_from_sequence_parallel_region(
                hidden, tensor_parallel_output_grad=False, group=self.tp_group
            )
        losses = kernels.norm_head_cross_entropy(
            hidden,
            self.weight,
            labels.T,
            normalise=self.normalise,
            z_loss_weight=self.z_loss_weight,
            vocab_size=self.vocab_size,
            group=self.tp_group if self.tp_group.size() > 1 else None,
        )
        return losses.T
