"""Baichuan2's tokenizer: text in, int32 ids out, special tokens in the text under control."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bc2_data.checksum import sha256
from bc2_data.engines import Engine
from bc2_data.errors import DataError
from bc2_data.file_types import foreign_content
from bc2_data.special_tokens import Policy, SpecialTokenGuard

MODEL_NAME = "tokenizer.model"


@dataclass(frozen=True, kw_only=True)
class SpecialIds:
    """The ids that a layout puts between texts.

    Attributes:
        bos: ``<s>``; Baichuan2 never adds it by itself.
        eos: ``</s>``, the end of a document or of an answer.
        pad: ``<unk>``, which Baichuan2 pads with.
        user: ``<reserved_106>``, which opens a user's turn; None where the vocabulary lacks it.
        assistant: ``<reserved_107>``, which opens an answer; None where the vocabulary lacks it.
    """

    bos: int
    eos: int
    pad: int
    user: int | None
    assistant: int | None


class Tokenizer:
    """One tokenizer.model with an engine and a policy for special tokens in the text.

    Args:
        model: The model file.
        engine: Encodes text as SentencePiece would.
        special_tokens: What to do with special tokens that stand literally in a text.

    Attributes:
        path: The model file.
        sha256: Its SHA-256, 64 hexadecimal digits.
        engine: Name of the engine.
        vocab_size: Number of pieces.
        special: The ids that a layout puts between texts.
        policy: What happens to literal special tokens.
    """

    def __init__(self, model: Path, engine: Engine, special_tokens: Policy) -> None:
        self.path = model
        self.sha256 = sha256(model)
        self.engine = engine.name
        self.vocab_size = engine.vocab_size
        self.special = SpecialIds(
            bos=self._required(engine, "<s>"),
            eos=self._required(engine, "</s>"),
            pad=self._required(engine, "<unk>"),
            user=engine.piece_id("<reserved_106>"),
            assistant=engine.piece_id("<reserved_107>"),
        )
        self.policy = special_tokens
        self._engine = engine
        self._guard = SpecialTokenGuard(
            special_tokens, lambda piece: engine.piece_id(piece) is not None
        )

    @property
    def special_literals(self) -> Mapping[str, int]:
        """How often each special token stood literally in the texts encoded so far."""
        return self._guard.found

    def encode(self, texts: Sequence[str]) -> list[NDArray[np.int32]]:
        """Returns the ids of each text, int32 of shape (tokens,); no BOS, no EOS.

        Raises:
            SpecialTokenError: A text holds a special token literally and the policy is ``error``;
                its ``index`` says which text.
        """
        parts = [self._guard.split(text, index) for index, text in enumerate(texts)]
        encoded = iter(self._engine.encode([part for text in parts for part in text]))
        return [
            next(encoded) if len(text) == 1 else np.concatenate([next(encoded) for _ in text])
            for text in parts
        ]

    def decode(self, ids: Sequence[int] | NDArray[np.integer]) -> str:
        """Returns the text of the ids, without control tokens such as ``</s>``.

        Raises:
            DataError: An id is outside the vocabulary.
        """
        numbers = [int(token) for token in ids]
        try:
            return self._engine.decode(numbers)
        except IndexError as error:
            raise DataError(
                f"id {max(numbers)} is outside the {self.vocab_size:,} pieces of {self.path}",
                "use the tokenizer that the data was made with; its SHA-256 is in the manifest",
            ) from error

    def _required(self, engine: Engine, piece: str) -> int:
        token = engine.piece_id(piece)
        if token is None:
            raise DataError(
                f"{self.path} has no piece {piece}", f"use the {MODEL_NAME} of a Baichuan2 release"
            )
        return token


def load_tokenizer(path: Path | str, special_tokens: Policy = "escape") -> Tokenizer:
    """Loads a tokenizer.

    Args:
        path: A directory with tokenizer.model, such as a Baichuan2 release, or the file itself.
        special_tokens: What to do with special tokens that stand literally in a text.

    Raises:
        DataError: There is no model file, or it is damaged.
    """
    from bc2_data.engines.sentencepiece import SentencePieceEngine

    model = _model_file(Path(path))
    return Tokenizer(model, SentencePieceEngine(model), special_tokens)


def _model_file(path: Path) -> Path:
    model = path / MODEL_NAME if path.is_dir() else path
    if not model.is_file():
        raise DataError(
            f"no tokenizer at {model}",
            f"give a directory that holds {MODEL_NAME}, or the file itself",
        )
    content = foreign_content(model)
    if content:
        raise DataError(
            f"{model} is {content}, not a SentencePiece model",
            "download the file itself: the address has /resolve/ in it, not /blob/",
        )
    return model
