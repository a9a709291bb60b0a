"""What every source yields: batches of rows, each with its place in the file."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from bc2_data.sources.location import Location
from bc2_data.sources.stored import StoredFile

MAX_ROW_BYTES = 8 << 20
PART_BYTES = 64 << 20
BATCH_ROWS = 512
BATCH_BYTES = 4 << 20

Fault = Literal["bad_row", "too_large"]


@dataclass(frozen=True, slots=True)
class Row:
    """One row.

    Attributes:
        number: Its line, or its place among the rows, from 1; counted from the beginning of the
            part where the source is a part of a file (`Source.place` knows the file).
        fields: Its values by name.
    """

    number: int
    fields: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class BrokenRow:
    """A row that cannot be read; the rows around it can.

    Attributes:
        number: Counted as in `Row`.
        why: What is wrong with it.
        reason: The count that it adds to: ``too_large`` for a row of more than
            `Source.max_row_bytes`, which was skipped without being held in memory.
    """

    number: int
    why: str
    reason: Fault = "bad_row"


@dataclass(slots=True)
class Batch:
    """Some consecutive rows of one file.

    Attributes:
        rows: The readable rows, in order.
        broken: The others.
        size: Bytes of the file, as it is stored, that were read for the batch.
    """

    rows: list[Row] = field(default_factory=list)
    broken: list[BrokenRow] = field(default_factory=list)
    size: int = 0

    def __len__(self) -> int:
        return len(self.rows) + len(self.broken)


@dataclass(frozen=True)
class Source(ABC):
    """One file of rows, one member of an archive, or a part of one.

    A source is a small value: making it reads nothing, and it travels to other processes, each of
    which opens the file itself.

    Attributes:
        format: What the file holds, such as ``parquet``.
        unit: What a row's number counts: ``line`` or ``row``.
        file: Where the bytes are; its text is the name that errors use.
        max_row_bytes: A larger row is never held in memory; it becomes a `BrokenRow`.
    """

    format: ClassVar[str]
    unit: ClassVar[str]
    file: StoredFile
    max_row_bytes: int = MAX_ROW_BYTES

    @property
    def location(self) -> Location:
        """The file on its storage: the archive, where the rows are in one of its members.

        Several sources may share one: the members of an archive, the parts of a file.
        """
        return self.file.location

    @abstractmethod
    def batches(self, columns: Sequence[str]) -> Iterator[Batch]:
        """Yields all rows in order.

        Args:
            columns: The only fields that will be looked at; rows may hold others or lack some.

        Raises:
            DataError: The file as a whole cannot be read.
        """

    def split(self, size: int = PART_BYTES) -> Sequence[Source]:
        """Returns sources that together yield the same rows, each from about `size` bytes.

        The cut depends on nothing but the file and `size`. The default is one part: a compressed
        file, for one, can only be read from its beginning.

        Raises:
            DataError: The file cannot be read.
        """
        del size
        return [self]

    def place(self, number: int) -> str:
        """Returns where a row stands, such as ``data.jsonl:17`` or ``data.parquet, row 17``.

        Exact for parts too. For a part of a file of lines, the lines before it are counted the
        first time; the parts that one `split` returned share what they have counted. So ask for
        the rows that are shown, in order, and not for every row.

        Args:
            number: As in `Row`.
        """
        number += self._rows_before()
        return f"{self.file}:{number}" if self.unit == "line" else f"{self.file}, row {number}"

    def _rows_before(self) -> int:
        """Returns how many rows or lines of the file come before this part."""
        return 0


def too_large(number: int, size: int, limit: int) -> BrokenRow:
    """Returns what stands for a row that was skipped."""
    return BrokenRow(number, f"{size:,} bytes, --max-row-bytes is {limit:,}", "too_large")


def batched(
    rows: Iterable[tuple[Row | BrokenRow, int]], position: Callable[[], int]
) -> Iterator[Batch]:
    """Groups rows into batches of bounded size.

    Args:
        rows: Rows, each with the bytes that it takes in memory, roughly.
        position: Tells how many bytes of the stored file were read so far.
    """
    batch, held, read = Batch(), 0, 0
    for row, size in rows:
        if isinstance(row, Row):
            batch.rows.append(row)
            held += size
        else:
            batch.broken.append(row)
        if len(batch) == BATCH_ROWS or held >= BATCH_BYTES:
            batch.size = position() - read
            yield batch
            batch, held, read = Batch(), 0, read + batch.size
    if len(batch):
        batch.size = position() - read
        yield batch
