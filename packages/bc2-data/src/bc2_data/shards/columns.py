"""The files of one shard: a column of lengths, one of ids and, of instruction data, one of labels.

A column is raw little-endian int32 and nothing else, so that shards are joined by joining bytes.
"""

from __future__ import annotations

import os
import secrets
import zlib
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

import numpy as np
from numpy.typing import NDArray

from bc2_data.documents import Documents
from bc2_data.handlers.base import Kind

LENGTHS = "lengths"
IDS = "ids"
LABELS = "labels"

_PARTIAL_ENDING = ".partial"


def columns_of(kind: Kind) -> tuple[str, ...]:
    """Returns the names of a shard's columns."""
    return (LENGTHS, IDS, LABELS) if kind == "instruction" else (LENGTHS, IDS)


def column_path(folder: Path, shard: int, column: str) -> Path:
    """Returns where a finished column of a shard stands."""
    return folder / f"shard-{shard:06}.{column}"


def attempt_at(path: Path) -> Path:
    """Returns a name for a file under way to `path` that no other process uses."""
    return path.with_name(f"{path.name}.{secrets.token_hex(4)}{_PARTIAL_ENDING}")


def abandoned(folder: Path) -> Iterator[Path]:
    """Yields the files of attempts that were not finished."""
    return folder.glob(f"*{_PARTIAL_ENDING}")


@dataclass(frozen=True)
class ColumnCheck:
    """What a column must be to be whole.

    Attributes:
        size: Bytes.
        crc32: Of its bytes.
    """

    size: int
    crc32: int


class ShardWriter:
    """Writes the columns of one shard.

    Used as a context manager. The columns get their names when `finish` is called; until then they
    stand under names that no other process uses, and leaving the block without it removes them.

    Args:
        folder: Where they go.
        shard: The shard's index.
        kind: Says which columns there are.
    """

    def __init__(self, folder: Path, shard: int, kind: Kind) -> None:
        self._columns = {
            name: _Column(column_path(folder, shard, name)) for name in columns_of(kind)
        }

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            for column in self._columns.values():
                stack.enter_context(column)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.__exit__(kind, error, trace)

    def add(self, documents: Documents) -> None:
        """Appends documents."""
        values = {LENGTHS: documents.lengths, IDS: documents.ids, LABELS: documents.labels}
        for name, column in self._columns.items():
            array = values[name]
            assert array is not None, "instruction data has labels"
            column.write(array)

    def finish(self) -> dict[str, ColumnCheck]:
        """Gives the columns their names and returns what they hold."""
        return {name: column.finish() for name, column in self._columns.items()}


class _Column:
    def __init__(self, path: Path) -> None:
        self._path = path
        self._partial = attempt_at(path)
        self._size = 0
        self._crc32 = 0

    def __enter__(self) -> Self:
        self._file: BinaryIO = open(self._partial, "wb")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self._file.close()
        finally:
            self._partial.unlink(missing_ok=True)

    def write(self, array: NDArray[np.int32]) -> None:
        data = np.ascontiguousarray(array, dtype="<i4").data
        self._file.write(data)
        self._size += data.nbytes
        self._crc32 = zlib.crc32(data, self._crc32)

    def finish(self) -> ColumnCheck:
        self._file.close()  # raises where the disk is full
        os.replace(self._partial, self._path)
        return ColumnCheck(self._size, self._crc32)
