"""Loads a distributed checkpoint with megatron-core alone, into a GPTModel of its own parts.

It imports nothing of bc2. ``megatron_load.py CHECKPOINT OUTPUT VOCABULARY LAYERS HIDDEN
INTERMEDIATE HEADS`` leaves the parameters by name in OUTPUT.
"""

from __future__ import annotations

import sys

import torch
from megatron.core import dist_checkpointing, parallel_state
from megatron.core.models.gpt import GPTModel
from megatron.core.models.gpt.gpt_layer_specs import get_gpt_layer_local_spec
from megatron.core.transformer.transformer_config import TransformerConfig


def main() -> None:
    checkpoint, output = sys.argv[1:3]
    vocabulary, layers, hidden, intermediate, heads = map(int, sys.argv[3:])
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{output}.store", rank=0, world_size=1
    )
    parallel_state.initialize_model_parallel()
    config = TransformerConfig(
        num_layers=layers,
        hidden_size=hidden,
        ffn_hidden_size=intermediate,
        num_attention_heads=heads,
        use_cpu_initialization=True,
        perform_initialization=False,
        normalization="RMSNorm",
        gated_linear_unit=True,
        activation_func=torch.nn.functional.silu,
        add_bias_linear=False,
    )
    model = GPTModel(
        config,
        get_gpt_layer_local_spec(normalization="RMSNorm"),
        vocabulary,
        128,
        share_embeddings_and_output_weights=False,
        position_embedding_type="none",
    )
    for parameter in model.parameters():
        parameter.data.fill_(float("nan"))
    loaded = dist_checkpointing.load({"model": model.sharded_state_dict()}, checkpoint)
    model.load_state_dict(loaded["model"])
    torch.save({name: value.detach() for name, value in model.named_parameters()}, output)
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
