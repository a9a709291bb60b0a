"""What every source yields: batches of rows, each with its place in the file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Protocol

from bc2_data.errors import DataError
from bc2_data.file_types import foreign_content

BATCH_ROWS = 512
BATCH_BYTES = 4 << 20


@dataclass(frozen=True, slots=True)
class Row:
    """One row.

    Attributes:
        number: Its line, or its place among the rows, from 1.
        fields: Its values by name.
    """

    number: int
    fields: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class BrokenRow:
    """A row that cannot be read; the rows around it can.

    Attributes:
        number: Its line, or its place among the rows, from 1.
        why: What is wrong with it.
    """

    number: int
    why: str


@dataclass(slots=True)
class Batch:
    """Some consecutive rows of one file.

    Attributes:
        rows: The readable rows, in order.
        broken: The others.
        size: Bytes of the file that the batch took.
    """

    rows: list[Row] = field(default_factory=list)
    broken: list[BrokenRow] = field(default_factory=list)
    size: int = 0

    def __len__(self) -> int:
        return len(self.rows) + len(self.broken)


class Source(Protocol):
    """One file of rows.

    Attributes:
        format: What the file holds, such as ``parquet``.
        unit: What a row's number counts: ``line`` or ``row``.
        path: The file.
    """

    format: ClassVar[str]
    unit: ClassVar[str]
    path: Path

    def batches(self, columns: Sequence[str]) -> Iterator[Batch]:
        """Yields all rows of the file in order.

        Args:
            columns: The only fields that will be looked at; rows may hold others or lack some.

        Raises:
            DataError: The file as a whole cannot be read.
        """


def place(source: Source, number: int) -> str:
    """Returns where a row stands, such as ``data.jsonl:17`` or ``data.parquet, row 17``."""
    if source.unit == "line":
        return f"{source.path}:{number}"
    return f"{source.path}, {source.unit} {number}"


def batched(rows: Iterable[tuple[Row | BrokenRow, int]]) -> Iterator[Batch]:
    """Groups rows, each given with the bytes it took, into batches of bounded size."""
    batch = Batch()
    for row, size in rows:
        if isinstance(row, Row):
            batch.rows.append(row)
        else:
            batch.broken.append(row)
        batch.size += size
        if len(batch) == BATCH_ROWS or batch.size >= BATCH_BYTES:
            yield batch
            batch = Batch()
    if len(batch):
        yield batch


def refuse_foreign(path: Path, expected: str) -> None:
    """Raises where a file's first bytes contradict its ending.

    Raises:
        DataError: Names what the file really is.
    """
    content = foreign_content(path)
    if content:
        raise wrong_type(path, expected, content)


def wrong_type(path: Path, expected: str, content: str) -> DataError:
    """Returns the error for a file that holds something else than its ending says."""
    return DataError(
        f"{path} is named {path.suffix} but holds {content}, not {expected}",
        "give the file the ending that fits it, or download it anew",
    )
