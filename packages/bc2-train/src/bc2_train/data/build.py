"""Chooses the datasets that a run's configuration asks for."""

from __future__ import annotations

import logging

from bc2_train.config import RunConfig
from bc2_train.data.instruction import InstructionDataset
from bc2_train.data.pretrain import MegatronData, StreamDataset, open_megatron_data
from bc2_train.data.sample import Dataset

log = logging.getLogger(__name__)


def build_datasets(config: RunConfig) -> tuple[Dataset, Dataset | None]:
    """Returns the samples for training, and those for evaluation where there is any.

    Args:
        config: The run; every process must call this, since megatron-core builds its index files
            on the first and lets the others wait.
    """
    data, evaluation = config.data, config.evaluation
    if data.kind == "instruction" or not data.shuffle:
        training: Dataset = _in_file_order(config, data.prefix)
        validation = None
    else:
        training, validation = _shuffled(config)
    if not evaluation.interval:
        return training, None
    if evaluation.prefix:
        return training, _in_file_order(config, evaluation.prefix)
    return training, validation


def _in_file_order(config: RunConfig, prefix: str) -> Dataset:
    data = config.data
    if data.kind == "pretrain":
        return StreamDataset(prefix, data.seq_length, data.cross_document_attention)
    dataset = InstructionDataset(prefix, data.seq_length)
    if dataset.cut:
        log.warning(
            "%s: %d of %d rows have more than data.seq_length + 1 = %d tokens and are cut",
            prefix,
            dataset.cut,
            len(dataset),
            data.seq_length + 1,
        )
    return dataset


def _shuffled(config: RunConfig) -> tuple[Dataset, Dataset | None]:
    data, evaluation = config.data, config.evaluation
    uses_split = evaluation.interval > 0 and evaluation.prefix is None
    return open_megatron_data(
        MegatronData(
            weights={data.prefix: data.prefix_weight, **data.blend},
            split=data.split,
            seq_length=data.seq_length,
            samples=config.train.iterations * config.batch.global_,
            validation_samples=evaluation.batches * config.batch.global_ if uses_split else None,
            seed=config.train.seed,
            cross_document_attention=data.cross_document_attention,
            cache=config.data_cache,
        )
    )
