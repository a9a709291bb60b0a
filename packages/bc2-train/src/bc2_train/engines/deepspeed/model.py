"""The Hugging Face model, filled tensor by tensor, whole on every rank or divided by ZeRO 3."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import deepspeed
import torch
from torch import nn
from transformers.initialization import no_init_weights

from bc2_ckpt.config import ModelConfig
from bc2_data.vocab import IGNORE_INDEX
from bc2_model.hf import BaichuanConfig, BaichuanForCausalLM
from bc2_model.hf.head import token_losses
from bc2_model.weights import WeightSource
from bc2_train.config import RunConfig
from bc2_train.engines.dtypes import DTYPES


def build(
    config: RunConfig,
    dimensions: ModelConfig,
    weights: WeightSource,
    settings: dict[str, Any],
    device: torch.device,
) -> BaichuanForCausalLM:
    """Returns the model with its weights; under ZeRO 3 no rank ever holds more than one layer.

    Args:
        config: The run.
        dimensions: Of the model.
        weights: Where the parameters come from.
        settings: DeepSpeed's.
        device: This process's device.
    """
    dtype = DTYPES[config.precision]
    with no_init_weights(), _dtype(dtype), contextlib.ExitStack() as where:
        if config.deepspeed.zero_stage == 3:
            where.enter_context(deepspeed.zero.Init(config_dict_or_path=settings, dtype=dtype))
        else:
            where.enter_context(device)
        model = BaichuanForCausalLM(BaichuanConfig(**dimensions.to_hf()))
    for name, parameter in model.named_parameters():
        with gathered_for_writing(parameter) as writable:
            if writable:
                parameter.copy_(weights.read(name))
    if config.train.recompute == "full":
        model.activation_checkpointing_enable({"use_reentrant": False})
    return model


@contextlib.contextmanager
def gathered_for_writing(parameter: nn.Parameter) -> Iterator[bool]:
    """Makes a parameter whole; yields whether this rank must write it.

    What ZeRO 3 has divided, the first rank writes for all; anything else, every rank.
    """
    divided = hasattr(parameter, "ds_id")
    with torch.no_grad(), deepspeed.zero.GatheredParameters([parameter], modifier_rank=0):
        yield not divided or torch.distributed.get_rank() == 0


@contextlib.contextmanager
def _dtype(dtype: torch.dtype) -> Iterator[None]:
    previous = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(previous)


class TokenLoss(nn.Module):
    """The model as training sees it: from a micro batch to one number.

    Args:
        model: Gives hidden states, and its head losses.
    """

    def __init__(self, model: BaichuanForCausalLM) -> None:
        super().__init__()
        self.model = model

    def forward(
        self,
        tokens: torch.Tensor,
        labels: torch.Tensor,
        loss_mask: torch.Tensor,
        segment_ids: torch.Tensor | None,
    ) -> torch.Tensor:
        """Returns the sum of the cross entropy over the trained tokens, in nats, float32.

        Args:
            tokens: (micro, seq) int64.
            labels: (micro, seq) int64, shifted already.
            loss_mask: (micro, seq) bool.
            segment_ids: (micro, seq) int64, 0 = padding; None where each row is one document.
        """
        hidden = self.model.model(
            input_ids=tokens, attention_mask=segment_ids, use_cache=False
        ).last_hidden_state
        losses = token_losses(
            self.model.lm_head,
            hidden,
            labels.masked_fill(~loss_mask, IGNORE_INDEX),
            self.model.config.z_loss_weight,
        )
        return (losses * loss_mask).sum()
