"""What megatron-core 0.16.1 gets wrong on our path, and what sets it right.

Without TransformerEngine or Apex, megatron-core's distributed optimizer runs torch.optim.AdamW,
whose state has a ``step`` tensor for each parameter. Its loading code was written for optimizers
whose step belongs to the parameter group.

Its norm, which refuses sequence parallelism, is replaced in `bc2_model.megatron.norm`.
"""

from __future__ import annotations

from typing import Any

import torch
from megatron.core.optimizer import MegatronOptimizer
from megatron.core.optimizer.distrib_optimizer import DistributedOptimizer


def stage_messages(*, interleaved: bool) -> dict[str, Any]:
    """Returns how pipeline stages exchange activations, as fields of a TransformerConfig.

    With two stages, next and previous are the same peer, and the two messages of a batched exchange
    between interleaved chunks are matched in the wrong order: the loss is wrong, silently. One
    message at a time is right for every number of stages.

    Args:
        interleaved: Whether stages consist of several model chunks.
    """
    return {"batch_p2p_comm": not interleaved, "overlap_p2p_comm": interleaved}


def prepare_optimizer_state(optimizer: MegatronOptimizer) -> None:
    """Creates the optimizer's state before it is loaded into.

    DistributedOptimizer.sharded_state_dict asserts that a step is there already, which
    ``_set_main_param_and_optimizer_states`` then fails on: it expects the parameter's shape.
    """
    for part in _parts(optimizer):
        if isinstance(part, DistributedOptimizer):
            part.init_state_fn(part.optimizer, part.config)
            for state in part.optimizer.state.values():
                state.setdefault("step", torch.tensor(0.0))
            _skip_step(part)


def separate_steps(optimizer: MegatronOptimizer) -> None:
    """Gives each parameter a step tensor of its own after a load.

    DistributedOptimizer.load_state_dict gives all parameters one shared tensor, which AdamW then
    increments once for each of them: the bias correction after a resume is silently wrong.
    """
    for part in _parts(optimizer):
        for state in part.optimizer.state.values():
            if "step" in state:
                state["step"] = state["step"].clone()


def _skip_step(part: DistributedOptimizer) -> None:
    """Hides ``step`` from the method that copies the loaded moments, on this instance alone."""
    original = part._set_main_param_and_optimizer_states

    def set_states(model_param: torch.nn.Parameter, tensors: dict[str, torch.Tensor]) -> None:
        group, order = part.model_param_group_index_map[model_param]
        state = part.optimizer.state[part.optimizer.param_groups[group]["params"][order]]
        step = state.pop("step", None)
        original(model_param, tensors)
        if step is not None:
            state["step"] = step

    part._set_main_param_and_optimizer_states = set_states


def _parts(optimizer: MegatronOptimizer) -> list[MegatronOptimizer]:
    return getattr(optimizer, "chained_optimizers", [optimizer])
