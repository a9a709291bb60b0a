"""TensorBoard's event files."""

from __future__ import annotations

from pathlib import Path

from bc2_train.metrics.records import Record, StepMetrics
from bc2_train.metrics.scalars import scalars

# AscendSpeed draws these over the samples and over the tokens as well.
_ALSO_OVER_DATA = (
    "lm-loss-training/lm loss",
    "grad-norm/grad-norm",
    "learning-rate/learning-rate",
    "batch-size/batch-size",
    "loss-scale/loss-scale",
    "iteration-time/iteration-time",
)


class TensorBoard:
    """Writes scalars under AscendSpeed's names.

    Args:
        directory: Of the event files.
        iteration: Last completed iteration; what an earlier process wrote beyond it is hidden.
    """

    def __init__(self, directory: Path, iteration: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._board = SummaryWriter(str(directory), purge_step=iteration + 1)

    def write(self, record: Record) -> None:
        """Writes the scalars of a record."""
        values = scalars(record)
        for tag, value in values.items():
            self._board.add_scalar(tag, value, record.iteration)
        if isinstance(record, StepMetrics):
            for tag in _ALSO_OVER_DATA:
                samples, tokens = record.consumed_samples, record.consumed_tokens
                self._board.add_scalar(f"{tag} vs samples", values[tag], samples)
                self._board.add_scalar(f"{tag} vs tokens", values[tag], tokens)

    def close(self) -> None:
        """Writes what is left in memory."""
        self._board.close()
