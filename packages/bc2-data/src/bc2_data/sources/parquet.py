"""Parquet, one batch of rows in memory at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.parquet as pq

from bc2_data.errors import DataError
from bc2_data.file_types import foreign_content
from bc2_data.sources.base import BATCH_ROWS, Batch, BrokenRow, Row, wrong_type


class ParquetSource:
    """Reads the named columns of a .parquet file."""

    format: ClassVar[str] = "parquet"
    unit: ClassVar[str] = "row"

    def __init__(self, path: Path) -> None:
        self.path = path

    def batches(self, columns: Sequence[str]) -> Iterator[Batch]:
        """Yields all rows, with those of the columns that the file has.

        Raises:
            DataError: The file is no parquet, or is damaged.
        """
        try:
            with pq.ParquetFile(self.path) as file:
                names = file.schema_arrow.names
                present = [name for name in columns if name in names]
                # Where none is there, the rows show the columns that are.
                yield from self._read(file, present or names)
        except (pa.ArrowInvalid, OSError) as error:
            content = foreign_content(self.path)
            if content not in (None, "a parquet file"):
                raise wrong_type(self.path, self.format, str(content)) from error
            raise DataError(
                f"{self.path} is no parquet file, or is damaged: {error}", "download it anew"
            ) from error

    def _read(self, file: pq.ParquetFile, columns: list[str]) -> Iterator[Batch]:
        size = self.path.stat().st_size
        rows = file.metadata.num_rows
        done = 0
        for table in file.iter_batches(batch_size=BATCH_ROWS, columns=columns):
            batch = _to_rows(table, first=done + 1)
            batch.size = size * (done + len(batch)) // rows - size * done // rows
            done += len(batch)
            yield batch


def _to_rows(table: Any, first: int) -> Batch:
    try:
        values = table.to_pylist()
    except UnicodeDecodeError:
        return _one_by_one(table, first)
    return Batch(rows=[Row(number, row) for number, row in enumerate(values, start=first)])


def _one_by_one(table: Any, first: int) -> Batch:
    """Finds the rows whose strings are no UTF-8, which parquet does not forbid."""
    batch = Batch()
    for offset in range(len(table)):
        try:
            (row,) = table.slice(offset, 1).to_pylist()
        except UnicodeDecodeError as error:
            batch.broken.append(BrokenRow(first + offset, f"no UTF-8: {error}"))
        else:
            batch.rows.append(Row(first + offset, row))
    return batch
