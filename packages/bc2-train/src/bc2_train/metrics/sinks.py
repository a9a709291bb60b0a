"""Where records go besides the files of the run directory, as its configuration says."""

from __future__ import annotations

from typing import Protocol

import torch

from bc2_train.config import RunConfig
from bc2_train.metrics.records import Record


class Sink(Protocol):
    """Takes the records of a run as they come."""

    def write(self, record: Record) -> None:
        """Takes one record."""
        ...

    def close(self) -> None:
        """Hands over what is left."""
        ...


SETTLING_STEPS = 5
"""Steps of a process that are not profiled: memory is still allocated, code still compiled."""


def open_sinks(config: RunConfig, device: torch.device) -> list[Sink]:
    """Returns the optional sinks that the configuration asks for.

    Args:
        config: The run.
        device: This process's device.

    Raises:
        TrainError: A library is not installed, or a service does not take the run.
    """
    sinks: list[Sink] = []
    if config.metrics.prometheus_port:
        from bc2_train.metrics.prometheus import Prometheus

        sinks.append(Prometheus(config.metrics.prometheus_port, run=config.run_dir.resolve().name))
    if config.metrics.wandb is not None:
        from bc2_train.metrics.wandb import WeightsAndBiases

        sinks.append(WeightsAndBiases(config, project=config.metrics.wandb))
    if config.metrics.profile:
        from bc2_train.metrics.profiler import StepProfiler

        steps = config.metrics.profile
        spare = config.train.iterations - steps - 1  # one warms the profiler up
        folder = config.run_dir / "profile"
        settling = max(0, min(SETTLING_STEPS, spare))
        sinks.append(StepProfiler(folder, device, settling=settling, steps=steps))
    return sinks
