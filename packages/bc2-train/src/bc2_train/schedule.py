"""The learning rate as a pure function of the iteration, so that resuming restores nothing."""

from __future__ import annotations

import math

from bc2_train.config import Optimizer


def learning_rate(optimizer: Optimizer, iteration: int, iterations: int) -> float:
    """Returns the learning rate of one step.

    Warm-up rises linearly to ``lr``, which its last iteration reaches; a decaying schedule then
    falls to ``min_lr``, which the last iteration of the run reaches. ``wsd`` (warm-up, stable,
    decay; Hu et al., "MiniCPM", 2024) falls only in the last ``decay`` iterations.

    Args:
        optimizer: Learning rates, schedule and warm-up.
        iteration: Counted from 1.
        iterations: Of the whole run.
    """
    if iteration <= optimizer.warmup:
        return optimizer.lr * iteration / optimizer.warmup
    if optimizer.schedule == "constant":
        return optimizer.lr
    begin = optimizer.warmup
    if optimizer.schedule == "wsd":
        begin = max(begin, iterations - optimizer.decay)
    progress = max(iteration - begin, 0) / max(iterations - begin, 1)
    share = 1 - progress
    if optimizer.schedule == "cosine":
        share = (1 + math.cos(math.pi * progress)) / 2
    return optimizer.min_lr + (optimizer.lr - optimizer.min_lr) * share
