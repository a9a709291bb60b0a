"""The reference engine for a tokenizer.json: Hugging Face's tokenizers library, one thread."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from bc2_data.engines.base import FlatIds
from bc2_data.errors import DataError
from bc2_data.special_tokens import ASSISTANT, LITERALS, USER, SpecialIds

# Files beside tokenizer.json that name its special tokens; the first that names one decides.
_CONFIGS = ("tokenizer_config.json", "special_tokens_map.json")


class HuggingFaceEngine:
    """Encodes with the tokenizers library; no code from the directory is run.

    Args:
        file: A tokenizer.json; its special tokens are named in the files beside it.

    Raises:
        DataError: The library is missing, the file is damaged, or no EOS token is named.
    """

    name: ClassVar[str] = "tokenizers"

    def __init__(self, file: Path) -> None:
        self._tokenizer = _load(file)
        added = self._tokenizer.get_added_tokens_decoder()
        self.vocab_size: int = max(
            self._tokenizer.get_vocab_size(with_added_tokens=True), *(n + 1 for n in added), 0
        )
        named = _named_tokens(file.parent)
        eos = self.piece_id(named["eos_token"]) if "eos_token" in named else None
        if eos is None:
            raise DataError(
                f"{file.parent} names no eos_token of the vocabulary",
                f"add it to {_CONFIGS[0]}, as in a Hugging Face tokenizer directory",
            )
        self.special = SpecialIds(
            bos=self.piece_id(named.get("bos_token", "")),
            eos=eos,
            pad=self.piece_id(named.get("pad_token", "")),
            user=self.piece_id(USER),
            assistant=self.piece_id(ASSISTANT),
        )
        self.control: Mapping[int, str] = {
            number: token.content for number, token in added.items() if token.special
        }
        self.literals = _pattern(
            token.content
            for token in added.values()
            if token.special or LITERALS.fullmatch(token.content)
        )

    def encode(self, texts: Sequence[str]) -> FlatIds:
        """Returns the ids of each text."""
        encoded = self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        ids = [encoding.ids for encoding in encoded]
        lengths = np.fromiter(map(len, ids), np.int64, len(ids))
        return FlatIds(np.fromiter(chain.from_iterable(ids), np.int32, lengths.sum()), lengths)

    def decode(self, ids: Sequence[int]) -> str:
        """Returns the text of the ids, without control tokens."""
        numbers = [int(token) for token in ids]
        if numbers and not 0 <= min(numbers) <= max(numbers) < self.vocab_size:
            raise IndexError(f"an id is outside 0 to {self.vocab_size - 1}")
        return str(self._tokenizer.decode(numbers, skip_special_tokens=True))

    def piece_id(self, piece: str) -> int | None:
        """Returns the id of a piece, None where the vocabulary does not have it."""
        token: int | None = self._tokenizer.token_to_id(piece)
        return token


def _load(file: Path) -> Any:
    # Read when the library first works in parallel. Processes share the work already.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    try:
        from tokenizers import Tokenizer
    except ImportError as error:
        raise DataError(
            f"{file} needs the tokenizers library", "pip install 'bc2-data[hf]'"
        ) from error
    try:
        tokenizer = Tokenizer.from_str(file.read_text(encoding="utf-8"))
    except Exception as error:  # the library raises this very class
        raise DataError(
            f"{file} is no tokenizer.json that the tokenizers library can read ({error})",
            "download it anew, or update the library: pip install -U tokenizers",
        ) from error
    # Settings for inference that some files carry; training decides on lengths itself.
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _named_tokens(directory: Path) -> dict[str, str]:
    """Returns the special tokens by their names, such as ``eos_token``."""
    named: dict[str, str] = {}
    for path in (directory / name for name in _CONFIGS):
        if not path.is_file():
            continue
        try:
            config = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise DataError(f"{path} is no JSON: {error}", "download it anew") from error
        for name, token in config.items():
            content = token.get("content") if isinstance(token, dict) else token
            if name.endswith("_token") and isinstance(content, str):
                named.setdefault(name, content)
    return named


def _pattern(literals: Iterable[str]) -> re.Pattern[str]:
    """Returns a pattern that finds any of the literals, the longest that stands in a place."""
    longest_first = sorted(literals, key=len, reverse=True)
    return re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")
