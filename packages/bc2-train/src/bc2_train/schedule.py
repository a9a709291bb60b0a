"""The learning rate as a pure function of the iteration, so that resuming restores nothing."""

from __future__ import annotations

import math

from bc2_train.config import Optimizer


def learning_rate(optimizer: Optimizer, iteration: int, iterations: int) -> float:
    """Returns the learning rate of one step.

    Warm-up rises linearly to ``lr``, which its last iteration reaches; a decaying schedule then
    falls to ``min_lr``, which the last iteration of the run reaches.

    Args:
        optimizer: Learning rates, schedule and warm-up.
        iteration: Counted from 1.
        iterations: Of the whole run.
    """
    if iteration <= optimizer.warmup:
        return optimizer.lr * iteration / optimizer.warmup
    if optimizer.schedule == "constant":
        return optimizer.lr
    progress = (iteration - optimizer.warmup) / max(iterations - optimizer.warmup, 1)
    share = 1 - progress
    if optimizer.schedule == "cosine":
        share = (1 + math.cos(math.pi * progress)) / 2
    return optimizer.min_lr + (optimizer.lr - optimizer.min_lr) * share
