"""A tokenizer file: text in, int32 ids out, special tokens in the text under control."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from itertools import accumulate, chain, pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bc2_data.checksum import sha256
from bc2_data.engines import EngineChoice, open_encoder, open_engine
from bc2_data.engines.base import FlatIds
from bc2_data.errors import DataError, TextError
from bc2_data.file_types import foreign_content
from bc2_data.special_tokens import Policy, SpecialTokenGuard

MODEL_NAME = "tokenizer.model"
JSON_NAME = "tokenizer.json"


class Tokenizer:
    """One tokenizer file with an engine and a policy for special tokens in the text.

    Args:
        file: A SentencePiece model, or a tokenizer.json of Hugging Face.
        special_tokens: What to do with special tokens that stand literally in a text.
        engine: What encodes.

    Attributes:
        path: The file.
        sha256: Its SHA-256, 64 hexadecimal digits.
        engine: Name of the engine that encodes.
        vocab_size: Number of pieces.
        special: The ids that a layout puts between texts.
        control: The ids that `decode` leaves out, with their names.
        policy: What happens to literal special tokens.

    Raises:
        DataError: The file is damaged, or the engine asked for cannot encode with it.
    """

    def __init__(
        self, file: Path, special_tokens: Policy = "escape", engine: EngineChoice = "auto"
    ) -> None:
        self._reference = open_engine(file)
        self.path = file
        self.sha256 = sha256(file)
        self._encoder = open_encoder(file, self.sha256, self._reference, engine)
        self.engine = self._encoder.name
        self.vocab_size = self._reference.vocab_size
        self.special = self._reference.special
        self.control = self._reference.control
        self.policy = special_tokens
        self._guard = SpecialTokenGuard(
            special_tokens,
            self._reference.literals,
            lambda piece: self._reference.piece_id(piece) is not None,
        )

    @property
    def special_literals(self) -> Mapping[str, int]:
        """How often each special token stood literally in the texts encoded so far."""
        return self._guard.found

    def encode(self, texts: Sequence[str]) -> list[NDArray[np.int32]]:
        """Returns the ids of each text, int32 of shape (tokens,); no BOS, no EOS.

        Raises:
            TextError: As `encode_flat` does.
        """
        ids, lengths = self.encode_flat(texts)
        ends = np.cumsum(lengths).tolist()
        return [ids[start:end] for start, end in pairwise([0, *ends])]

    def encode_flat(self, texts: Sequence[str]) -> FlatIds:
        """Returns the ids of all texts in one array; no BOS, no EOS.

        Raises:
            TextError: A text holds a special token literally and the policy is ``error``, or the
                fast engine differs from the reference; the error's ``index`` says which text.
        """
        parts = [self._guard.split(text, index) for index, text in enumerate(texts)]
        ends = list(accumulate(map(len, parts)))
        try:
            encoded = self._encoder.encode(list(chain.from_iterable(parts)))
        except TextError as error:
            error.index = bisect_right(ends, error.index)
            raise
        if len(encoded.lengths) == len(texts):
            return encoded
        ends_of_parts = np.cumsum(encoded.lengths)
        return FlatIds(encoded.ids, np.diff(ends_of_parts[np.array(ends) - 1], prepend=0))

    def decode(self, ids: Sequence[int] | NDArray[np.integer]) -> str:
        """Returns the text of the ids, without control tokens such as ``</s>``.

        Raises:
            DataError: An id is outside the vocabulary.
        """
        numbers = [int(token) for token in ids]
        try:
            return self._reference.decode(numbers)
        except IndexError as error:
            raise DataError(
                f"id {max(numbers)} is outside the {self.vocab_size:,} pieces of {self.path}",
                "use the tokenizer that the data was made with; its SHA-256 is in the manifest",
            ) from error


def load_tokenizer(
    path: Path | str, special_tokens: Policy = "escape", engine: EngineChoice = "auto"
) -> Tokenizer:
    """Loads a tokenizer.

    Args:
        path: A directory with tokenizer.model, such as a Baichuan2 release, or else with
            tokenizer.json; or the file itself.
        special_tokens: What to do with special tokens that stand literally in a text.
        engine: What encodes; all engines give the same ids.

    Raises:
        DataError: There is no tokenizer file, it is damaged, or the engine cannot encode with it.
    """
    return Tokenizer(_file(Path(path)), special_tokens, engine)


def _file(path: Path) -> Path:
    candidates = [path / MODEL_NAME, path / JSON_NAME] if path.is_dir() else [path]
    file = next((candidate for candidate in candidates if candidate.is_file()), candidates[0])
    if not file.is_file():
        raise DataError(
            f"no tokenizer at {file}",
            f"give a directory that holds {MODEL_NAME} or {JSON_NAME}, or the file itself",
        )
    content = foreign_content(file)
    if content:
        raise DataError(
            f"{file} is {content}, not a tokenizer",
            "download the file itself: the address has /resolve/ in it, not /blob/",
        )
    return file
