"""A run's configuration in DeepSpeed's terms."""

from __future__ import annotations

from typing import Any

from bc2_ckpt.config import ModelConfig
from bc2_train.config import RunConfig

_BUCKET_ELEMENTS = 500_000_000
"""DeepSpeed's default."""


def settings(config: RunConfig, dimensions: ModelConfig, world_size: int) -> dict[str, Any]:
    """Returns what ``deepspeed.initialize`` and ``deepspeed.zero.Init`` take as configuration.

    Args:
        config: The run.
        dimensions: Of the model.
        world_size: Processes, all of them data parallel.
    """
    batch, stage = config.batch, config.deepspeed.zero_stage
    # DeepSpeed reserves a bucket at its full size, however small the model is.
    bucket = min(_BUCKET_ELEMENTS, dimensions.num_parameters)
    bucket += bucket % 2  # of 16 bits, aligned to 4 bytes: it refuses others
    values: dict[str, Any] = {
        "train_batch_size": batch.global_,
        "train_micro_batch_size_per_gpu": batch.micro,
        "gradient_accumulation_steps": batch.global_ // (batch.micro * world_size),
        "steps_per_print": None,
        # `PlainAdamW` clips, scales the loss and keeps the float32 weights of ZeRO 0 itself.
        "gradient_clipping": config.optimizer.clip if stage else 0.0,
        "zero_optimization": {
            "stage": stage,
            "reduce_bucket_size": bucket,
            "allgather_bucket_size": bucket,
        },
    }
    if stage == 0:
        return values
    values["zero_force_ds_cpu_optimizer"] = False  # it would have to be compiled
    values["bf16"] = {"enabled": config.precision == "bfloat16"}
    values["fp16"] = {"enabled": config.precision == "float16"}
    # Summing many micro batches in 16 bits would lose the small gradients.
    values["data_types"] = {"grad_accum_dtype": "fp32"}
    if config.deepspeed.offload == "optimizer":
        values["zero_optimization"]["offload_optimizer"] = {"device": "cpu", "pin_memory": True}
    # Norm weights are not worth a gathering each; every matrix is.
    values["zero_optimization"]["stage3_param_persistence_threshold"] = dimensions.hidden_size
    return values
