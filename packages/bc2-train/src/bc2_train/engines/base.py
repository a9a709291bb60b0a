"""What the training loop asks of an engine."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from bc2_train.checkpoints import PendingSave
from bc2_train.data import Batch


@dataclass(frozen=True, kw_only=True)
class StepResult:
    """One optimizer step, the same on every rank.

    Attributes:
        loss: Mean cross entropy over the trained tokens of the global batch, in nats.
        grad_norm: Global gradient norm before clipping; NaN where the step was skipped.
        tokens: Trained tokens of the global batch.
        positions: Input positions of the global batch, padding included.
        skipped: Whether the update was left out because a gradient was not finite.
        loss_scale: Factor of the loss in float16 training, else 1.
        forward_backward_time: Seconds until the gradients were there and reduced.
        optimizer_time: Seconds of clipping and of the update.
        local_time: Seconds until this rank first waited for others to reduce gradients, as its host
            sees it: an accelerator may still be computing. NaN where ranks wait for each other
            within the passes, so that no rank has a time of its own.
    """

    loss: float
    grad_norm: float
    tokens: int
    positions: int
    skipped: bool
    loss_scale: float
    forward_backward_time: float = math.nan
    optimizer_time: float = math.nan
    local_time: float = math.nan


@dataclass(frozen=True, kw_only=True)
class EvaluationResult:
    """The loss of one global batch, the same on every rank.

    Attributes:
        loss: Mean cross entropy over the trained tokens, in nats.
        tokens: Trained tokens.
    """

    loss: float
    tokens: int


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a run has come; saved with every checkpoint.

    Attributes:
        iteration: Completed optimizer steps.
        consumed_samples: Samples seen.
        consumed_tokens: Input positions seen, padding included.
        skipped: Steps whose update was left out.
    """

    iteration: int = 0
    consumed_samples: int = 0
    consumed_tokens: int = 0
    skipped: int = 0


class Engine(Protocol):
    """Computes steps and keeps the state they change."""

    data_parallel_rank: int
    data_parallel_size: int

    def train_step(self, batches: Sequence[Batch], learning_rate: float) -> StepResult:
        """Computes one optimizer step.

        Args:
            batches: The micro batches of this data-parallel rank.
            learning_rate: Of this step.
        """
        ...

    def evaluate(self, batches: Sequence[Batch]) -> EvaluationResult:
        """Computes the loss of the micro batches of this data-parallel rank, without a step."""
        ...

    def save(self, directory: Path, progress: Progress) -> PendingSave:
        """Writes parameters, optimizer state and progress into an empty directory.

        The state is that of now, also where the files are written later, in the background.
        """
        ...

    def load(self, directory: Path) -> Progress:
        """Restores what `save` wrote, under this or another parallel layout."""
        ...
