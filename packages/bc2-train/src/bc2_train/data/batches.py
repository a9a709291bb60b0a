"""From samples to micro batches, in one order for every parallel layout."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from bc2_data.vocab import PAD_ID
from bc2_train.data.sample import Dataset, Sample
from bc2_train.errors import TrainError


@dataclass(frozen=True)
class Batch:
    """A micro batch on the training device.

    Attributes:
        tokens: (micro, seq) int64.
        labels: (micro, seq) int64.
        loss_mask: (micro, seq) bool.
        segment_ids: (micro, seq) int64, 0 = padding; None where each row is one document.
    """

    tokens: torch.Tensor
    labels: torch.Tensor
    loss_mask: torch.Tensor
    segment_ids: torch.Tensor | None


@dataclass(frozen=True, kw_only=True)
class Padding:
    """How long the rows of a micro batch are.

    Attributes:
        longest: Their greatest length.
        multiple: Rows are as long as the longest sample among them, rounded up to a multiple of
            this; None = always `longest`.
        together: Whether all micro batches of a rank's step have one length, as the stages of a
            pipeline expect.
    """

    longest: int
    multiple: int | None = None
    together: bool = False

    def lengths(self, batches: Sequence[Sequence[Sample]]) -> list[int]:
        """Returns the length of the rows of each micro batch."""
        if self.multiple is None:
            return [self.longest] * len(batches)
        needed = [max(len(sample.tokens) for sample in samples) for samples in batches]
        if self.together:
            needed = [max(needed)] * len(needed)
        return [min(-(-length // self.multiple) * self.multiple, self.longest) for length in needed]


class BatchLoader:
    """Gives each data-parallel rank its micro batches of any step.

    Step n takes samples n * global ... (n + 1) * global - 1 of an endless sequence of epochs. Which
    rank and which micro batch computes a sample depends on the layout; which step does, never.

    Args:
        dataset: The samples.
        padding: How long rows are.
        micro: Samples in a micro batch.
        global_: Samples in a step.
        rank: Data-parallel rank of this process.
        size: Data-parallel size.
        shuffle: Whether each epoch has an order of its own.
        seed: Of these orders.
        vocab_size: Ids at or above it are an error.
        device: Where the batches go.

    Raises:
        TrainError: The dataset is smaller than one step.
    """

    def __init__(
        self,
        dataset: Dataset,
        *,
        padding: Padding,
        micro: int,
        global_: int,
        rank: int,
        size: int,
        shuffle: bool,
        seed: int,
        vocab_size: int,
        device: torch.device,
    ) -> None:
        if len(dataset) < global_:
            raise TrainError(
                f"the data has {len(dataset)} samples, fewer than one step of {global_}",
                "give more data, or set batch.global or data.seq_length lower",
            )
        self.dataset = dataset
        self.padding = padding
        self.micro, self.global_, self.rank, self.size = micro, global_, rank, size
        self.shuffle, self.seed = shuffle, seed
        self.vocab_size = vocab_size
        self.device = device
        self._epoch = -1
        self._order = np.arange(len(dataset))

    def step(self, index: int) -> list[Batch]:
        """Returns this rank's micro batches of a step, counted from 0."""
        start = index * self.global_ + self.rank * self.micro
        stride = self.size * self.micro
        batches = [
            [self.dataset[self._sample(start + offset + i)] for i in range(self.micro)]
            for offset in range(0, self.global_, stride)
        ]
        lengths = self.padding.lengths(batches)
        return [self._collate(*pair) for pair in zip(batches, lengths, strict=True)]

    def _collate(self, samples: Sequence[Sample], length: int) -> Batch:
        tokens = _padded([sample.tokens for sample in samples], length, PAD_ID)
        if tokens.max() >= self.vocab_size:
            raise TrainError(
                f"the data holds token id {tokens.max()}, but the vocabulary ends at "
                f"{self.vocab_size - 1}",
                "tokenise with the tokenizer of this model",
            )
        segments = [sample.segment_ids for sample in samples if sample.segment_ids is not None]
        return Batch(
            tokens=self._tensor(tokens),
            labels=self._tensor(_padded([sample.labels for sample in samples], length, PAD_ID)),
            loss_mask=self._tensor(_padded([sample.loss_mask for sample in samples], length, 0)),
            segment_ids=self._tensor(_padded(segments, length, 0)) if segments else None,
        )

    def _tensor(self, rows: npt.NDArray[np.generic]) -> torch.Tensor:
        return torch.from_numpy(rows).to(self.device)

    def _sample(self, position: int) -> int:
        """Returns the number of the sample at a position of the endless sequence."""
        epoch, index = divmod(position, len(self.dataset))
        if self.shuffle and epoch != self._epoch:
            self._order = np.random.default_rng((self.seed, epoch)).permutation(len(self.dataset))
            self._epoch = epoch
        return int(self._order[index])


def _padded(
    rows: Sequence[npt.NDArray[np.generic]], length: int, value: int
) -> npt.NDArray[np.generic]:
    """Returns rows of one length, filled up on the right."""
    padded = np.full((len(rows), length), value, dtype=rows[0].dtype)
    for row, source in zip(padded, rows, strict=True):
        row[: len(source)] = source
    return padded
