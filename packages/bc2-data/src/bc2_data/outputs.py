"""The datasets that one run writes, side by side."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

from bc2_data.datasets import ATTENTION_MASK, INPUT_IDS, LABELS, TEXT
from bc2_data.encoding import Document
from bc2_data.handlers.base import Kind
from bc2_data.indexed import IndexedWriter


class DatasetWriters:
    """Writes documents into every dataset of their kind; the same index results in each.

    Used as a context manager: the indices are written when the block ends well.

    Args:
        kind: Pretraining data has one dataset, instruction data has three.
        files: Where each dataset of `bc2_data.datasets.dataset_prefixes` goes, by key: its .bin
            and its .idx.
    """

    def __init__(self, kind: Kind, files: dict[str, tuple[Path, Path]]) -> None:
        self._kind = kind
        self._stack = ExitStack()
        with self._stack:
            self._writers = {
                key: self._stack.enter_context(IndexedWriter(*paths))
                for key, paths in files.items()
            }
            self._stack = self._stack.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.__exit__(kind, error, trace)

    def add(self, documents: Sequence[Document]) -> None:
        """Appends documents to each dataset."""
        ids = [document.ids for document in documents]
        if self._kind == "pretrain":
            self._writers[TEXT].add(ids)
            return
        self._writers[INPUT_IDS].add(ids)
        self._writers[LABELS].add([document.labels for document in documents])
        self._writers[ATTENTION_MASK].add([np.ones_like(tokens) for tokens in ids])
