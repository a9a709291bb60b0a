"""Megatron's IndexedDataset on numpy: documents of token ids in a .bin and an .idx file.

The bytes are those of ``megatron.core.datasets.indexed_dataset.IndexedDatasetBuilder``. The .bin
holds the tokens and nothing else. The .idx, little endian throughout:

| bytes | what |
| --- | --- |
| 9 | ``MMIDIDX`` and two zero bytes |
| 8 | version, 1 |
| 1 | dtype code, 4 for int32 |
| 8 | number of sequences S |
| 8 | number of document indices D |
| 4 S | int32 length of each sequence, in tokens |
| 8 S | int64 place of each sequence in the .bin, in bytes |
| 8 D | int64 first sequence of each document, and S at the end |
"""

from __future__ import annotations

import os
import struct
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from bc2_data.errors import DataError

_MAGIC = b"MMIDIDX\0\0"
_VERSION = 1
_COUNTS = struct.Struct("<QBQQ")
_HEADER_SIZE = len(_MAGIC) + _COUNTS.size
_DTYPES: dict[int, str] = {
    1: "<u1",
    2: "<i1",
    3: "<i2",
    4: "<i4",
    5: "<i8",
    6: "<f8",
    7: "<f4",
    8: "<u2",
}
_INT32 = 4


def bin_path(prefix: Path) -> Path:
    """Returns the path of a dataset's tokens."""
    return prefix.with_name(prefix.name + ".bin")


