"""Writes datasets byte for byte as megatron-core's IndexedDatasetBuilder does."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from bc2_data.checksum import DigestWriter
from bc2_data.indexed.layout import COUNTS, INT32, MAGIC, VERSION

_INT32_BYTES = 4
_INDEX_CHUNK = 1 << 17


class IndexedWriter:
    """Writes int32 documents of one sequence each, as they come.

    Used as a context manager: the index is written when the block ends well. The paths are separate
    so that both can be temporary names.

    Args:
        bin_file: Receives the tokens.
        idx_file: Receives the index.

    Attributes:
        documents: Documents written so far.
        tokens: Tokens written so far.
        files: What was written, with sizes and checksums: the tokens, and, once the block has
            ended, the index.
    """

    def __init__(self, bin_file: Path, idx_file: Path) -> None:
        self.documents = 0
        self.tokens = 0
        self.files = [DigestWriter(bin_file)]
        self._idx_file = idx_file
        self._lengths: list[NDArray[np.int32]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.files[0].__exit__(kind, error, trace)
        if kind is None:
            with DigestWriter(self._idx_file) as file:
                write_index(file.write, self._lengths)
            self.files.append(file)

    def add(self, documents: Sequence[NDArray[np.int32]]) -> None:
        """Appends documents.

        Args:
            documents: The ids of each document, int32 of shape (tokens,).
        """
        if documents:
            self.add_flat(
                np.concatenate(documents),
                np.fromiter(map(len, documents), np.int32, len(documents)),
            )

    def add_flat(self, tokens: NDArray[np.int32], lengths: NDArray[np.integer]) -> None:
        """Appends documents that stand one after the other.

        Args:
            tokens: int32 (tokens,), the ids of all of them.
            lengths: (documents,) tokens in each; they add up to len(tokens).
        """
        self.files[0].write(np.ascontiguousarray(tokens, dtype="<i4").data)
        self._lengths.append(lengths.astype("<i4"))
        self.documents += len(lengths)
        self.tokens += len(tokens)


def write_index(
    write: Callable[[bytes | memoryview], object], lengths: Iterable[NDArray[np.integer]]
) -> None:
    """Writes the .idx of documents of one sequence each, which stand one after the other.

    Args:
        write: Appends to the file.
        lengths: Tokens of each document, in arrays; iterated anew for each part of the index, so
            that it need not be in memory.
    """
    count = sum(map(len, lengths))
    write(MAGIC + COUNTS.pack(VERSION, INT32, count, count + 1))
    for chunk in lengths:
        write(chunk.astype("<i4").data)
    place = 0
    for chunk in lengths:
        ends = np.cumsum(chunk, dtype="<i8") * _INT32_BYTES + place
        write((ends - chunk.astype("<i8") * _INT32_BYTES).data)
        place = int(ends[-1]) if len(ends) else place
    for first in range(0, count + 1, _INDEX_CHUNK):
        write(np.arange(first, min(first + _INDEX_CHUNK, count + 1), dtype="<i8").data)
