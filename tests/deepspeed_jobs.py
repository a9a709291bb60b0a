"""What worker groups run on the deepspeed engine alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import jobs
from bc2_train import schema
from bc2_train.config import RunConfig
from bc2_train.errors import TrainError


def train_with_a_bad_gradient(
    values: dict[str, Any], bad_step: int
) -> list[tuple[float, float, bool]]:
    """Trains with one NaN in one gradient of the last rank in one step.

    Returns the loss of each step, its gradient norm, and whether it was left out.
    """
    config = schema.build(RunConfig, values)
    engine = jobs.make_engine(config)
    last = torch.distributed.get_rank() == torch.distributed.get_world_size() - 1
    current = [0]

    def poison(gradient: torch.Tensor) -> torch.Tensor:
        if last and current[0] == bad_step:
            gradient = gradient.clone()
            gradient.view(-1)[-1] = float("nan")
        return gradient

    parameter = next(p for p in engine.model.parameters() if p.requires_grad)
    parameter.register_hook(poison)
    loader = jobs.make_loader(config, engine)
    results = []
    for step in range(config.train.iterations):
        current[0] = step
        result = engine.train_step(loader.step(step), config.optimizer.lr)
        results.append((result.loss, result.grad_norm, result.skipped))
    return results


def refusal(values: dict[str, Any], directory: str) -> str:
    """Returns the error of taking up a checkpoint."""
    engine = jobs.make_engine(schema.build(RunConfig, values))
    with pytest.raises(TrainError) as error:
        engine.load(Path(directory))
    return error.value.message


def held_by_zero_3(values: dict[str, Any]) -> dict[str, tuple[int, int, int]]:
    """Returns of every parameter its elements, those here before a step, and those of our part."""
    engine = jobs.make_engine(schema.build(RunConfig, values))
    return {
        name: (parameter.ds_numel, parameter.numel(), parameter.ds_tensor.numel())
        for name, parameter in engine.model.named_parameters()
    }
