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
    tensor, pipeline = config.parallel.tensor, config.parallel.pipeline
    divisions = (
        ("num_attention_heads", model.num_heads, tensor, "parallel.tensor"),
        ("intermediate_size", model.intermediate_size, tensor, "parallel.tensor"),
        ("num_hidden_layers", model.num_layers, pipeline, "parallel.pipeline"),
        (
            "the number of processes",
            world_size,
            tensor * pipeline,
            "parallel.tensor x parallel.pipeline",
        ),
    )
    for name, value, divisor, key in divisions:
        if value % divisor:
            raise TrainError(
                f"{name} is {value}, which {key} = {divisor} does not divide",
                f"choose {key} among {_divisors(value)}",
            )
    data_parallel = world_size // (tensor * pipeline)
    at_once = config.batch.micro * data_parallel
    if config.batch.global_ % at_once:
        raise TrainError(
            f"batch.global is {config.batch.global_}, no multiple of batch.micro "
            f"{config.batch.micro} x {data_parallel} data-parallel processes",
            f"set batch.global to a multiple of {at_once}",
        )
    if config.parallel.sequence and config.data.seq_length % tensor:
        raise TrainError(
            f"data.seq_length is {config.data.seq_length}, which parallel.tensor = {tensor} does "
            "not divide, as parallel.sequence needs"
        )
    return Layout(
        world_size=world_size,
        data_parallel=data_parallel,
        microbatches=config.batch.global_ // at_once,
    )


def _divisors(value: int) -> list[int]:
    return [n for n in range(1, min(value, 128) + 1) if value % n == 0]
