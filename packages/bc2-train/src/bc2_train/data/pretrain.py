"""Pretraining data: one stream of documents, cut into samples."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from bc2_data.indexed import IndexedDataset
from bc2_data.vocab import EOS_ID
from bc2_train.data.sample import Sample


class StreamDataset:
    """Consecutive samples of the documents in file order.

    Sample i is tokens i * seq_length ... (i + 1) * seq_length of the stream, so that every token
    but the first is predicted once.

    Args:
        prefix: Path prefix of the .bin and .idx files.
        seq_length: Predictions in a sample.
    """

    def __init__(self, prefix: str, seq_length: int) -> None:
        self.seq_length = seq_length
        self._tokens = IndexedDataset(prefix).tokens

    def __len__(self) -> int:
        return max(len(self._tokens) - 1, 0) // self.seq_length

    def __getitem__(self, index: int) -> Sample:
        start = index * self.seq_length
        return _sample(self._tokens[start : start + self.seq_length + 1])


class MegatronDataset:
    """Samples of megatron-core's GPTDataset, which shuffles documents and samples.

    Args:
        prefix: Path prefix of the .bin and .idx files.
        seq_length: Predictions in a sample.
        samples: How many samples the run takes; the documents repeat as often as that needs.
        seed: Of the order.
        cache: Where megatron-core keeps its index files.
    """

    def __init__(self, prefix: str, seq_length: int, samples: int, seed: int, cache: Path) -> None:
        from megatron.core.datasets.blended_megatron_dataset_builder import (
            BlendedMegatronDatasetBuilder,
        )
        from megatron.core.datasets.gpt_dataset import GPTDataset, GPTDatasetConfig

        IndexedDataset(prefix)  # its errors are clearer than megatron-core's
        config = GPTDatasetConfig(
            random_seed=seed,
            sequence_length=seq_length,
            blend=([prefix], None),
            split="1,0,0",
            path_to_cache=str(cache),
            tokenizer=_TokenizerFacts(),
            reset_position_ids=False,
            reset_attention_mask=False,
            eod_mask_loss=False,
            create_attention_mask=False,
            mmap_bin_files=True,
        )
        builder = BlendedMegatronDatasetBuilder(
            GPTDataset, [samples, None, None], lambda: True, config
        )
        self._dataset: Any = builder.build()[0]

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, index: int) -> Sample:
        item = self._dataset[index]
        return _sample(np.append(item["tokens"].numpy(), item["labels"][-1].numpy()))


class _TokenizerFacts:
    """The little that GPTDataset asks of a tokenizer."""

    eod = EOS_ID
    vocab_size = None  # an id type is checked where it is given; ours is always int32
    unique_identifiers = {"class": "Baichuan2"}  # noqa: RUF012 - read by name, part of a cache key


def _sample(tokens: Any) -> Sample:
    tokens = np.asarray(tokens, dtype=np.int64)
    return Sample(
        tokens=tokens[:-1],
        labels=tokens[1:],
        loss_mask=np.ones(len(tokens) - 1, dtype=np.bool_),
        segment_ids=None,
    )
