"""megatron-core's own datasets read what bc2-data writes."""

from __future__ import annotations

from itertools import chain
from pathlib import Path

import pytest

pytest.importorskip("megatron.core", reason="megatron-core is not installed")

LENGTH = 32


def test_indexed_dataset(pretraining_data: Path, documents: list[list[int]]) -> None:
    from megatron.core.datasets.indexed_dataset import IndexedDataset

    dataset = IndexedDataset(str(pretraining_data))
    assert [dataset[i].tolist() for i in range(len(dataset))] == documents
    assert dataset.document_indices.tolist() == list(range(len(documents) + 1))


def test_gpt_dataset_gives_every_token_once_an_epoch(
    pretraining_data: Path, documents: list[list[int]], tmp_path: Path
) -> None:
    import numpy as np
    from megatron.core.datasets.gpt_dataset import GPTDataset, GPTDatasetConfig
    from megatron.core.datasets.indexed_dataset import IndexedDataset
    from megatron.core.datasets.utils import Split

    class Tokenizer:
        """What GPTDataset asks a tokenizer."""

        eod, pad, vocab_size = 2, 0, 600
        unique_identifiers = {"name": "bc2"}  # noqa: RUF012 - as megatron-core's own have it

    config = GPTDatasetConfig(
        random_seed=1,
        sequence_length=LENGTH,
        blend=([str(pretraining_data)], None),
        split="100,0,0",
        path_to_cache=str(tmp_path),
        tokenizer=Tokenizer(),
        reset_position_ids=False,
        reset_attention_mask=False,
        eod_mask_loss=False,
        create_attention_mask=False,
    )
    stream = list(chain.from_iterable(documents))
    samples = (len(stream) - 1) // LENGTH
    source = IndexedDataset(str(pretraining_data))
    indices = np.arange(len(documents), dtype=np.int32)
    dataset = GPTDataset(source, str(pretraining_data), indices, samples, Split.train, config)
    assert len(dataset) >= samples
    # Documents are shuffled, so the stream is that of megatron-core's own order.
    shuffled = list(chain.from_iterable(documents[i] for i in dataset.document_index))
    assert sorted(dataset.document_index[: len(documents)].tolist()) == indices.tolist()
    for place in range(samples):
        number = int(dataset.shuffle_index[place])
        start = number * LENGTH
        sample = dataset[place]
        assert sample["tokens"].tolist() == shuffled[start : start + LENGTH]
        assert sample["labels"].tolist() == shuffled[start + 1 : start + LENGTH + 1]
        assert sample["loss_mask"].tolist() == [1.0] * LENGTH
