"""How processes are divided among tensor, pipeline and data parallelism, and whether that fits."""

from __future__ import annotations

from dataclasses import dataclass

from bc2_ckpt.config import ModelConfig
from bc2_train.config import RunConfig
from bc2_train.errors import TrainError


@dataclass(frozen=True, kw_only=True)
class Layout:
    """A checked parallel layout.

    Attributes:
        world_size: Processes.
        data_parallel: Processes that see different samples.
        microbatches: Micro batches that each data-parallel rank computes in one step.
    """

    world_size: int
    data_parallel: int
    microbatches: int


def check(config: RunConfig, model: ModelConfig, world_size: int) -> Layout:
    """Returns the layout of a run.

    Args:
        config: The run.
        model: The dimensions that are to be divided.
        world_size: Processes that will be started.

    Raises:
        TrainError: Something is not divisible; the message says what by what.
    """
    parallel = config.parallel
    stages = parallel.pipeline * parallel.virtual_pipeline
    model_parallel = parallel.tensor * parallel.pipeline * parallel.context
    _check_divisible("num_attention_heads", model.num_heads, "parallel.tensor", parallel.tensor)
    _check_divisible(
        "intermediate_size", model.intermediate_size, "parallel.tensor", parallel.tensor
    )
    _check_divisible(
        "num_hidden_layers", model.num_layers, "parallel.pipeline x virtual_pipeline", stages
    )
    _check_divisible(
        "the number of processes",
        world_size,
        "parallel.tensor x pipeline x context",
        model_parallel,
    )
    data_parallel = world_size // model_parallel
    at_once = config.batch.micro * data_parallel
    if config.batch.global_ % at_once:
        raise TrainError(
            f"batch.global is {config.batch.global_}, no multiple of batch.micro "
            f"{config.batch.micro} x {data_parallel} data-parallel processes",
            f"set batch.global to a multiple of {at_once}",
        )
    microbatches = config.batch.global_ // at_once
    if parallel.virtual_pipeline > 1:
        _check_divisible(
            "the number of micro batches",
            microbatches,
            "parallel.pipeline, under virtual pipeline",
            parallel.pipeline,
        )
    length = config.data.seq_length
    if parallel.sequence:
        _check_divisible("data.seq_length", length, "parallel.tensor", parallel.tensor)
    if parallel.context > 1:
        shards = 2 * parallel.context * (parallel.tensor if parallel.sequence else 1)
        _check_divisible("data.seq_length", length, "twice parallel.context", shards)
    return Layout(
        world_size=world_size,
        data_parallel=data_parallel,
        microbatches=microbatches,
    )


def _check_divisible(name: str, value: int, key: str, divisor: int) -> None:
    if value % divisor:
        raise TrainError(
            f"{name} is {value}, which {key} = {divisor} does not divide",
            f"choose {key} among {[n for n in range(1, min(value, 128) + 1) if value % n == 0]}",
        )
