"""From samples, which are texts and tokens between them, to documents of ids and labels."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from bc2_data.documents import Documents
from bc2_data.handlers.base import Sample, Text, Token
from bc2_data.vocab import IGNORE_INDEX


class Assembly:
    """Takes the texts out of samples and puts their ids back in place, all samples at once.

    Args:
        samples: One a document.

    Attributes:
        texts: What is to be encoded, in order.
    """

    def __init__(self, samples: Sequence[Sample]) -> None:
        self._parts = list(chain.from_iterable(samples))
        self._parts_before = np.cumsum([0, *map(len, samples)])
        self._is_text = np.fromiter(
            (isinstance(part, Text) for part in self._parts), bool, len(self._parts)
        )
        self.texts = [part.text for part in self._parts if isinstance(part, Text)]

    def sample_of(self, text: int) -> int:
        """Returns the index of the sample that holds a text, given the text's own index."""
        part = np.flatnonzero(self._is_text)[text]
        return int(np.searchsorted(self._parts_before, part, side="right")) - 1

    def documents(
        self, ids: NDArray[np.int32], lengths: NDArray[np.integer], *, labelled: bool
    ) -> Documents:
        """Returns one document a sample.

        Args:
            ids: int32 (tokens,), the ids of all texts one after the other.
            lengths: (texts,), tokens of each text.
            labelled: Whether the documents have labels of their own.
        """
        part_lengths = np.ones(len(self._parts), dtype=np.int64)
        part_lengths[self._is_text] = lengths
        tokens_before = np.zeros(len(self._parts) + 1, dtype=np.int64)
        np.cumsum(part_lengths, out=tokens_before[1:])
        lengths_of_samples = np.diff(tokens_before[self._parts_before]).astype(np.int32)

        tokens = [part for part in self._parts if isinstance(part, Token)]
        if tokens:
            places = tokens_before[:-1][~self._is_text]
            ids = _interleave(ids, [token.id for token in tokens], places)
        if not labelled:
            return Documents(ids, None, lengths_of_samples)
        trained = [isinstance(part, Token) or part.trained for part in self._parts]
        labels = np.where(np.repeat(trained, part_lengths), ids, np.int32(IGNORE_INDEX))
        if tokens:
            labels[places] = [token.label for token in tokens]
        return Documents(ids, labels, lengths_of_samples)


def _interleave(
    ids: NDArray[np.int32], tokens: Sequence[int], places: NDArray[np.int64]
) -> NDArray[np.int32]:
    """Returns ids with single tokens put between them, at their places in the result."""
    result = np.empty(len(ids) + len(tokens), dtype=np.int32)
    from_texts = np.ones(len(result), dtype=bool)
    from_texts[places] = False
    result[from_texts] = ids
    result[places] = tokens
    return result
