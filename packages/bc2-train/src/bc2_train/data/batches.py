"""From samples to micro batches, in one order for every parallel layout."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from bc2_train.data.sample import Dataset
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


class BatchLoader:
    """Gives each data-parallel rank its micro batches of any step.

    Step n takes samples n * global ... (n + 1) * global - 1 of an endless sequence of epochs. Which
    rank and which micro batch computes a sample depends on the layout; which step does, never.

    Args:
        dataset: The samples.
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
        return [self._collate(start + offset) for offset in range(0, self.global_, stride)]

    def _collate(self, first: int) -> Batch:
        samples = [self.dataset[self._sample(first + i)] for i in range(self.micro)]
        tokens = np.stack([sample.tokens for sample in samples])
        if tokens.max() >= self.vocab_size:
            raise TrainError(
                f"the data holds token id {tokens.max()}, but the vocabulary ends at "
                f"{self.vocab_size - 1}",
                "tokenise with the tokenizer of this model",
            )
        segments = None
        if samples[0].segment_ids is not None:
            segments = self._tensor([sample.segment_ids for sample in samples])
        return Batch(
            tokens=torch.from_numpy(tokens).to(self.device),
            labels=self._tensor([sample.labels for sample in samples]),
            loss_mask=self._tensor([sample.loss_mask for sample in samples]),
            segment_ids=segments,
        )

    def _tensor(self, rows: list) -> torch.Tensor:  # type: ignore[type-arg]
        return torch.from_numpy(np.stack(rows)).to(self.device)

    def _sample(self, position: int) -> int:
        """Returns the number of the sample at a position of the endless sequence."""
        epoch, index = divmod(position, len(self.dataset))
        if self.shuffle and epoch != self._epoch:
            self._order = np.random.default_rng((self.seed, epoch)).permutation(len(self.dataset))
            self._epoch = epoch
        return int(self._order[index])
