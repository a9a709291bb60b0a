"""The reference engine for a SentencePiece model: Google's library, one thread."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar, cast

import numpy as np
import sentencepiece

from bc2_data.engines.base import FlatIds
from bc2_data.errors import DataError
from bc2_data.special_tokens import ASSISTANT, LITERALS, USER, SpecialIds


class SentencePieceEngine:
    """Encodes with the sentencepiece library itself.

    Args:
        model: A SentencePiece model file, such as Baichuan2's tokenizer.model.

    Raises:
        DataError: The file is no SentencePiece model, or lacks the control tokens.
    """

    name: ClassVar[str] = "sentencepiece"
    literals: ClassVar[re.Pattern[str]] = LITERALS

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
        self.special = SpecialIds(
            bos=self._required("<s>", model),
            eos=self._required("</s>", model),
            pad=self._required("<unk>", model),
            user=self.piece_id(USER),
            assistant=self.piece_id(ASSISTANT),
        )
        self.control: Mapping[int, str] = {
            self._required(piece, model): piece for piece in ("<unk>", "<s>", "</s>")
        }

    def encode(self, texts: Sequence[str]) -> FlatIds:
        """Returns the ids of each text."""
        encoded = self._processor.encode_as_numpy(list(texts))
        lengths = np.fromiter(map(len, encoded), np.int64, len(encoded))
        return FlatIds(np.concatenate([np.empty(0, np.int32), *encoded]), lengths)

    def decode(self, ids: Sequence[int]) -> str:
        """Returns the text of the ids, without control tokens."""
        return cast(str, self._processor.decode([int(token) for token in ids]))

    def piece_id(self, piece: str) -> int | None:
        """Returns the id of a piece, None where the vocabulary does not have it."""
        token: int = self._processor.piece_to_id(piece)
        if token == self._unknown and self._processor.id_to_piece(token) != piece:
            return None
        return token

    def _required(self, piece: str, model: Path) -> int:
        token = self.piece_id(piece)
        if token is None:
            raise DataError(
                f"{model} has no piece {piece}", "use the tokenizer.model of a Baichuan2 release"
            )
        return token
