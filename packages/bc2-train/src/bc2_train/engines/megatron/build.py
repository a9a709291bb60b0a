"""Builds what megatron-core trains: process groups, model chunks, optimizer."""

from __future__ import annotations

from typing import Any

import torch
from megatron.core import parallel_state
from megatron.core.distributed import (
    DistributedDataParallel,
    DistributedDataParallelConfig,
    finalize_model_grads,
)
from megatron.core.optimizer import MegatronOptimizer, OptimizerConfig, get_megatron_optimizer
from megatron.core.tensor_parallel.random import model_parallel_cuda_manual_seed
from megatron.core.transformer.module import Float16Module

from bc2_ckpt.config import ModelConfig
from bc2_model.megatron import Baichuan2Model, Baichuan2TransformerConfig, load_weights
from bc2_model.weights import WeightSource
from bc2_train.config import RunConfig
from bc2_train.engines.dtypes import DTYPES
from bc2_train.engines.megatron import fixes

_RECOMPUTE: dict[str, dict[str, Any]] = {
    "none": {},
    # Attention keeps little on our flash kernels; the wide activations of the MLP are what fills
    # the memory.
    "selective": {"recompute_granularity": "selective", "recompute_modules": ["core_attn", "mlp"]},
    "full": {
        "recompute_granularity": "full",
        "recompute_method": "uniform",
        "recompute_num_layers": 1,
    },
}


def process_groups(config: RunConfig) -> None:
    """Divides the processes into tensor, pipeline, context and data-parallel groups."""
    parallel = config.parallel
    _end_process_groups()
    parallel_state.initialize_model_parallel(
        parallel.tensor,
        parallel.pipeline,
        virtual_pipeline_model_parallel_size=_chunks(config),
        context_parallel_size=parallel.context,
        create_gloo_process_groups=False,
        distributed_timeout_minutes=config.patience / 60,
    )
    model_parallel_cuda_manual_seed(config.train.seed, force_reset_rng=True)


def _end_process_groups() -> None:
    """Ends the groups of an earlier engine in this process.

    megatron-core only forgets them, and each would go on holding threads and sockets.
    """
    for group in parallel_state._global_process_group_list or ():
        if group is not None:
            torch.distributed.destroy_process_group(group)
    parallel_state.destroy_model_parallel()


def model(
    config: RunConfig, dimensions: ModelConfig, weights: WeightSource, device: torch.device
) -> list[Baichuan2Model]:
    """Returns this rank's model chunks, with their weights, on the device.

    Args:
        config: The run.
        dimensions: Of the whole model.
        weights: Where the parameters come from.
        device: Where they go.
    """
    transformer = _transformer_config(config, dimensions)
    if _chunks(config) is None:
        chunks = [Baichuan2Model(transformer)]
    else:
        chunks = [Baichuan2Model(transformer, stage) for stage in range(_chunks(config) or 0)]
    for chunk in chunks:
        load_weights(chunk, weights)
        chunk.to(device)
    return chunks


def _transformer_config(config: RunConfig, dimensions: ModelConfig) -> Baichuan2TransformerConfig:
    parallel, dtype = config.parallel, DTYPES[config.precision]
    return Baichuan2TransformerConfig.create(
        dimensions,
        tensor_model_parallel_size=parallel.tensor,
        pipeline_model_parallel_size=parallel.pipeline,
        virtual_pipeline_model_parallel_size=_chunks(config),
        context_parallel_size=parallel.context,
        sequence_parallel=parallel.sequence,
        params_dtype=dtype,
        pipeline_dtype=dtype,
        bf16=dtype is torch.bfloat16,
        fp16=dtype is torch.float16,
        # Parameters are created on the host, where `load_weights` fills them.
        use_cpu_initialization=True,
        # The loss is a mean over the trained tokens of the global batch, not of each micro batch.
        calculate_per_token_loss=True,
        deterministic_mode=config.train.deterministic,
        **fixes.stage_messages(interleaved=parallel.virtual_pipeline > 1),
        **_RECOMPUTE[config.train.recompute],
    )


def _chunks(config: RunConfig) -> int | None:
    """Returns the model chunks of a pipeline rank in megatron-core's terms: None for one."""
    count = config.parallel.virtual_pipeline
    return count if count > 1 else None


def data_parallel(config: RunConfig, chunks: list[Baichuan2Model]) -> list[Any]:
    """Wraps the model chunks for mixed precision and for gradient reduction."""
    transformer = chunks[0].config
    overlap = config.parallel.distributed_optimizer
    ddp = DistributedDataParallelConfig(
        grad_reduce_in_fp32=True,
        use_distributed_optimizer=config.parallel.distributed_optimizer,
        overlap_grad_reduce=overlap,
        overlap_param_gather=overlap,
    )
    wrapped = [
        DistributedDataParallel(
            transformer,
            ddp,
            chunk if config.precision == "float32" else Float16Module(transformer, chunk),
            # Only the first chunk's buckets are needed early enough to be worth splitting.
            disable_bucketing=index > 0,
        )
        for index, chunk in enumerate(chunks)
    ]
    transformer.finalize_model_grads_func = finalize_model_grads
    if overlap:
        transformer.no_sync_func = _one_or_all([chunk.no_sync for chunk in wrapped])
        transformer.param_sync_func = _one_or_all([chunk.start_param_sync for chunk in wrapped])
    return wrapped


def _one_or_all(functions: list[Any]) -> Any:
    """megatron-core's schedules take a bare function for one chunk, a list for several."""
    return functions[0] if len(functions) == 1 else functions


def optimizer(config: RunConfig, wrapped: list[Any]) -> MegatronOptimizer:
    """Returns AdamW over the wrapped chunks, its parameters grouped by whether they decay."""
    settings = config.optimizer
    optimizer_config = OptimizerConfig(
        optimizer="adam",
        lr=settings.lr,
        min_lr=settings.min_lr,
        weight_decay=settings.weight_decay,
        adam_beta1=settings.betas[0],
        adam_beta2=settings.betas[1],
        adam_eps=settings.eps,
        clip_grad=settings.clip,
        params_dtype=DTYPES[config.precision],
        bf16=config.precision == "bfloat16",
        fp16=config.precision == "float16",
        use_distributed_optimizer=config.parallel.distributed_optimizer,
        overlap_param_gather=config.parallel.distributed_optimizer,
    )
    built = get_megatron_optimizer(optimizer_config, wrapped, use_gloo_process_groups=False)
    wrapped[0].config.grad_scale_func = built.scale_loss
    return built
