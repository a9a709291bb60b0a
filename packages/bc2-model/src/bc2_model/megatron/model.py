"""Baichuan2 as a megatron-core GPTModel."""

from __future__ import annotations

from typing import Any

import torch
from megatron.core import parallel_state
from megatron.core.models.gpt import GPTModel

from bc2_data.vocab import PAD_ID, VOCAB_DIVISOR, padded_vocab_size
from bc2_model.megatron.norm_head import NormHead
from bc2_model.megatron.transformer import Baichuan2TransformerConfig, transformer_block


class Baichuan2Model(GPTModel):
    """One pipeline stage of Baichuan2 (7B: rotary, 13B: ALiBi).

    Its ``attention_mask`` argument takes segment ids (batch, seq), 0 = padding, or None for one
    document a row. Parameters are uninitialised until `load_weights` has run.

    Args:
        config: The model under its parallel layout.
        vp_stage: Which model chunk of this pipeline rank; None without virtual pipeline.
    """

    def __init__(self, config: Baichuan2TransformerConfig, vp_stage: int | None = None) -> None:
        model = config.model
        assert model is not None
        padded = padded_vocab_size(
            model.vocab_size, VOCAB_DIVISOR, config.tensor_model_parallel_size
        )
        whole = vp_stage is None
        super().__init__(
            config,
            transformer_block(config, vp_stage),
            vocab_size=padded,
            max_sequence_length=model.max_sequence_length,
            pre_process=parallel_state.is_pipeline_first_stage(
                ignore_virtual=whole, vp_stage=vp_stage
            ),
            post_process=parallel_state.is_pipeline_last_stage(
                ignore_virtual=whole, vp_stage=vp_stage
            ),
            # Both of Baichuan2's position embeddings are applied in CoreAttention.
            position_embedding_type="none",
            share_embeddings_and_output_weights=False,
            vp_stage=vp_stage,
        )
        if self.pre_process and self.pg_collection.tp.rank() == 0:
            weight = self.embedding.word_embeddings.weight
            weight.register_post_accumulate_grad_hook(_freeze_padding_row)
        if self.post_process:
            # GPTModel builds its output layer itself; the specification has no place for another.
            self.output_layer = NormHead(
                config.hidden_size,
                padded,
                vocab_size=model.vocab_size,
                normalise=model.norm_head,
                z_loss_weight=model.z_loss_weight,
                config=config,
                init_method=config.init_method,
                gather_output=not self.parallel_output,
                tp_group=self.pg_collection.tp,
            )
            self.setup_embeddings_and_output_layer()

    def _postprocess(
        self, hidden_states: torch.Tensor, *, labels: torch.Tensor | None, **options: Any
    ) -> torch.Tensor:
        """Returns the losses (batch, seq) where labels are given, without any logits.

        -100 among the labels is not trained. megatron-core's own way, logits and then their loss,
        would hold the logits of the whole micro batch several times over.
        """
        if labels is None or not self.post_process:
            out: torch.Tensor = super()._postprocess(hidden_states, labels=labels, **options)
            return out
        losses, _ = self.output_layer(hidden_states, labels=labels)
        return losses


def _freeze_padding_row(weight: torch.nn.Parameter) -> None:
    """Drops the gradient of the padding id's embedding.

    The official model builds its embedding with ``padding_idx``: its row is looked up, never
    trained.
    """
    assert weight.grad is not None
    weight.grad[PAD_ID].zero_()
