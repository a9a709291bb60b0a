"""All layouts of a run on so many devices, ranked by the time of a step."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise, product
from typing import Literal

from bc2_ckpt.config import ModelConfig
from bc2_train.config import Parallel, RunConfig
from bc2_train.errors import TrainError
from bc2_train.planning import memory
from bc2_train.planning import time as cost
from bc2_train.planning.devices import Device
from bc2_train.planning.memory import StageMemory
from bc2_train.planning.time import StepTime

_MICRO_BATCHES = (1, 2, 4, 8)
_RECOMPUTE: tuple[Literal["none", "selective", "full"], ...] = ("none", "selective", "full")
_ZERO_STAGES: tuple[Literal[0, 1, 2, 3], ...] = (0, 1, 2, 3)
_LONG = 8192
"""Tokens a sample from which on context parallelism is tried."""

_PAYS = 1.5
"""Twice the devices pay if they are at least so many times as fast."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A layout, what it needs and how fast it is.

    Attributes:
        config: The recipe with the layout in it.
        devices: Their number.
        memory: Of the stage that needs most.
        time: Of a step.
    """

    config: RunConfig
    devices: int
    memory: StageMemory
    time: StepTime

    @property
    def tokens_per_second(self) -> float:
        """Tokens a second of all devices."""
        return self.config.batch.global_ * self.config.data.seq_length / self.time.total


@dataclass(frozen=True, kw_only=True)
class Search:
    """What was found.

    Attributes:
        fitting: Layouts that fit in the memory, the fastest first.
        too_large: Layouts that do not, the smallest first.
        impossible: Why layouts do not divide the model, the devices or the batch, and how many.
    """

    fitting: list[Plan]
    too_large: list[Plan]
    impossible: dict[str, int]


def evaluate(
    config: RunConfig, model: ModelConfig, devices: int, device: Device, node_size: int
) -> Plan:
    """Returns the plan of one layout.

    Raises:
        TrainError: It does not fit together.
    """
    stages = memory.of_stages(config, model, devices)
    return Plan(
        config=config,
        devices=devices,
        memory=max(stages, key=lambda stage: stage.total),
        time=cost.of_step(config, model, devices, device, node_size),
    )


def search(
    config: RunConfig, model: ModelConfig, devices: int, device: Device, node_size: int
) -> Search:
    """Returns every layout of the recipe's batch and sequence length, evaluated."""
    fitting: list[Plan] = []
    too_large: list[Plan] = []
    impossible: dict[str, int] = {}
    for candidate in _candidates(config, model, devices, node_size):
        try:
            plan = evaluate(candidate, model, devices, device, node_size)
        except TrainError as error:
            impossible[error.message] = impossible.get(error.message, 0) + 1
            continue
        (fitting if plan.memory.total <= device.budget else too_large).append(plan)
    return Search(
        fitting=sorted(fitting, key=lambda plan: plan.time.total),
        too_large=sorted(too_large, key=lambda plan: plan.memory.total),
        impossible=impossible,
    )


def scaling(
    config: RunConfig, model: ModelConfig, device: Device, node_size: int, most: int
) -> list[tuple[int, Plan | None]]:
    """Returns the fastest plan of each power of two of devices; None where nothing fits.

    The global batch is that of the recipe: what would be gained by a larger one is another run.
    """
    counts = _powers(most)
    return [
        (count, next(iter(search(config, model, count, device, node_size).fitting), None))
        for count in counts
    ]


def stops_paying(table: list[tuple[int, Plan | None]]) -> int | None:
    """Returns the number of devices from which twice as many are less than 1.5 times as fast."""
    for (count, plan), (_, doubled) in pairwise(table):
        if plan is None:
            continue
        if doubled is None or doubled.tokens_per_second < _PAYS * plan.tokens_per_second:
            return count
    return None


def _candidates(
    config: RunConfig, model: ModelConfig, devices: int, node_size: int
) -> Iterator[RunConfig]:
    """Yields the recipe in all layouts that are worth asking for, also impossible ones."""
    micros = sorted({config.batch.micro, *_MICRO_BATCHES})
    if config.engine == "deepspeed":
        for stage, recompute, micro in product(_ZERO_STAGES, _RECOMPUTE[::2], micros):
            if stage or config.deepspeed.offload == "none":
                yield replace(
                    config,
                    deepspeed=replace(config.deepspeed, zero_stage=stage),
                    train=replace(config.train, recompute=recompute),
                    batch=replace(config.batch, micro=micro),
                )
        return
    for parallel in _parallels(config, model, devices, node_size):
        for recompute, micro in product(_RECOMPUTE, micros):
            yield replace(
                config,
                parallel=parallel,
                train=replace(config.train, recompute=recompute),
                batch=replace(config.batch, micro=micro),
            )


def _parallels(
    config: RunConfig, model: ModelConfig, devices: int, node_size: int
) -> Iterator[Parallel]:
    """Yields parallel sizes: tensor groups inside a node, every division of the layers.

    Sequence parallelism goes with every tensor parallelism, and the distributed optimizer with
    all replicas, of data and of context: neither costs anything worth having.
    """
    tensors = [size for size in _powers(node_size) if size <= devices]
    contexts = _powers(8) if config.data.seq_length >= _LONG else [1]
    stages = [n for n in range(1, model.num_layers + 1) if model.num_layers % n == 0]
    for tensor, pipeline, context in product(tensors, stages, contexts):
        used = tensor * pipeline * context
        if devices % used:
            continue
        for chunks in (1, 2, 4) if pipeline > 1 else (1,):
            yield Parallel(
                tensor=tensor,
                pipeline=pipeline,
                virtual_pipeline=chunks,
                context=context,
                sequence=tensor > 1,
                distributed_optimizer=devices > tensor * pipeline,
            )


def _powers(most: int) -> list[int]:
    return [2**power for power in range(most.bit_length()) if 2**power <= most]
