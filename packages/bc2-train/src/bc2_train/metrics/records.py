"""The records of a run, each kind one line of a file of its own."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class StepMetrics:
    """One line of metrics.jsonl.

    Attributes:
        iteration: Counted from 1.
        loss: Mean cross entropy over the trained tokens, in nats.
        grad_norm: Before clipping; NaN, in the file null, where it was not finite.
        lr: Learning rate.
        step_time: Wall time of the step in seconds; its parts follow below.
        samples_per_second: Of the whole job.
        tokens_per_second_per_device: Input positions, padding included.
        tflops_per_device: TFLOP/s by AscendSpeed's formula.
        consumed_samples: Since the start of the run.
        consumed_tokens: Input positions since the start of the run.
        skipped: Updates left out since the start of the run.
        memory: Peak bytes of this process: of the device's allocator, or resident on a CPU.
        data_time: Seconds of the step in which the first rank read its micro batches; NaN where it
            was not measured, as the two below.
        forward_backward_time: Seconds until the gradients were there and reduced.
        optimizer_time: Seconds of clipping and of the update. What the three leave of `step_time`
            is bookkeeping.
        loss_scale: Factor of the loss in float16 training, else 1.
    """

    iteration: int
    loss: float
    grad_norm: float
    lr: float
    step_time: float
    samples_per_second: float
    tokens_per_second_per_device: float
    tflops_per_device: float
    consumed_samples: int
    consumed_tokens: int
    skipped: int
    memory: int
    data_time: float = math.nan
    forward_backward_time: float = math.nan
    optimizer_time: float = math.nan
    loss_scale: float = 1.0


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """One line of evaluations.jsonl.

    Attributes:
        iteration: Completed training steps.
        loss: Mean cross entropy over the trained tokens of the evaluation batches, in nats.
        tokens: These tokens.
        seconds: Wall time for which training stood still.
    """

    iteration: int
    loss: float
    tokens: int
    seconds: float = math.nan

    @property
    def perplexity(self) -> float:
        """exp(loss), as far as a float holds it."""
        return math.exp(min(self.loss, 700.0))


@dataclass(frozen=True, kw_only=True)
class Save:
    """One line of saves.jsonl.

    Attributes:
        iteration: Of the checkpoint.
        seconds: Wall time for which training stood still; what an asynchronous save writes in the
            background is not part of it.
    """

    iteration: int
    seconds: float


@dataclass(frozen=True, kw_only=True)
class RankTimes:
    """One line of ranks.jsonl: how fast each rank is by itself; see `bc2_train.rank_times`.

    Attributes:
        iteration: Completed training steps.
        data: Mean seconds that each rank took to read its micro batches.
        local: Mean seconds that each rank computed before it first waited for the others to reduce
            gradients; NaN where ranks wait for each other within the passes.
        probe: Seconds of a computation that each rank does alone.
    """

    iteration: int
    data: list[float]
    local: list[float]
    probe: list[float]


Record = StepMetrics | Evaluation | Save | RankTimes
"""Everything that a run reports while it goes on."""
