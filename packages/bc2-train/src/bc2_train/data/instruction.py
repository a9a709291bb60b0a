"""Instruction data: rows of tokens, labels and segment ids, as bc2-data writes them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from bc2_data.datasets import manifest_path
from bc2_data.indexed import IndexedDataset
from bc2_data.manifest import read_manifest
from bc2_data.vocab import IGNORE_INDEX, PAD_ID
from bc2_train.data.sample import Sample
from bc2_train.errors import TrainError

KEYS = ("input_ids", "labels", "attention_mask")


class InstructionDataset:
    """One sample a row, as long as the row.

    Labels on disk are unshifted; the shift to next-token targets happens here and nowhere else. A
    prediction across two packed documents is never trained, whatever its label.

    Attributes:
        packed: Whether rows hold several conversations and so are nearly full, as far as the
            manifest tells.
        cut: How many rows are longer than a sample and lose their end.

    Args:
        prefix: Path prefix of ``_packed_{input_ids,labels,attention_mask}_document.{bin,idx}``.
        seq_length: Most predictions in a sample.

    Raises:
        TrainError: The three files do not hold the same rows.
    """

    def __init__(self, prefix: str, seq_length: int) -> None:
        self.seq_length = seq_length
        self._files = [IndexedDataset(f"{prefix}_packed_{key}_document") for key in KEYS]
        lengths = [np.asarray(file.lengths) for file in self._files]
        for key, other in zip(KEYS[1:], lengths[1:], strict=True):
            if not np.array_equal(lengths[0], other):
                raise TrainError(
                    f"{prefix}: {key} and {KEYS[0]} do not have the same rows",
                    "tokenise the data again",
                )
        manifest = manifest_path(Path(prefix))
        self.packed = manifest.is_file() and read_manifest(manifest).packing is not None
        self.cut = int((lengths[0] > seq_length + 1).sum())

    def __len__(self) -> int:
        return len(self._files[0])

    def __getitem__(self, index: int) -> Sample:
        size = self.seq_length + 1
        tokens, labels, segments = (file[index][:size].astype(np.int64) for file in self._files)
        trained = (
            (labels[1:] != IGNORE_INDEX) & (segments[1:] == segments[:-1]) & (segments[1:] > 0)
        )
        return Sample(
            tokens=tokens[:-1],
            labels=np.where(trained, labels[1:], PAD_ID),
            loss_mask=trained,
            segment_ids=segments[:-1],
        )