def idx_path(prefix: Path) -> Path:
    """Returns the path of a dataset's index."""
    return prefix.with_name(prefix.name + ".idx")


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
    """

    def __init__(self, bin_file: Path, idx_file: Path) -> None:
        self.documents = 0
        self.tokens = 0
        self._idx_file = idx_file
        self._lengths: list[NDArray[np.int32]] = []
        self._tokens_file = open(bin_file, "wb")  # noqa: SIM115 - closed by __exit__

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._tokens_file.close()
        if kind is None:
            self._write_index()

    def add(self, documents: Sequence[NDArray[np.int32]]) -> None:
        """Appends documents.

        Args:
            documents: The ids of each document, int32 of shape (tokens,).
        """
        if not documents:
            return
        lengths = np.fromiter(map(len, documents), dtype="<i4", count=len(documents))
        tokens = np.ascontiguousarray(np.concatenate(documents), dtype="<i4")
        self._tokens_file.write(tokens.data)
        self._lengths.append(lengths)
        self.documents += len(documents)
        self.tokens += len(tokens)

    def _write_index(self) -> None:
        lengths = np.concatenate([np.empty(0, "<i4"), *self._lengths])
        pointers = np.zeros(len(lengths), dtype="<i8")
        np.cumsum(lengths[:-1], dtype=np.int64, out=pointers[1:])
        pointers *= np.dtype("<i4").itemsize
        documents = np.arange(len(lengths) + 1, dtype="<i8")
        with open(self._idx_file, "wb") as file:
            file.write(_MAGIC + _COUNTS.pack(_VERSION, _INT32, len(lengths), len(documents)))
            for column in (lengths, pointers, documents):
                file.write(column.data)


class IndexedDataset:
    """Reads a dataset through a memory map.

    Args:
        prefix: The path of the two files without ``.bin`` and ``.idx``.

    Attributes:
        prefix: As given.
        dtype: The dtype of the tokens; int32 for everything that bc2-data writes.
        lengths: int32 (sequences,), tokens in each sequence.
        document_indices: int64 (documents + 1,), first sequence of each document and the number of
            sequences at the end.

    Raises:
        DataError: A file is missing, damaged, or does not fit the other.
    """

    def __init__(self, prefix: Path | str) -> None:
        self.prefix = Path(prefix)
        self._idx = _existing(idx_path(self.prefix), self.prefix)
        self._bin = _existing(bin_path(self.prefix), self.prefix)
        self.dtype, sequences, documents = self._read_header()
        column = np.memmap(self._idx, mode="r", dtype=np.uint8)
        start = _HEADER_SIZE
        self.lengths: NDArray[np.int32] = column[start : start + 4 * sequences].view("<i4")
        start += 4 * sequences
        self._pointers: NDArray[np.int64] = column[start : start + 8 * sequences].view("<i8")
        start += 8 * sequences
        self.document_indices: NDArray[np.int64] = column[start:].view("<i8")
        self._check(documents)
        self._tokens: NDArray[Any] = (
            np.memmap(self._bin, mode="r", dtype=self.dtype)
            if self.num_tokens
            else np.empty(0, self.dtype)  # an empty file cannot be mapped
        )

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, index: int) -> NDArray[Any]:
        """Returns the tokens of one sequence, a read-only view of shape (tokens,).

        Raises:
            IndexError: There is no such sequence.
        """
        if not -len(self) <= index < len(self):
            raise IndexError(f"{self.prefix} has {len(self)} sequences, not number {index}")
        start = int(self._pointers[index]) // self.dtype.itemsize
        return self._tokens[start : start + int(self.lengths[index])]

    @property
    def tokens(self) -> NDArray[Any]:
        """All sequences one after the other: a read-only view of shape (num_tokens,)."""
        return self._tokens

    @property
    def num_tokens(self) -> int:
        """Tokens in all sequences."""
        return int(self.lengths.sum(dtype=np.int64))

    @property
    def num_documents(self) -> int:
        """Documents; each holds one or more sequences."""
        return len(self.document_indices) - 1

    def _read_header(self) -> tuple[np.dtype[Any], int, int]:
        """Returns the dtype and the numbers of sequences and document indices."""
        with open(self._idx, "rb") as file:
            head = file.read(_HEADER_SIZE)
        if len(head) < _HEADER_SIZE or not head.startswith(_MAGIC):
            raise self._damaged("it does not begin like a Megatron index")
        version, code, sequences, documents = _COUNTS.unpack(head[len(_MAGIC) :])
        if version != _VERSION or code not in _DTYPES:
            raise self._damaged(f"version {version} with dtype code {code} is unknown")
        expected = _HEADER_SIZE + 12 * sequences + 8 * documents
        size = os.path.getsize(self._idx)
        if size != expected:
            raise self._damaged(
                f"{sequences:,} sequences need {expected:,} bytes, the file has {size:,}"
            )
        return np.dtype(_DTYPES[code]), sequences, documents

    def _check(self, documents: int) -> None:
        if documents < 1 or self.document_indices[0] != 0:
            raise self._damaged("the first document does not begin at sequence 0")
        if self.document_indices[-1] != len(self) or (np.diff(self.document_indices) < 0).any():
            raise self._damaged("the documents do not cover the sequences in order")
        ends = np.cumsum(self.lengths, dtype=np.int64) * self.dtype.itemsize
        if (self.lengths < 0).any() or (self._pointers != ends - self._bytes_of_each()).any():
            raise self._damaged("the sequences do not follow one another")
        size = os.path.getsize(self._bin)
        if size != self.num_tokens * self.dtype.itemsize:
            raise DataError(
                f"{self._bin} has {size:,} bytes, its index wants "
                f"{self.num_tokens * self.dtype.itemsize:,}",
                "copy both files again, or tokenise again with --overwrite",
            )

    def _bytes_of_each(self) -> NDArray[np.int64]:
        return self.lengths.astype(np.int64) * self.dtype.itemsize

    def _damaged(self, why: str) -> DataError:
        return DataError(
            f"{self._idx} is damaged: {why}",
            "copy the file again, or tokenise again with --overwrite",
        )


def _existing(path: Path, prefix: Path) -> Path:
    if not path.is_file():
        raise DataError(
            f"{path} does not exist",
            f"give the path without .bin and .idx, as in {prefix.name}_text_document"
            if prefix.suffix not in {".bin", ".idx"}
            else f"give the path without {prefix.suffix}: {prefix.with_suffix('')}",
        )
    return path
