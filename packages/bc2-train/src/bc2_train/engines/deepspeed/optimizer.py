"""AdamW under DeepSpeed: which parameters decay, and the optimizer of ZeRO 0."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from deepspeed.runtime.fp16.loss_scaler import DynamicLossScaler, LossScaler
from torch import nn

from bc2_train.config import RunConfig


def build(
    config: RunConfig, parameters: Iterable[nn.Parameter], device: torch.device
) -> torch.optim.AdamW:
    """Returns AdamW over the parameters, which decays matrices only.

    Args:
        config: The run.
        parameters: Those that are trained.
        device: Where the model is.
    """
    settings = config.optimizer
    parameters = list(parameters)
    matrices = [parameter for parameter in parameters if len(whole_shape(parameter)) > 1]
    vectors = [parameter for parameter in parameters if len(whole_shape(parameter)) <= 1]
    groups = [
        {"params": group, "weight_decay": decay}
        for group, decay in ((matrices, settings.weight_decay), (vectors, 0.0))
        if group  # adapters have no vectors
    ]
    where = "cpu" if config.deepspeed.offload == "optimizer" else device.type
    options: dict[str, Any] = {
        "lr": settings.lr,
        "betas": settings.betas,
        "eps": settings.eps,
        "fused": where in ("cpu", "cuda"),
    }
    if config.deepspeed.zero_stage == 0:
        return PlainAdamW(groups, clip=settings.clip, **options)
    return torch.optim.AdamW(groups, **options)


def whole_shape(parameter: nn.Parameter) -> torch.Size:
    """Returns the shape of a parameter, of which ZeRO 3 may have left nothing on this rank."""
    shape: torch.Size = getattr(parameter, "ds_shape", parameter.shape)
    return shape


class PlainAdamW(torch.optim.AdamW):
    """AdamW with float32 weights beside 16-bit ones, clipping, loss scale and skipped steps.

    DeepSpeed's engine takes it for one of its own. Those it has for 16 bits without ZeRO decay
    every weight once when they are constructed, and in version 0.19 they divide float16 gradients
    by a loss scale that nothing was multiplied with.

    Attributes:
        overflow: Whether the last step was left out because a gradient was not finite.
        loss_scaler: Gives and adjusts the loss scale, which is 1 except in float16.
        masters: The float32 weight of every parameter: in float32 the parameter itself.

    Args:
        groups: Parameters with their options, as of any torch optimizer.
        clip: Largest global gradient norm; 0 = no clipping.
        **options: Of AdamW.
    """

    def __init__(self, groups: list[dict[str, Any]], *, clip: float, **options: Any) -> None:
        self.masters: dict[nn.Parameter, nn.Parameter] = {}
        for group in groups:
            self.masters |= {parameter: _master(parameter) for parameter in group["params"]}
            group["params"] = [self.masters[parameter] for parameter in group["params"]]
        super().__init__(groups, **options)
        dtypes = {parameter.dtype for parameter in self.masters}
        self.loss_scaler = _dynamic_scaler() if dtypes == {torch.float16} else LossScaler()
        self.overflow = False
        self._clip = clip
        self._global_grad_norm = 0.0  # read by DeepSpeed's engine

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Updates the weights from the gradients, which all ranks have the same of."""
        scale = self.loss_scaler.loss_scale
        for parameter, master in self.masters.items():
            if master is not parameter and parameter.grad is not None:
                master.grad = parameter.grad.to(master.dtype)
                parameter.grad = None
        gradients = [master.grad for master in self.masters.values() if master.grad is not None]
        norm = float(nn.utils.get_total_norm(gradients)) / scale
        self.overflow = not math.isfinite(norm)
        if not self.overflow:
            self._global_grad_norm = norm
            factor = 1 / scale
            if self._clip > 0:
                factor *= min(1.0, self._clip / (norm + 1e-6))
            torch._foreach_mul_(gradients, factor)
            super().step()
            for parameter, master in self.masters.items():
                if master is not parameter:
                    parameter.copy_(master)
        self.zero_grad()
        self.loss_scaler.update_scale(self.overflow)


def _master(parameter: nn.Parameter) -> nn.Parameter:
    if parameter.dtype == torch.float32:
        return parameter
    return nn.Parameter(parameter.detach().float())


def _dynamic_scaler() -> DynamicLossScaler:
    """Returns a loss scaler with the values that DeepSpeed's ZeRO optimizers have by default."""
    return DynamicLossScaler(
        init_scale=2.0**16,
        scale_window=1000,
        min_scale=1.0,
        delayed_shift=2,
        consecutive_hysteresis=False,
    )
