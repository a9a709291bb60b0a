"""Chooses the dataset that a run's configuration asks for."""

from __future__ import annotations

import logging

from bc2_train.config import RunConfig
from bc2_train.data.instruction import InstructionDataset
from bc2_train.data.pretrain import MegatronDataset, StreamDataset
from bc2_train.data.sample import Dataset

log = logging.getLogger(__name__)


def build_dataset(config: RunConfig) -> Dataset:
    """Returns the training samples of a run.

    Args:
        config: The run; every process must call this, since megatron-core builds its index files
            on the first and lets the others wait.
    """
    data = config.data
    if data.kind == "instruction":
        dataset = InstructionDataset(data.prefix, data.seq_length)
        if dataset.cut:
            log.warning(
                "%d of %d rows have more than data.seq_length + 1 = %d tokens and are cut",
                dataset.cut,
                len(dataset),
                data.seq_length + 1,
            )
        return dataset
    if not data.shuffle:
        return StreamDataset(data.prefix, data.seq_length)
    return MegatronDataset(
        data.prefix,
        data.seq_length,
        samples=config.train.iterations * config.batch.global_,
        seed=config.train.seed,
        cache=config.run_dir / "data-cache",
    )
