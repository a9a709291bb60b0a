"""Documents of token ids, one after the other in flat arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple, overload

import numpy as np
from numpy.typing import NDArray

from bc2_data.vocab import IGNORE_INDEX


class Document(NamedTuple):
    """One document.

    Attributes:
        ids: int32 (tokens,).
        labels: int32 (tokens,), unshifted, -100 where nothing is trained.
    """

    ids: NDArray[np.int32]
    labels: NDArray[np.int32]


@dataclass(frozen=True, eq=False)
class Documents(Sequence[Document]):
    """Some documents.

    Attributes:
        ids: int32 (tokens,), the documents one after the other.
        labels: int32 (tokens,), unshifted, -100 where nothing is trained; None for pretraining,
            where everything is.
        lengths: int32 (documents,), tokens in each.
    """

    ids: NDArray[np.int32]
    labels: NDArray[np.int32] | None
    lengths: NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.lengths)

    @overload
    def __getitem__(self, index: int) -> Document: ...
    @overload
    def __getitem__(self, index: slice) -> list[Document]: ...
    def __getitem__(self, index: int | slice) -> Document | list[Document]:
        if isinstance(index, slice):
            return [self[place] for place in range(len(self))[index]]
        start = self.starts[index]
        span = slice(start, start + self.lengths[index])
        ids = self.ids[span]
        return Document(ids, ids if self.labels is None else self.labels[span])

    @cached_property
    def starts(self) -> NDArray[np.int64]:
        """The place of each document's first token, int64 (documents,)."""
        starts = np.zeros(len(self.lengths), dtype=np.int64)
        np.cumsum(self.lengths[:-1], out=starts[1:])
        return starts

    def count_trained(self) -> int:
        """Returns how many predictions are trained, of documents that have tokens.

        A document's first label is never a target: nothing stands before it.
        """
        if self.labels is None:
            return len(self.ids) - len(self)
        firsts = self.labels[self.starts]
        return int(
            np.count_nonzero(self.labels != IGNORE_INDEX) - np.count_nonzero(firsts != IGNORE_INDEX)
        )

    def cut(self, lengths: NDArray[np.integer]) -> Documents:
        """Returns the first tokens of each document; those cut to nothing are left out.

        Args:
            lengths: (documents,), how many tokens to keep of each.
        """
        place = np.arange(len(self.ids)) - np.repeat(self.starts, self.lengths)
        kept = place < np.repeat(lengths, self.lengths)
        return Documents(
            ids=self.ids[kept],
            labels=None if self.labels is None else self.labels[kept],
            lengths=lengths[lengths > 0].astype(np.int32),
        )
