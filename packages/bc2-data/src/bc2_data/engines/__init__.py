"""What turns text into ids: one protocol, one module an engine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


class Engine(Protocol):
    """Encodes text as SentencePiece would encode it whole."""

    @property
    def name(self) -> str:
        """The engine's name, for the manifest."""

    @property
    def vocab_size(self) -> int:
        """Number of pieces; ids run from 0 to vocab_size - 1."""

    def encode(self, texts: Sequence[str]) -> list[NDArray[np.int32]]:
        """Returns the ids of each text, int32 of shape (tokens,)."""

    def decode(self, ids: Sequence[int]) -> str:
        """Returns the text of the ids, without control tokens.

        Raises:
            IndexError: An id is outside the vocabulary.
        """

    def piece_id(self, piece: str) -> int | None:
        """Returns the id of a piece, None where the vocabulary does not have it."""
