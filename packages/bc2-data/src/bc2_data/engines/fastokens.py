"""The fast engine: the fastokens library, which reads tokenizer.json.

The file is made of the SentencePiece model once, and kept in the user's cache directory under the
model's SHA-256.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from bc2_data.engines.base import FlatIds
from bc2_data.engines.cache import cache_file, store
from bc2_data.engines.tokenizer_json import FORMAT, SPACE, NoEquivalentError, tokenizer_json
from bc2_data.errors import DataError


class FastokensEncoder:
    """Encodes as sentencepiece would, on one thread.

    Loading takes half a second for Baichuan2's model, so it waits for the first text.

    Args:
        model: A SentencePiece model file.
        sha256: Its SHA-256.

    Raises:
        NoEquivalentError: fastokens is not installed, or cannot stand in for this model.
    """

    name: ClassVar[str] = "fastokens"

    def __init__(self, model: Path, sha256: str) -> None:
        if find_spec("fastokens") is None:
            raise NoEquivalentError("fastokens is not installed (pip install 'bc2-data[fast]')")
        self._model = model
        self._cached = cache_file(f"tokenizers/{sha256}-{FORMAT}.json")
        self._made = None if self._cached.is_file() else self._make()

    def encode(self, texts: Sequence[str]) -> FlatIds:
        """Returns the ids of each text."""
        spelled = [text.replace(SPACE, " ") for text in texts]
        ids, offsets = self._tokenizer.encode_batch_flat(spelled)
        ends = np.frombuffer(offsets, dtype="<i8")
        return FlatIds(np.frombuffer(ids, dtype="<i4"), ends[1:] - ends[:-1])

    @cached_property
    def _tokenizer(self) -> Any:
        from fastokens import Tokenizer

        # Read by the library once. Processes share the work, and the threads of each would get
        # into the way of the others.
        os.environ.setdefault("FASTOKENS_BPE_THREADS", "1")
        try:
            made, self._made = self._made, None
            return Tokenizer.from_json_str(made or self._cached.read_text(encoding="utf-8"))
        except (OSError, ValueError):  # deleted meanwhile, or damaged
            pass
        try:
            return Tokenizer.from_json_str(self._make())
        except ValueError as error:
            raise DataError(
                f"this version of fastokens cannot load {self._model} ({error})",
                "pip install 'bc2-data[fast]', or choose --engine sentencepiece",
            ) from error

    def _make(self) -> str:
        made = tokenizer_json(self._model)
        store(self._cached, made)
        return made
