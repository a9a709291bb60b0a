"""What turns text into ids, and what knows the vocabulary."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from bc2_data.special_tokens import SpecialIds


class FlatIds(NamedTuple):
    """The ids of several texts, one text after the other.

    Attributes:
        ids: int32 (tokens,).
        lengths: int64 (texts,), tokens of each text.
    """

    ids: NDArray[np.int32]
    lengths: NDArray[np.int64]


class Encoder(Protocol):
    """Turns text into ids."""

    @property
    def name(self) -> str:
        """The engine's name, for the manifest."""

    def encode(self, texts: Sequence[str]) -> FlatIds:
        """Returns the ids of each text, without BOS and EOS.

        Raises:
            TextError: A text cannot be encoded reliably; its ``index`` says which.
        """


class Engine(Encoder, Protocol):
    """An encoder that knows its vocabulary: the reference for one kind of tokenizer file."""

    @property
    def vocab_size(self) -> int:
        """Ids run from 0 to vocab_size - 1."""

    @property
    def special(self) -> SpecialIds:
        """The ids that a layout puts between texts."""

    @property
    def control(self) -> Mapping[int, str]:
        """The ids that `decode` leaves out, with their names."""

    @property
    def literals(self) -> re.Pattern[str]:
        """Finds what may be a special token where it stands literally in a text."""

    def decode(self, ids: Sequence[int]) -> str:
        """Returns the text of the ids, without control tokens.

        Raises:
            IndexError: An id is outside the vocabulary.
        """

    def piece_id(self, piece: str) -> int | None:
        """Returns the id of a piece, None where the vocabulary does not have it."""
