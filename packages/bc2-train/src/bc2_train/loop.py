"""The one training loop, whatever the engine, the layout and the device."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from bc2_ckpt.config import ModelConfig
from bc2_train.checkpoints import CheckpointFolder
from bc2_train.config import RunConfig
from bc2_train.data import BatchLoader
from bc2_train.engines.base import Engine, Progress
from bc2_train.errors import TrainError
from bc2_train.metrics import StepMetrics, log_line, measure
from bc2_train.schedule import learning_rate

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Trainer:
    """Everything that a run needs, ready to go.

    Attributes:
        config: The run.
        model: Dimensions.
        engine: Computes the steps.
        loader: Gives the micro batches.
        checkpoints: Where state is saved.
        device: This process's device.
        devices: Of the whole job.
    """

    config: RunConfig
    model: ModelConfig
    engine: Engine
    loader: BatchLoader
    checkpoints: CheckpointFolder
    device: torch.device
    devices: int

    def resume(self) -> Progress:
        """Takes up the newest checkpoint where there is one and that is allowed.

        Raises:
            TrainError: There is one, but the run was told to start afresh.
        """
        newest = self.checkpoints.newest()
        if newest is None:
            return Progress()
        if self.config.checkpoint.resume == "never":
            raise TrainError(
                f"{self.checkpoints.path} holds checkpoints, and checkpoint.resume is never",
                "choose another run.dir, or set checkpoint.resume to auto",
            )
        progress = self.engine.load(newest)
        log.info("resumed from %s, iteration %d", newest, progress.iteration)
        return progress

    def run(self, progress: Progress, report: Callable[[StepMetrics], None]) -> Progress:
        """Trains to the last iteration.

        Args:
            progress: Where to go on.
            report: Called after each step.
        """
        config = self.config
        while progress.iteration < config.train.iterations:
            started = time.perf_counter()
            iteration = progress.iteration + 1
            rate = learning_rate(config.optimizer, iteration, config.train.iterations)
            result = self.engine.train_step(self.loader.step(progress.iteration), rate)
            samples = config.batch.global_
            progress = Progress(
                iteration=iteration,
                consumed_samples=progress.consumed_samples + samples,
                consumed_tokens=progress.consumed_tokens + samples * config.data.seq_length,
                skipped=progress.skipped + result.skipped,
            )
            metrics = measure(
                config,
                self.model,
                result=result,
                progress=progress,
                learning_rate=rate,
                step_time=time.perf_counter() - started,
                devices=self.devices,
                device=self.device,
            )
            log.info("%s", log_line(config, metrics, result.loss_scale))
            report(metrics)
            if self._saves(iteration):
                self._save(progress)
        return progress

    def _saves(self, iteration: int) -> bool:
        interval = self.config.checkpoint.interval
        last = iteration == self.config.train.iterations
        return last or (interval > 0 and iteration % interval == 0)

    def _save(self, progress: Progress) -> None:
        started = time.perf_counter()
        path = self.checkpoints.save(
            progress.iteration,
            lambda directory: self.engine.save(directory, progress),
        )
        log.info("saved %s in %.1f s", path, time.perf_counter() - started)
