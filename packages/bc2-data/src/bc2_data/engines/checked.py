"""Proof, on the user's own text, that a fast engine does what the reference does."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise, takewhile

import numpy as np

from bc2_data.engines.base import Encoder, FlatIds
from bc2_data.errors import TextError

SAMPLE_CHARACTERS = 1 << 16
_CHARACTERS_A_TEXT = 1 << 10
_SHOWN_IDS = 5


class EngineDiffersError(TextError):
    """A fast engine gives other ids than the reference."""


class CheckedEncoder:
    """Compares an encoder with its reference on the first texts, and refuses to go on if it errs.

    Args:
        encoder: The encoder in doubt.
        reference: What it must agree with.
        characters: How much text is compared, by and by; no more than the first 1,024 characters
            of a text, so that the sample is of many texts.
    """

    def __init__(
        self, encoder: Encoder, reference: Encoder, characters: int = SAMPLE_CHARACTERS
    ) -> None:
        self.name = encoder.name
        self._encoder = encoder
        self._reference = reference
        self._left = characters

    def encode(self, texts: Sequence[str]) -> FlatIds:
        """Returns the ids of each text.

        Raises:
            EngineDiffersError: A text of the sample is encoded wrongly.
        """
        if self._left > 0:
            self._check(self._sample(texts))
        return self._encoder.encode(texts)

    def _sample(self, texts: Sequence[str]) -> list[str]:
        sample: list[str] = []
        for text in texts:
            if self._left <= 0:
                break
            sample.append(text[: min(_CHARACTERS_A_TEXT, self._left)])
            self._left -= len(sample[-1])
        return sample

    def _check(self, sample: list[str]) -> None:
        actual = self._encoder.encode(sample)
        expected = self._reference.encode(sample)
        for index, (ids, right) in enumerate(zip(_each(actual), _each(expected), strict=True)):
            if ids != right:
                raise self._differs(index, ids, right)

    def _differs(self, index: int, ids: list[int], right: list[int]) -> EngineDiffersError:
        pairs = zip(ids, right, strict=False)
        same = len(list(takewhile(lambda pair: pair[0] == pair[1], pairs)))
        shown = slice(same, same + _SHOWN_IDS)
        return EngineDiffersError(
            f"{self.name} differs from {self._reference.name} from token {same} of the text on: "
            f"{ids[shown]} instead of {right[shown]}",
            f"choose --engine {self._reference.name}, and report the text",
            index,
        )


def _each(flat: FlatIds) -> list[list[int]]:
    ends = np.cumsum(flat.lengths).tolist()
    return [flat.ids[start:end].tolist() for start, end in pairwise([0, *ends])]
