"""What can be known to fail before processes are started."""

from __future__ import annotations

from pathlib import Path

from bc2_ckpt.config import ModelConfig
from bc2_train import layout
from bc2_train.config import RunConfig
from bc2_train.errors import TrainError


def check(config: RunConfig, world_size: int) -> None:
    """Raises the first thing that would stop the run.

    Args:
        config: The run.
        world_size: Processes that will be started.

    Raises:
        Bc2Error: The layout does not fit, or data or weights are not there.
    """
    model = ModelConfig.load(config.model.config)
    layout.check(config, model, world_size)
    suffix = "_packed_input_ids_document" if config.data.kind == "instruction" else ""
    index = Path(f"{config.data.prefix}{suffix}.idx")
    if not index.is_file():
        raise TrainError(
            f"no data at {config.data.prefix}: {index} does not exist",
            "bc2-data tokenize --input FILE --tokenizer DIR --output-prefix PREFIX",
        )
    if config.model.init != "random" and not Path(config.model.init).is_dir():
        raise TrainError(
            f"model.init is {config.model.init!r}, which is no directory",
            "give a checkpoint directory, or random",
        )
