"""The reference engine: Google's sentencepiece library, one thread."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import cast

import numpy as np
import sentencepiece
from numpy.typing import NDArray

from bc2_data.errors import DataError


class SentencePieceEngine:
    """Encodes with the sentencepiece library itself.

    Args:
        model: A SentencePiece model file, such as Baichuan2's tokenizer.model.

    Raises:
        DataError: The file is no SentencePiece model.
    """

    name = "sentencepiece"

    def __init__(self, model: Path) -> None:
        try:
            self._processor = sentencepiece.SentencePieceProcessor(
                model_file=str(model), num_threads=1
            )
        except RuntimeError as error:
            raise DataError(
                f"{model} is no SentencePiece model ({error})",
                "download tokenizer.model anew and compare its size with the one published",
            ) from error
        self._unknown = self._processor.unk_id()
        self.vocab_size: int = self._processor.vocab_size()

    def encode(self, texts: Sequence[str]) -> list[NDArray[np.int32]]:
        """Returns the ids of each text, int32 of shape (tokens,)."""
        return cast("list[NDArray[np.int32]]", self._processor.encode_as_numpy(list(texts)))

    def decode(self, ids: Sequence[int]) -> str:
        """Returns the text of the ids, without control tokens."""
        return cast(str, self._processor.decode([int(token) for token in ids]))

    def piece_id(self, piece: str) -> int | None:
        """Returns the id of a piece, None where the vocabulary does not have it."""
        token: int = self._processor.piece_to_id(piece)
        if token == self._unknown and self._processor.id_to_piece(token) != piece:
            return None
        return token
