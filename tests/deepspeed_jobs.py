"""What worker groups run on the deepspeed engine alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import jobs
from bc2_train import schema
from bc2_train.config import RunConfig
from bc2_train.engines.base import Progress, StepResult
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


def train_on_one_batch(values: dict[str, Any], rates: list[float]) -> list[float]:
    """Trains on the same batch again and again, at these learning rates; returns the losses."""
    config = schema.build(RunConfig, values)
    engine = jobs.make_engine(config)
    batches = jobs.make_loader(config, engine).step(0)
    return [engine.train_step(batches, rate).loss for rate in rates]


def computed_layers(values: dict[str, Any]) -> int:
    """Returns how often the first layer's attention is computed in one step."""
    config = schema.build(RunConfig, values)
    engine = jobs.make_engine(config)
    calls: list[None] = []
    engine.model.model.layers[0].self_attn.register_forward_hook(lambda *_: calls.append(None))
    engine.train_step(jobs.make_loader(config, engine).step(0), config.optimizer.lr)
    return len(calls)


def loss_scale_after_load(values: dict[str, Any], directory: str, scale: float) -> float:
    """Saves at a loss scale, and returns that of the first step after taking it up again."""
    config = schema.build(RunConfig, values)
    Path(directory).mkdir()
    before = jobs.make_engine(config)
    before._loss_scaler.cur_scale = scale
    assert before.save(Path(directory), Progress()).done(wait=True)
    after = jobs.make_engine(config)
    after.load(Path(directory))
    result: StepResult = after.train_step(jobs.make_loader(config, after).step(0), 1e-3)
    return result.loss_scale
