"""The engine that a run's configuration asks for."""

from __future__ import annotations

import torch

from bc2_ckpt.config import ModelConfig
from bc2_model.weights import WeightSource
from bc2_train.config import RunConfig
from bc2_train.engines.base import Engine


def build_engine(
    config: RunConfig, model: ModelConfig, weights: WeightSource, device: torch.device
) -> Engine:
    """Returns an engine with a model on the device; nothing of the other engine is imported.

    Args:
        config: The run.
        model: Dimensions of the whole model.
        weights: Where the initial parameters come from.
        device: This process's device.
    """
    if config.engine == "deepspeed":
        from bc2_train.engines.deepspeed import accelerator

        accelerator.install(device)  # before anything else imports deepspeed
        from bc2_train.engines.deepspeed.engine import DeepSpeedEngine

        return DeepSpeedEngine(config, model, weights, device)
    from bc2_train.engines.megatron import MegatronEngine

    return MegatronEngine(config, model, weights, device)
