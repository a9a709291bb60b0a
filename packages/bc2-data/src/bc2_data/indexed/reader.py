"""Reads datasets, whoever wrote them, and names what is wrong with them."""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from bc2_data.errors import DataError
from bc2_data.indexed.layout import (
    COUNTS,
    DTYPES,
    HEADER_SIZE,
    MAGIC,
    VERSION,
    bin_path,
    idx_path,
)


class IndexedDataset:
    """Reads a dataset through a memory map.

    Another process that it is sent to opens the files again.

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
        index = _map(self._idx)
        place = HEADER_SIZE
        self.lengths: NDArray[np.int32] = np.frombuffer(index, "<i4", sequences, place)
        place += self.lengths.nbytes
        self._pointers: NDArray[np.int64] = np.frombuffer(index, "<i8", sequences, place)
        place += self._pointers.nbytes
        self.document_indices: NDArray[np.int64] = np.frombuffer(index, "<i8", documents, place)
        self._check(documents)
        self._map = _map(self._bin) if self.num_tokens else None  # an empty file cannot be mapped
        self._tokens: NDArray[Any] = np.frombuffer(self._map or b"", self.dtype)

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

    def gather(self, numbers: NDArray[np.integer], lengths: NDArray[np.integer]) -> NDArray[Any]:
        """Returns the first tokens of some sequences, one after the other, of shape (tokens,).

        They are read from the file, not through the memory map: jumping about in a map makes it
        keep far more than was asked for.

        Args:
            numbers: (some,) sequences.
            lengths: (some,) how many tokens to take of each, at most what it has.
        """
        sizes = lengths.astype(np.int64) * self.dtype.itemsize
        ends = np.cumsum(sizes).tolist()
        gathered = np.empty(int(lengths.sum(dtype=np.int64)), self.dtype)
        buffer = gathered.view(np.uint8).data
        with open(self._bin, "rb", buffering=0) as file:
            for place, size, end in zip(
                self._pointers[numbers].tolist(), sizes.tolist(), ends, strict=True
            ):
                if os.preadv(file.fileno(), [buffer[end - size : end]], place) != size:
                    raise DataError(f"{self._bin} was cut short while it was read")
        return gathered

    def __reduce__(self) -> tuple[type[Self], tuple[Path]]:
        return type(self), (self.prefix,)

    def release(self) -> None:
        """Takes the tokens read so far out of this process's memory.

        Who reads a large dataset once calls it now and then: the pages of a memory map count as the
        process's own for as long as it keeps them.
        """
        if self._map is not None:
            self._map.madvise(mmap.MADV_DONTNEED)

    @cached_property
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
            head = file.read(HEADER_SIZE)
        if len(head) < HEADER_SIZE or not head.startswith(MAGIC):
            raise self._damaged("it does not begin like a Megatron index")
        version, code, sequences, documents = COUNTS.unpack(head[len(MAGIC) :])
        if version != VERSION or code not in DTYPES:
            raise self._damaged(f"version {version} with dtype code {code} is unknown")
        expected = HEADER_SIZE + 12 * sequences + 8 * documents
        size = os.path.getsize(self._idx)
        if size != expected:
            raise self._damaged(
                f"{sequences:,} sequences need {expected:,} bytes, the file has {size:,}"
            )
        return np.dtype(DTYPES[code]), sequences, documents

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


def spans(lengths: NDArray[np.integer], tokens: int) -> Iterator[tuple[int, int]]:
    """Yields the first and the end of consecutive sequences, to be handled together.

    Args:
        lengths: (sequences,) tokens in each sequence.
        tokens: The most that the sequences of a span hold together; a longer sequence is a span.
    """
    ends = np.cumsum(lengths, dtype=np.int64)
    first = 0
    while first < len(ends):
        before = ends[first - 1] if first else 0
        end = max(first + 1, int(np.searchsorted(ends, before + tokens, side="right")))
        yield first, end
        first = end


def _map(path: Path) -> mmap.mmap:
    with open(path, "rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def _existing(path: Path, prefix: Path) -> Path:
    if not path.is_file():
        raise DataError(
            f"{path} does not exist",
            f"give the path without .bin and .idx, as in {prefix.name}_text_document"
            if prefix.suffix not in {".bin", ".idx"}
            else f"give the path without {prefix.suffix}: {prefix.with_suffix('')}",
        )
    return path
