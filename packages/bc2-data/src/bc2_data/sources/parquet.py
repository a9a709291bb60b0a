"""Parquet, whole or by row groups."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Any, ClassVar, Self

import pyarrow as pa
import pyarrow.parquet as pq

from bc2_data.errors import DataError
from bc2_data.sources.base import BATCH_BYTES, BATCH_ROWS, PART_BYTES, Batch, Source
from bc2_data.sources.columnar import present, to_batches

# By default pyarrow reads the columns of a row group, often all of the file, before the first row.
_READING = {"pre_buffer": False, "buffer_size": 1 << 20}


@dataclass(frozen=True)
class ParquetSource(Source):
    """Reads the named columns of a .parquet file, or of some of its row groups.

    In memory are the pages of one batch of rows. A page is decoded whole, so a row of more than
    `max_row_bytes` is seen before it is dropped.

    Attributes:
        groups: First row group and the one behind the last; None for all.
        first_row: Rows of the file before them.
    """

    format: ClassVar[str] = "parquet"
    unit: ClassVar[str] = "row"
    groups: tuple[int, int] | None = None
    first_row: int = 0

    def batches(self, columns: Sequence[str]) -> Iterator[Batch]:
        """Yields all rows, with those of the columns that the file has.

        Raises:
            DataError: The file is no parquet, or is damaged.
        """
        with self._open() as (file, size):
            indices = range(*self.groups) if self.groups else range(file.num_row_groups)
            groups = [file.metadata.row_group(index) for index in indices]
            tables = file.iter_batches(
                batch_size=_batch_rows(groups),
                row_groups=list(indices),
                columns=present(file.schema_arrow.names, columns),
                use_threads=False,  # the processes of a run are its parallelism
            )
            total = max(file.metadata.num_rows, 1)
            rows, read = 0, size * self.first_row // total
            for table in tables:
                for batch in to_batches(table, rows + 1, self.max_row_bytes):
                    rows += len(batch)
                    position = size * (self.first_row + rows) // total
                    batch.size, read = position - read, position
                    yield batch
            announced = sum(group.num_rows for group in groups)
            if rows != announced:
                raise OSError(f"it holds {rows:,} rows where it announces {announced:,}")

    def split(self, size: int = PART_BYTES) -> Sequence[Self]:
        """Returns parts of whole row groups that decompress to about `size` bytes each.

        A file that is compressed as a whole stays whole: every part would have to decompress it.
        """
        if self.file.compression is not None or self.groups is not None:
            return [self]
        with self._open() as (file, _):
            groups = [file.metadata.row_group(index) for index in range(file.num_row_groups)]
        first_rows = [0, *accumulate(group.num_rows for group in groups)]
        return [
            replace(self, groups=(begin, end), first_row=first_rows[begin])
            for begin, end in _runs([group.total_byte_size for group in groups], size)
        ] or [self]

    @contextmanager
    def _open(self) -> Iterator[tuple[Any, int]]:
        """Yields the `pyarrow.parquet.ParquetFile` and how many bytes are stored of it."""
        with self.file.random_access(self.format) as (raw, size):
            try:
                with pq.ParquetFile(raw, **_READING) as file:
                    yield file, size
            except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
                raise DataError(
                    f"{self.file} is no parquet file, or is damaged: {error}", "download it anew"
                ) from error

    def _rows_before(self) -> int:
        return self.first_row


def _batch_rows(groups: Sequence[Any]) -> int:
    """Returns how many rows to decode at once: fewer where rows are large."""
    rows: int = sum(group.num_rows for group in groups)
    size: int = sum(group.total_byte_size for group in groups)
    return max(1, min(BATCH_ROWS, BATCH_BYTES * rows // max(size, 1)))


def _runs(sizes: Sequence[int], target: int) -> Iterator[tuple[int, int]]:
    """Yields begin and end of neighbours that have the target size together, or little more."""
    begin, held = 0, 0
    for index, size in enumerate(sizes):
        held += size
        if held >= target or index + 1 == len(sizes):
            yield begin, index + 1
            begin, held = index + 1, 0
