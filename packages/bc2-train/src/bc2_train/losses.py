"""The losses of a run, from its metrics or from anybody's training log."""

from __future__ import annotations

import re
from pathlib import Path

from bc2_train.errors import TrainError
from bc2_train.report import load_metrics

_LOG_LINE = re.compile(
    r"iteration\s+(?P<iteration>\d+)/\s*\d+\s*\|.*?lm loss:\s+(?P<loss>[-+.\dEe]+)\s*\|"
)


def load_losses(path: Path) -> dict[int, float]:
    """Returns the loss of every iteration, in nats.

    Args:
        path: A run directory, or a log whose lines have the shape of AscendSpeed's and Megatron's:
            ``iteration 7/ 100 | ... | lm loss: 1.0957E+00 | ...``.

    Raises:
        TrainError: There is no such file, or it holds no loss.
    """
    if path.is_dir():
        return {step.iteration: step.loss for step in load_metrics(path)}
    if not path.is_file():
        raise TrainError(f"{path} does not exist", "give a run directory, or a training log")
    text = path.read_text("utf-8", errors="replace")
    losses = {int(m["iteration"]): float(m["loss"]) for m in _LOG_LINE.finditer(text)}
    if not losses:
        raise TrainError(
            f"{path} holds no line with an iteration and an lm loss",
            "give a run directory, or a log of AscendSpeed or Megatron",
        )
    return losses
