"""One rank of megatron-core: loads a checkpoint into a real GPTModel, reports and saves it again.

It loads the same model from a legacy checkpoint with megatron-core's names too. Started by
test_megatron.py as
``megatron_worker.py CHECKPOINT LEGACY REPORT SAVE TENSOR PIPELINE PADDED_VOCAB WRAPPED``.
"""

from __future__ import annotations

import os
import random
import sys
from pathlib import Path

import numpy as np
import torch
from megatron.core import dist_checkpointing, parallel_state
from megatron.core.dist_checkpointing.mapping import ShardedObject, ShardedTensor
from megatron.core.models.gpt import GPTModel
from megatron.core.models.gpt.gpt_layer_specs import get_gpt_layer_local_spec
from megatron.core.transformer.transformer_config import TransformerConfig

from bc2_ckpt.config import ModelConfig


def main() -> None:
    checkpoint, legacy, report, save = (Path(argument) for argument in sys.argv[1:5])
    tensor, pipeline, padded_vocab, wrapped = (int(argument) for argument in sys.argv[5:])
    rank = int(os.environ["RANK"])
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{report}.store", rank=rank, world_size=tensor * pipeline
    )
    parallel_state.initialize_model_parallel(tensor, pipeline)
    model = build(ModelConfig.load(checkpoint), tensor, pipeline, padded_vocab)
    prefix = "module." if wrapped else ""

    state = {"model": model.sharded_state_dict(), "te": transformer_engine_states(model)}
    loaded = dist_checkpointing.load(state, str(checkpoint))["model"]
    model.load_state_dict(loaded)
    from_dist = {name: value.detach().clone() for name, value in model.named_parameters()}

    folder = f"mp_rank_{rank % tensor:02d}" + (f"_{rank // tensor:03d}" if pipeline > 1 else "")
    file = legacy / "release" / folder / "model_optim_rng.pt"
    forget(model)
    model.load_state_dict(torch.load(file, weights_only=True)["model"])
    from_legacy = {name: value.detach().clone() for name, value in model.named_parameters()}
    torch.save((from_dist, from_legacy), f"{report}.{rank}")
    model.load_state_dict(loaded)

    # What the saving path asks of a device that this test does not have.
    torch.cuda.synchronize = lambda *_: None  # type: ignore[assignment]
    torch.cuda.current_device = lambda: torch.device("cpu")  # type: ignore[assignment,return-value]
    moments = model.sharded_state_dict(prefix="optimizer.state.exp_avg.")
    dist_checkpointing.save(
        {
            "model": model.sharded_state_dict(prefix=prefix),
            "optimizer": {k: v for k, v in moments.items() if isinstance(v, ShardedTensor)},
            "rng": ShardedObject("rng_state", random_state(), (1,), (0,), replica_id=rank),
            "iteration": 10,
        },
        str(save),
    )


def transformer_engine_states(model: GPTModel) -> dict[str, ShardedObject]:
    """What a model of Transformer Engine's layers asks for beyond one of local layers."""
    count, replica = model.config.num_layers, parallel_state.get_tensor_model_parallel_rank()
    core = "decoder.layers.self_attention.core_attention._extra_state"
    states = {
        str(layer): ShardedObject(core, None, (count,), (layer,), replica)
        for layer in (module.layer_number - 1 for module in model.decoder.layers)
    }
    if model.post_process:
        final = "decoder.final_layernorm._extra_state"
        states["final"] = ShardedObject(final, None, (1,), (0,), replica)
    return states


def random_state() -> dict[str, object]:
    """The states of every generator that a trainer saves."""
    return {
        "python": random.getstate(),
        "numpy": np.random.get_state(),
        "torch": torch.get_rng_state(),
    }


def build(config: ModelConfig, tensor: int, pipeline: int, padded_vocab: int) -> GPTModel:
    transformer = TransformerConfig(
        num_layers=config.num_layers,
        hidden_size=config.hidden_size,
        num_attention_heads=config.num_heads,
        ffn_hidden_size=config.intermediate_size,
        tensor_model_parallel_size=tensor,
        pipeline_model_parallel_size=pipeline,
        use_cpu_initialization=True,
        perform_initialization=False,
        params_dtype=torch.bfloat16,
        pipeline_dtype=torch.bfloat16,
        normalization="RMSNorm",
        gated_linear_unit=True,
        activation_func=torch.nn.functional.silu,
        add_bias_linear=False,
    )
    model = GPTModel(
        transformer,
        get_gpt_layer_local_spec(normalization="RMSNorm"),
        padded_vocab,
        config.max_sequence_length,
        pre_process=parallel_state.is_pipeline_first_stage(),
        post_process=parallel_state.is_pipeline_last_stage(),
        share_embeddings_and_output_weights=False,
        position_embedding_type="rope",
    )
    forget(model)
    # torch.nn.RMSNorm does not follow params_dtype; Megatron-LM casts the whole model likewise.
    return model.bfloat16()


def forget(model: GPTModel) -> None:
    """Fills the parameters with what no checkpoint holds."""
    for parameter in model.parameters():
        parameter.data.fill_(float("nan"))


if __name__ == "__main__":
    main()
