"""What every subcommand that opens a checkpoint shares."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from bc2_ckpt.config import PRESETS, ModelConfig

if TYPE_CHECKING:
    from bc2_ckpt.formats.protocol import CheckpointReader


def add_config(parser: argparse.ArgumentParser) -> None:
    """Adds ``--config``."""
    parser.add_argument(
        "--config",
        metavar="DIR|PRESET",
        help="the model, where no config.json is beside the weights: a directory that has one, "
        f"or {', '.join(PRESETS)}",
    )


def named_config(args: argparse.Namespace) -> ModelConfig | None:
    """Returns the model of ``--config``, None where it was not given."""
    return ModelConfig.load(args.config) if args.config else None


def open_source(path: Path, args: argparse.Namespace) -> CheckpointReader:
    """Opens a checkpoint of any format."""
    from bc2_ckpt.checkpoint import open_checkpoint

    return open_checkpoint(path, named_config(args))
