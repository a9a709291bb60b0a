"""The output layer: hidden states to logits, or with labels straight to losses."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from bc2_data.vocab import IGNORE_INDEX
from bc2_model import kernels
from bc2_model.hf.configuration import BaichuanConfig


class OutputHead(nn.Linear):
    """Multiplies by the weight, with NormHead by its rows brought to unit length.

    The official NormHead overwrites its weight with the normalised rows at the first evaluation;
    this one never changes it, so that what is saved is what was loaded or trained.
    """

    def __init__(self, config: BaichuanConfig) -> None:
        super().__init__(config.hidden_size, config.vocab_size, bias=False)
        self.normalise = config.norm_head

    def forward(
        self, hidden: Tensor, labels: Tensor | None = None, z_loss_weight: float | Tensor = 0.0
    ) -> Tensor:
        """Returns logits (..., vocab_size) of hidden (..., hidden_size), or losses of labels.

        Losses are computed in a call of this module rather than beside it, because ZeRO gathers
        its weight for the time of the call.

        Args:
            hidden: (..., hidden_size).
            labels: (...) of the same positions, that is, shifted already; -100 is not trained.
                With them the result is float32 losses (...), and logits are never made.
            z_loss_weight: Adds so much of the squared largest logit to the loss of each position.
        """
        if labels is not None:
            return kernels.norm_head_cross_entropy(
                hidden, self.weight, labels, normalise=self.normalise, z_loss_weight=z_loss_weight
            )
        if self.normalise:
            return kernels.norm_head_logits(hidden, self.weight)
        return functional.linear(hidden, self.weight)


def token_losses(
    head: nn.Module, hidden: Tensor, labels: Tensor, z_loss_weight: float | Tensor = 0.0
) -> Tensor:
    """Returns the losses of `OutputHead`, for any layer that gives logits.

    PEFT may have put another layer in the head's place, and what it adds to the logits counts.
    """
    if isinstance(head, OutputHead):
        return head(hidden, labels, z_loss_weight)
    logits = head(hidden).float()
    losses = functional.cross_entropy(
        logits.flatten(0, -2), labels.flatten(), ignore_index=IGNORE_INDEX, reduction="none"
    )
    return losses.view(labels.shape) + z_loss_weight * logits.amax(-1).square()


def mean_loss(
    head: nn.Module,
    hidden: Tensor,
    labels: Tensor,
    z_loss_weight: float,
    num_items_in_batch: int | Tensor | None,
) -> Tensor:
    """Returns the official loss of unshifted labels: they are shifted here, once.

    It is the mean cross entropy of the trained predictions and the mean z-loss of all predictions,
    trained or not.

    Args:
        head: The output layer.
        hidden: (batch, seq, hidden_size).
        labels: (batch, seq); -100 is not trained.
        z_loss_weight: Of the squared largest logit.
        num_items_in_batch: By what the sum is divided in place of the number of trained
            predictions: theirs in all micro batches of a step, which transformers' Trainer gives.
    """
    hidden, labels = hidden[:, :-1], labels[:, 1:].to(hidden.device)
    trained = (labels != IGNORE_INDEX).sum()
    # The sum of the losses is divided by the trained predictions, the z-loss among them by all.
    z_loss = z_loss_weight * trained / labels.numel() if z_loss_weight else 0.0
    total = token_losses(head, hidden, labels, z_loss).sum()
    return total / torch.as_tensor(
        trained if num_items_in_batch is None else num_items_in_batch, device=total.device
    )
