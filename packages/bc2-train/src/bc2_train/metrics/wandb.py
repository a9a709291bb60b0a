"""Weights & Biases, online or, with ``WANDB_MODE=offline``, in the run directory."""

from __future__ import annotations

import secrets

from bc2_data.atomic import write_text
from bc2_train import schema
from bc2_train.config import RunConfig
from bc2_train.errors import TrainError
from bc2_train.metrics.records import Record
from bc2_train.metrics.scalars import scalars

_ID_FILE = "wandb-id.txt"


class WeightsAndBiases:
    """Sends the scalars of each record, with the configuration, to a W&B run.

    A run that goes on after a restart goes on in the same W&B run, whose id is kept in the run
    directory. Curves are drawn over ``iteration``, so that steps that are taken again are no error.

    Args:
        config: The run.
        project: The W&B project.

    Raises:
        TrainError: wandb is not installed, or does not take the run.
    """

    def __init__(self, config: RunConfig, project: str) -> None:
        try:
            import wandb
        except ImportError as error:
            raise TrainError(
                "metrics.wandb needs wandb, which is not installed",
                "python3 -m pip install 'bc2-train[wandb]'",
            ) from error
        id_file = config.run_dir / _ID_FILE
        if not id_file.exists():
            write_text(id_file, secrets.token_hex(4) + "\n")
        try:
            self._run = wandb.init(
                project=project,
                name=config.run_dir.resolve().name,
                id=id_file.read_text("utf-8").strip(),
                resume="allow",
                dir=str(config.run_dir),
                config=schema.dump(config),
            )
        except wandb.Error as error:
            raise TrainError(
                f"wandb does not take the run: {error}",
                "wandb login, or WANDB_MODE=offline and later `wandb sync`",
            ) from error
        self._run.define_metric("iteration", hidden=True)
        self._run.define_metric("*", step_metric="iteration")

    def write(self, record: Record) -> None:
        """Sends a record."""
        self._run.log({"iteration": record.iteration, **scalars(record)})

    def close(self) -> None:
        """Waits until everything is sent, or written."""
        self._run.finish()
