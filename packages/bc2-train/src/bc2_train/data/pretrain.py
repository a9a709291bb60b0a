"""Pretraining data: one stream of documents, cut into samples."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bc2_data.indexed import IndexedDataset
from bc2_data.vocab import EOS_ID
from bc2_train.data.index_cache import index_files
from bc2_train.data.sample import Dataset, Sample
from bc2_train.ranks import Ranks


class StreamDataset:
    """Consecutive samples of the documents in file order.

    Sample i is tokens i * seq_length ... (i + 1) * seq_length of the stream, so that every token
    but the first is predicted once.

    Args:
        prefix: Path prefix of the .bin and .idx files.
        seq_length: Predictions in a sample.
        cross_document_attention: Whether samples are one document each to the model, whatever
            borders they contain.
    """

    def __init__(self, prefix: str, seq_length: int, cross_document_attention: bool) -> None:
        self._length = seq_length
        self._data = IndexedDataset(prefix)
        self._ends: npt.NDArray[np.int64] | None = None
        if not cross_document_attention:
            self._ends = np.cumsum(self._data.lengths, dtype=np.int64)

    def __len__(self) -> int:
        return max(self._data.num_tokens - 1, 0) // self._length

    def __getitem__(self, index: int) -> Sample:
        start = index * self._length
        stop = start + self._length + 1
        tokens = self._data.tokens[start:stop]
        if self._ends is None:
            return _sample(tokens)
        ends = self._ends
        inside = ends[np.searchsorted(ends, start, "right") : np.searchsorted(ends, stop, "left")]
        return _sample(tokens, np.diff([start, *inside, stop]))


@dataclass(frozen=True, kw_only=True)
class MegatronData:
    """What megatron-core's GPTDataset is built from.

    Attributes:
        weights: Weight of every path prefix.
        split: Shares of the documents for training, validation and test.
        seq_length: Predictions in a sample.
        samples: Training samples that the run takes; documents repeat as often as that needs.
        validation_samples: The same of validation; None for no validation data.
        seed: Of the order of documents and samples.
    """

    weights: dict[str, float]
    split: tuple[float, float, float]
    seq_length: int
    samples: int
    validation_samples: int | None
    seed: int


def open_megatron_data(
    data: MegatronData, ranks: Ranks, cache: Path, cross_document_attention: bool
) -> tuple[Dataset, Dataset | None]:
    """Returns the training and the validation samples; every rank must call this.

    Args:
        data: The samples.
        ranks: The processes of the run.
        cache: Where index files are kept.
        cross_document_attention: As in `StreamDataset`.
    """
    for prefix in data.weights:
        IndexedDataset(prefix)  # its errors are clearer than megatron-core's
    with index_files(cache, list(data.weights), data, ranks, _build) as folder:
        training, validation = _build(data, folder)
    return (
        MegatronDataset(training, cross_document_attention),
        None
        if data.validation_samples is None
        else MegatronDataset(validation, cross_document_attention),
    )


def _build(data: MegatronData, folder: Path) -> tuple[Any, Any]:
    """Returns megatron-core's datasets of training and validation, their index in a folder."""
    from megatron.core.datasets.blended_megatron_dataset_builder import (
        BlendedMegatronDatasetBuilder,
    )
    from megatron.core.datasets.gpt_dataset import GPTDatasetConfig

    from bc2_train.data.gpt_dataset import DocumentAwareGPTDataset

    several = len(data.weights) > 1
    unused = 0 if several else None
    config = GPTDatasetConfig(
        random_seed=data.seed,
        sequence_length=data.seq_length,
        blend=(list(data.weights), list(data.weights.values()) if several else None),
        split=",".join(str(share) for share in data.split),
        path_to_cache=str(folder),
        tokenizer=_TokenizerFacts(),
        reset_position_ids=False,
        reset_attention_mask=False,
        eod_mask_loss=False,
        create_attention_mask=False,
        mmap_bin_files=True,
    )
    builder = BlendedMegatronDatasetBuilder(
        DocumentAwareGPTDataset,
        # megatron-core asks for a number where there are weights, and for none otherwise.
        [data.samples, data.validation_samples or unused, unused],
        lambda: True,
        config,
    )
    training, validation, _ = builder.build()
    return training, validation


class MegatronDataset:
    """Samples of a megatron-core dataset, which has shuffled them.

    Args:
        dataset: A `DocumentAwareGPTDataset`, or a blend of them.
        cross_document_attention: As in `StreamDataset`.
    """

    def __init__(self, dataset: Any, cross_document_attention: bool) -> None:
        self._dataset = dataset
        self._crossing = cross_document_attention

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, index: int) -> Sample:
        item = self._dataset[index]
        return _sample(item["text"], None if self._crossing else item["document_lengths"])


class _TokenizerFacts:
    """The little that GPTDataset asks of a tokenizer."""

    eod = EOS_ID
    vocab_size = None  # only used to check an id type, and ours is always int32
    unique_identifiers = {"class": "Baichuan2"}  # noqa: RUF012 - read by name, part of a cache key


def _sample(tokens: Any, document_lengths: npt.NDArray[np.int64] | None = None) -> Sample:
    """Returns a sample of seq + 1 tokens.

    Args:
        tokens: (seq + 1,).
        document_lengths: Tokens of each document in it, if attention must not cross their borders.
    """
    tokens = np.asarray(tokens, dtype=np.int64)
    trained = np.ones(len(tokens) - 1, dtype=np.bool_)
    segments = None
    if document_lengths is not None:
        ids = np.repeat(np.arange(1, len(document_lengths) + 1), document_lengths)
        trained = ids[1:] == ids[:-1]
        segments = ids[:-1]
    return Sample(tokens=tokens[:-1], labels=tokens[1:], loss_mask=trained, segment_ids=segments)
