"""From columns in memory to rows: what parquet and arrow have in common."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa

from bc2_data.sources.base import BATCH_BYTES, BATCH_ROWS, Batch, BrokenRow, Row, too_large


def to_batches(table: Any, first: int, limit: int) -> Iterator[Batch]:
    """Yields the rows of a record batch, a bounded number of bytes at a time.

    Args:
        table: A `pyarrow.RecordBatch` as it was read. Its buffers are not trusted: offsets may lead
            out of them, strings may be no UTF-8.
        first: Number of its first row.
        limit: The most bytes that a row may have.
    """
    for offset in range(0, table.num_rows, BATCH_ROWS):
        part = table.slice(offset, BATCH_ROWS)
        try:
            part.validate(full=True)
        except pa.ArrowInvalid:
            yield _one_by_one(part, first + offset, limit)
        else:
            yield from _bounded(_plain(part), first + offset, limit)


def present(names: Sequence[str], columns: Sequence[str]) -> list[str]:
    """Returns the columns to read: those that are asked for, or all where a file has none of them.

    A handler then names the columns that there are.
    """
    return [name for name in columns if name in names] or list(names)


def _bounded(part: Any, first: int, limit: int) -> Iterator[Batch]:
    half = part.num_rows // 2
    if half and part.nbytes > BATCH_BYTES:
        yield from _bounded(part.slice(0, half), first, limit)
        yield from _bounded(part.slice(half), first + half, limit)
    elif part.nbytes > limit:
        yield _one_by_one(part, first, limit)
    else:
        try:
            rows = part.to_pylist()
        except (ValueError, OverflowError):  # a date that Python has not
            yield _one_by_one(part, first, limit)
        else:
            yield Batch(rows=[Row(number, row) for number, row in enumerate(rows, first)])


def _one_by_one(part: Any, first: int, limit: int) -> Batch:
    """Finds the rows that cannot be read among those that can."""
    batch = Batch()
    for offset in range(part.num_rows):
        row = _row(part.slice(offset, 1), first + offset, limit)
        if isinstance(row, Row):
            batch.rows.append(row)
        else:
            batch.broken.append(row)
    return batch


def _row(part: Any, number: int, limit: int) -> Row | BrokenRow:
    try:
        part.validate(full=True)
        part = _plain(part)
        if part.nbytes > limit:
            return too_large(number, part.nbytes, limit)
        (fields,) = part.to_pylist()
    except (pa.ArrowInvalid, ValueError, OverflowError) as error:
        return BrokenRow(number, f"no readable values: {error}")
    return Row(number, fields)


def _plain(part: Any) -> Any:
    """Returns columns that hold the bytes of their own rows and no others, to be measured."""
    schema = pa.schema([field.with_type(_plain_type(field.type)) for field in part.schema])
    return part if schema.equals(part.schema) else part.cast(schema)


def _plain_type(type_: Any) -> Any:
    if pa.types.is_dictionary(type_):
        return type_.value_type
    if pa.types.is_string_view(type_):
        return pa.string()
    return pa.binary() if pa.types.is_binary_view(type_) else type_
