"""Float32 weights and AdamW moments, whole and one parameter at a time, at every ZeRO stage.

Reading assembles a tensor from what the ranks hold of it, and writing takes each rank's part out of
a whole one: every rank must call both, in the same order.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch
import torch.distributed as dist
from deepspeed import utils
from torch import Tensor, nn
from torch.nn import functional

from bc2_train.engines.deepspeed.model import gathered_for_writing
from bc2_train.engines.deepspeed.optimizer import PlainAdamW

MOMENTS = ("exp_avg", "exp_avg_sq")


def open_state(stage: int, optimizer: Any, adamw: torch.optim.AdamW) -> OptimizerState:
    """Returns the state of an optimizer that has not stepped yet.

    Args:
        stage: ZeRO's.
        optimizer: DeepSpeed's, around AdamW.
        adamw: It.
    """
    if isinstance(adamw, PlainAdamW):
        return _Whole(adamw, list(adamw.masters.values()))
    if stage == 3:
        return _Partitions(adamw, optimizer.fp32_partitioned_groups_flat)
    flat = [tensor for group in adamw.param_groups for tensor in group["params"]]
    state = _Fragments(adamw, flat)
    optimizer._lazy_init_hp_params_optimizer_state()  # which it does after its first step
    return state


class OptimizerState(ABC):
    """The state of AdamW, zero at first.

    AdamW itself would create it in its first step, too late to load into.

    Args:
        adamw: The optimizer.
        stored: What it has moments of: parameters, or flat pieces of many.
    """

    def __init__(self, adamw: torch.optim.AdamW, stored: list[Tensor]) -> None:
        self._adamw = adamw
        self._stored = stored
        for tensor in stored:
            step = torch.zeros((), dtype=torch.float32, device=tensor.device)
            moments = {key: torch.zeros_like(tensor, requires_grad=False) for key in MOMENTS}
            adamw.state[tensor].update(step=step, **moments)

    @property
    def step(self) -> int:
        """Steps that AdamW has taken."""
        return int(self._adamw.state[self._stored[0]]["step"])

    @step.setter
    def step(self, value: int) -> None:
        for tensor in self._stored:
            self._adamw.state[tensor]["step"].fill_(value)

    @abstractmethod
    def weight(self, parameter: nn.Parameter) -> Tensor:
        """Returns the whole float32 weight."""

    @abstractmethod
    def moment(self, parameter: nn.Parameter, key: str) -> Tensor:
        """Returns a whole moment, `key` being one of `MOMENTS`."""

    @abstractmethod
    def set_weight(self, parameter: nn.Parameter, value: Tensor) -> None:
        """Takes over a whole float32 weight; the parameter gets it in its own dtype."""

    @abstractmethod
    def set_moment(self, parameter: nn.Parameter, key: str, value: Tensor) -> None:
        """Takes over a whole moment."""


class _Whole(OptimizerState):
    """ZeRO 0: every rank has everything."""

    _adamw: PlainAdamW

    def weight(self, parameter: nn.Parameter) -> Tensor:
        return self._adamw.masters[parameter].detach()

    def moment(self, parameter: nn.Parameter, key: str) -> Tensor:
        moment: Tensor = self._adamw.state[self._adamw.masters[parameter]][key]
        return moment

    @torch.no_grad()
    def set_weight(self, parameter: nn.Parameter, value: Tensor) -> None:
        self._adamw.masters[parameter].copy_(value)
        parameter.copy_(value)

    def set_moment(self, parameter: nn.Parameter, key: str, value: Tensor) -> None:
        self.moment(parameter, key).copy_(value)


class _Fragments(OptimizerState):
    """ZeRO 1 and 2: every rank has the parameters, and a part of all the rest."""

    def weight(self, parameter: nn.Parameter) -> Tensor:
        weight: Tensor = utils.safe_get_full_fp32_param(parameter)
        return weight.detach()

    def moment(self, parameter: nn.Parameter, key: str) -> Tensor:
        moment: Tensor = utils.safe_get_full_optimizer_state(parameter, key)
        return moment.detach()

    @torch.no_grad()
    def set_weight(self, parameter: nn.Parameter, value: Tensor) -> None:
        utils.safe_set_full_fp32_param(parameter, value)
        parameter.copy_(value)

    def set_moment(self, parameter: nn.Parameter, key: str, value: Tensor) -> None:
        utils.safe_set_full_optimizer_state(parameter, value, key)


class _Partitions(_Fragments):
    """ZeRO 3: every rank has an equal part of each parameter, padded to the number of ranks.

    DeepSpeed's ``safe_set_full_*`` read past the end of a parameter whose elements the number of
    ranks does not divide, so that parts are cut here.
    """

    def set_weight(self, parameter: nn.Parameter, value: Tensor) -> None:
        utils.safe_set_local_fp32_param(parameter, _part(parameter, value))
        with gathered_for_writing(parameter) as writable:
            if writable:
                parameter.copy_(value)

    def set_moment(self, parameter: nn.Parameter, key: str, value: Tensor) -> None:
        utils.safe_set_local_optimizer_state(parameter, _part(parameter, value), key)


def _part(parameter: Any, value: Tensor) -> Tensor:
    """Returns this rank's part of a whole tensor."""
    size: int = parameter.ds_tensor.numel()
    start = dist.get_rank() * size
    part = value.flatten()[start : start + size]
    return functional.pad(part, (0, size - part.numel()))
