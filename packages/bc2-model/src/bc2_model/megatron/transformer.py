"""The megatron-core configuration and layer specification of Baichuan2."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from megatron.core.models.gpt.gpt_layer_specs import get_gpt_layer_local_spec
from megatron.core.transformer.spec_utils import ModuleSpec
from megatron.core.transformer.transformer_block import (
    TransformerBlockSubmodules,
    get_num_layers_to_build,
)
from megatron.core.transformer.transformer_config import TransformerConfig

from bc2_ckpt.config import ModelConfig
from bc2_model import kernels
from bc2_model.megatron.attention import CoreAttention
from bc2_model.megatron.norm import RMSNorm


@dataclass
class Baichuan2TransformerConfig(TransformerConfig):
    """A TransformerConfig that carries Baichuan2's own dimensions along.

    Attributes:
        model: What the layers that are ours read: position embedding, true vocabulary, NormHead.
    """

    model: ModelConfig | None = None

    @classmethod
    def create(cls, model: ModelConfig, **parallel: Any) -> Baichuan2TransformerConfig:
        """Returns the configuration of a model under a parallel layout.

        Args:
            model: The model's dimensions.
            **parallel: Further TransformerConfig fields: parallel sizes, dtypes, recompute.
        """
        return cls(
            model=model,
            num_layers=model.num_layers,
            hidden_size=model.hidden_size,
            num_attention_heads=model.num_heads,
            ffn_hidden_size=model.intermediate_size,
            normalization="RMSNorm",
            # Upstream's 7B script left this at Megatron's 1e-5; the official model has 1e-6.
            layernorm_epsilon=model.rms_norm_eps,
            gated_linear_unit=True,
            activation_func=torch.nn.functional.silu,
            add_bias_linear=False,
            hidden_dropout=0.0,
            attention_dropout=0.0,
            bias_activation_fusion=False,
            # Takes the activation of `transformer_block`, which is ours: megatron-core's own keeps
            # two more tensors of the width of the MLP.
            use_te_activation_func=True,
            bias_dropout_fusion=False,
            masked_softmax_fusion=False,
            # NormHead's weight has a second gradient, through its row norms, which the fused
            # accumulation would drop.
            gradient_accumulation_fusion=False,
            # `load_weights` writes every parameter, random ones included.
            perform_initialization=False,
            **parallel,
        )


def transformer_block(
    config: Baichuan2TransformerConfig, vp_stage: int | None
) -> TransformerBlockSubmodules:
    """Returns the layers of this pipeline stage, with our norm, activation and core attention.

    Args:
        config: The model under its parallel layout.
        vp_stage: Which model chunk of this pipeline rank; None without virtual pipeline.
    """
    layer: ModuleSpec = get_gpt_layer_local_spec(normalization="RMSNorm")
    layer.submodules.input_layernorm = RMSNorm
    layer.submodules.pre_mlp_layernorm = RMSNorm
    layer.submodules.self_attention.submodules.core_attention = CoreAttention
    layer.submodules.mlp.submodules.activation_func = kernels.swiglu
    count = get_num_layers_to_build(config, vp_stage=vp_stage)
    return TransformerBlockSubmodules(layer_specs=[layer] * count, layer_norm=RMSNorm)
