"""Chooses the datasets that a run's configuration asks for."""

from __future__ import annotations

import logging
import math

from bc2_train.config import RunConfig
from bc2_train.data.batches import Padding
from bc2_train.data.instruction import InstructionDataset
from bc2_train.data.pretrain import MegatronData, StreamDataset, open_megatron_data
from bc2_train.data.sample import Dataset
from bc2_train.ranks import Ranks

log = logging.getLogger(__name__)

_ROUNDING = 64
"""Lengths of rows are multiples of this, so that a run has few different ones."""


def build_datasets(config: RunConfig, ranks: Ranks) -> tuple[Dataset, Dataset | None]:
    """Returns the samples for training, and those for evaluation where there is any.

    Args:
        config: The run.
        ranks: Its processes, all of which must call this.
    """
    data, evaluation = config.data, config.evaluation
    if data.kind == "instruction" or not data.shuffle:
        training: Dataset = _in_file_order(config, data.prefix)
        validation = None
    else:
        training, validation = _shuffled(config, ranks)
    if not evaluation.interval:
        return training, None
    if evaluation.prefix:
        return training, _in_file_order(config, evaluation.prefix)
    return training, validation


def padding(config: RunConfig, dataset: Dataset) -> Padding:
    """Returns how long the rows of a dataset's micro batches are.

    Instruction data is padded to the longest row of each micro batch, unless it is packed: then
    rows are nearly full, and equal lengths are worth more.
    """
    longest, parallel = config.data.seq_length, config.parallel
    if not isinstance(dataset, InstructionDataset) or dataset.packed:
        return Padding(longest=longest)
    shards = parallel.tensor if parallel.sequence else 1
    if parallel.context > 1:
        shards *= 2 * parallel.context
    return Padding(
        longest=longest, multiple=math.lcm(_ROUNDING, shards), together=parallel.pipeline > 1
    )


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


def _shuffled(config: RunConfig, ranks: Ranks) -> tuple[Dataset, Dataset | None]:
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
        ),
        ranks,
        config.data_cache,
        data.cross_document_attention,
    )
