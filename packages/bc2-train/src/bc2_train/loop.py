"""The one training loop, whatever the engine, the layout and the device."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from bc2_ckpt.config import ModelConfig
from bc2_train.checkpoints import CheckpointFolder
from bc2_train.config import RunConfig
from bc2_train.data import BatchLoader
from bc2_train.engines.base import Engine, Progress
from bc2_train.errors import TrainError
from bc2_train.heartbeat import Heartbeat
from bc2_train.metrics import Evaluation, Record, Save, StepMetrics, log_line, measure
from bc2_train.rank_times import RankTimer
from bc2_train.ranks import Ranks
from bc2_train.schedule import learning_rate
from bc2_train.stop import Preempted, StopRequest

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Trainer:
    """Everything that a run needs, ready to go.

    Attributes:
        config: The run.
        model: Dimensions.
        engine: Computes the steps.
        loader: Gives the micro batches of training.
        evaluation: Gives those of evaluation; None without.
        checkpoints: Where state is saved.
        ranks: The processes of the run.
        device: This process's device.
        stop: Whether the run was asked to end.
        heartbeat: Tells whoever watches that this rank goes on.
    """

    config: RunConfig
    model: ModelConfig
    engine: Engine
    loader: BatchLoader
    evaluation: BatchLoader | None
    checkpoints: CheckpointFolder
    ranks: Ranks
    device: torch.device
    stop: StopRequest
    heartbeat: Heartbeat

    def resume(self) -> Progress:
        """Takes up the newest whole checkpoint where there is one and that is allowed.

        Raises:
            TrainError: There is one, but the run was told to start afresh.
        """
        if self.config.checkpoint.resume == "never" and self.checkpoints.all():
            raise TrainError(
                f"{self.checkpoints.path} holds checkpoints, and checkpoint.resume is never",
                "choose another run.dir, or set checkpoint.resume to auto",
            )
        newest = self.checkpoints.newest_whole()
        if newest is None:
            return Progress()
        progress = self.engine.load(newest)
        log.info("resumed from %s, iteration %d", newest, progress.iteration)
        return progress

    def run(self, progress: Progress, report: Callable[[Record], None]) -> None:
        """Trains to the last iteration.

        Args:
            progress: Where to go on.
            report: Called with each step, evaluation and save, and with what ranks tell each other.

        Raises:
            Preempted: The run was asked to end, and has saved.
            TrainError: Too many steps in a row had to be left out.
        """
        skipped_in_a_row = 0
        last = self.config.train.iterations
        timer = RankTimer(self.ranks, self.device)
        while progress.iteration < last:
            progress, metrics = self._step(progress, timer)
            self.heartbeat.step(progress.iteration, metrics.step_time)
            report(metrics)
            times = timer.exchange(progress.iteration)
            if times is not None:
                report(times)
            skipped = not math.isfinite(metrics.grad_norm)
            skipped_in_a_row = skipped_in_a_row + 1 if skipped else 0
            self._check_skipped(skipped_in_a_row)
            if _due(self.config.evaluation.interval, progress.iteration):
                report(self._evaluate(progress.iteration))
            stopping = self.ranks.any(self.stop.requested)
            at_end = progress.iteration == last
            if stopping or at_end or _due(self.config.checkpoint.interval, progress.iteration):
                report(self._save(progress))
            self._finish_save(wait=stopping)
            if stopping and not at_end:
                raise Preempted(f"ended at iteration {progress.iteration}")
        self.heartbeat.enter("saving")
        self._finish_save(wait=True)

    def _step(self, progress: Progress, timer: RankTimer) -> tuple[Progress, StepMetrics]:
        config = self.config
        started = time.perf_counter()
        iteration = progress.iteration + 1
        rate = learning_rate(config.optimizer, iteration, config.train.iterations)
        # Whatever draws random numbers in a step draws the same ones after a resume.
        torch.manual_seed(config.train.seed + iteration)
        batches = self.loader.step(progress.iteration)
        data_time = time.perf_counter() - started
        result = self.engine.train_step(batches, rate)
        timer.add(data=data_time, local=result.local_time)
        samples = config.batch.global_
        progress = replace(
            progress,
            iteration=iteration,
            consumed_samples=progress.consumed_samples + samples,
            consumed_tokens=progress.consumed_tokens + result.positions,
            skipped=progress.skipped + result.skipped,
        )
        metrics = measure(
            config,
            self.model,
            result=result,
            progress=progress,
            learning_rate=rate,
            data_time=data_time,
            step_time=time.perf_counter() - started,
            devices=self.ranks.size,
            device=self.device,
        )
        log.info("%s", log_line(config, metrics, result))
        return progress, metrics

    def _evaluate(self, iteration: int) -> Evaluation:
        """Returns the mean loss over the first batches of the evaluation data."""
        assert self.evaluation is not None  # an interval comes with data, see `preflight`
        self.heartbeat.enter("evaluating")
        started = time.perf_counter()
        total, tokens = 0.0, 0
        for step in range(self.config.evaluation.batches):
            result = self.engine.evaluate(self.evaluation.step(step))
            total += result.loss * result.tokens
            tokens += result.tokens
            self.heartbeat.beat()
        evaluation = Evaluation(
            iteration=iteration,
            loss=total / max(tokens, 1),
            tokens=tokens,
            seconds=time.perf_counter() - started,
        )
        log.info(
            " validation loss at iteration %d | lm loss value: %.6E | lm loss PPL: %.6E |",
            iteration,
            evaluation.loss,
            evaluation.perplexity,
        )
        self.heartbeat.enter("training")
        return evaluation

    def _check_skipped(self, skipped_in_a_row: int) -> None:
        if skipped_in_a_row <= self.config.train.most_skipped:
            return
        self._finish_save(wait=True)
        saved = self.checkpoints.all()
        raise TrainError(
            f"{skipped_in_a_row} steps in a row had a gradient that is not finite; "
            f"the last good checkpoint is {saved[-1] if saved else 'none'}",
            "lower optimizer.lr, look at the data near this step, or choose precision bfloat16",
        )

    def _save(self, progress: Progress) -> Save:
        started = time.perf_counter()
        self.heartbeat.enter("saving")
        self.checkpoints.save(
            progress.iteration,
            lambda directory: self.engine.save(directory, progress),
        )
        if not self.config.checkpoint.asynchronous:
            self._finish_save(wait=True)
        save = Save(iteration=progress.iteration, seconds=time.perf_counter() - started)
        log.info(
            "saving the checkpoint of iteration %d stopped training for %.1f s",
            save.iteration,
            save.seconds,
        )
        self.heartbeat.enter("training")
        return save

    def _finish_save(self, *, wait: bool) -> None:
        path = self.checkpoints.finish(wait=wait)
        if path is not None:
            log.info("saved %s", path)


def _due(interval: int, iteration: int) -> bool:
    return interval > 0 and iteration % interval == 0
