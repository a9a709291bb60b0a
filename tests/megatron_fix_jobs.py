"""What worker groups run to see megatron-core with and without what sets it right."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any
from unittest import mock

import torch

import jobs
from bc2_train import schema
from bc2_train.config import RunConfig
from bc2_train.engines.base import Progress
from bc2_train.engines.megatron import checkpoint, fixes


def train(values: dict[str, Any], *, set_right: bool) -> list[tuple[float, float]]:
    """Trains; where nothing is set right, with megatron-core's own way between pipeline stages."""
    upstream = {"batch_p2p_comm": True, "overlap_p2p_comm": False}
    patch = mock.patch.object(fixes, "stage_messages", return_value=upstream)
    with nullcontext() if set_right else patch:
        return jobs.train(values)


def step_counts(
    values: dict[str, Any], directory: str, *, set_right: bool
) -> tuple[set[float], set[float]]:
    """Returns AdamW's counts of its steps after three, and after a load and a fourth."""
    config = schema.build(RunConfig, values)
    engine = jobs.make_engine(config)
    loader = jobs.make_loader(config, engine)
    for step in range(3):
        engine.train_step(loader.step(step), config.optimizer.lr)
    path = Path(directory)
    if torch.distributed.get_rank() == 0:
        path.mkdir()
    torch.distributed.barrier()
    assert engine.save(path, Progress(iteration=3)).done(wait=True)
    before = _step_counts(engine)

    patch = mock.patch.object(checkpoint.fixes, "separate_steps")
    with nullcontext() if set_right else patch:
        engine = jobs.make_engine(config)
        engine.load(path)
    engine.train_step(loader.step(3), config.optimizer.lr)
    return before, _step_counts(engine)


def _step_counts(engine: Any) -> set[float]:
    parts = getattr(engine.optimizer, "chained_optimizers", [engine.optimizer])
    return {float(state["step"]) for part in parts for state in part.optimizer.state.values()}


def norm_gradients(values: dict[str, Any], *, set_right: bool) -> dict[str, torch.Tensor]:
    """Returns the gradients of the norm weights of one global batch, as the optimizer gets them."""
    config = schema.build(RunConfig, values)
    engine = jobs.make_engine(config)
    norms = {
        name: parameter
        for name, parameter in engine.chunks[0].named_parameters()
        if "layernorm" in name
    }
    if not set_right:
        for parameter in norms.values():
            parameter.sequence_parallel = False
    engine._compute(jobs.make_loader(config, engine).step(0), forward_only=False)
    return {name: parameter.main_grad.clone() for name, parameter in norms.items()}
