"""CSV with a header (RFC 4180): commas, double quotes, newlines within quotes."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import ClassVar, NamedTuple

from bc2_data.errors import DataError
from bc2_data.sources.base import Batch, BrokenRow, Row, Source, batched, too_large
from bc2_data.sources.stream import ByteStream

_QUOTE = ord('"')
_END_OF_FIELD = re.compile(rb"[,\n]")


@dataclass(frozen=True)
class CsvSource(Source):
    """Reads a .csv file; every value is a text, an empty one where a field is empty."""

    format: ClassVar[str] = "CSV"
    unit: ClassVar[str] = "line"

    def batches(self, columns: Sequence[str]) -> Iterator[Batch]:
        """Yields all rows, each numbered by the line that it begins on; blank lines are none.

        Raises:
            DataError: The first line is no header.
        """
        del columns  # a record is parsed whole
        # The limit of the standard library's parser is one number for the whole process.
        csv.field_size_limit(max(csv.field_size_limit(), self.max_row_bytes))
        with self.file.stream(self.format) as stream:
            yield from batched(self._rows(stream), stream.position)

    def _rows(self, stream: ByteStream) -> Iterator[tuple[Row | BrokenRow, int]]:
        records = _records(stream, self.max_row_bytes)
        header, number = self._header(records)
        for record in records:
            first, number = number, number + record.lines
            if record.content is None:
                yield too_large(first, record.size, self.max_row_bytes), 0
            elif not record.ends:
                yield BrokenRow(first, "a quoted field does not end"), 0
            elif record.content.strip(b"\r\n"):
                yield _row(first, header, record.content), record.size

    def _header(self, records: Iterator[_Record]) -> tuple[list[str], int]:
        """Returns the names of the columns, and the number of the line behind them."""
        record = next(records)
        try:
            names = _values((record.content or b"").decode("utf-8-sig"))
        except (UnicodeDecodeError, csv.Error):
            names = []
        if not names or len(set(names)) < len(names) or not record.ends:
            raise DataError(
                f"{self.file}:1: the first line names no columns, or two alike",
                "a .csv file begins with a header, such as: text",
            )
        return names, 1 + record.lines


def _row(number: int, header: list[str], content: bytes) -> Row | BrokenRow:
    try:
        values = _values(content.decode("utf-8"))
    except UnicodeDecodeError as error:
        return BrokenRow(number, f"no UTF-8: {error}")
    except csv.Error as error:
        return BrokenRow(number, f"no CSV: {error}")
    if len(values) != len(header):
        return BrokenRow(number, f"{len(values)} fields, the header has {len(header)}")
    return Row(number, dict(zip(header, values, strict=True)))


def _values(record: str) -> list[str]:
    return next(csv.reader([record]), [])


class _Record(NamedTuple):
    """A stretch of CSV up to the newline that ends it.

    Attributes:
        content: Its bytes; None where there are more than the limit.
        size: Their number.
        lines: Newlines among them.
        ends: Whether it ends well: at a newline, or at the end of the file but not within quotes.
    """

    content: bytes | None
    size: int
    lines: int
    ends: bool


def _records(stream: ByteStream, limit: int) -> Iterator[_Record]:
    """Yields all records; of one beyond the limit nothing is held."""
    begun, size, lines, state = b"", 0, 0, _State.START
    while block := stream.read():
        at = 0
        while at < len(block):
            piece_start = at
            at, state, ended = _scan(block, at, state)
            size += at - piece_start
            lines += block.count(b"\n", piece_start, at)
            begun = begun + block[piece_start:at] if size <= limit else b""
            if ended:
                yield _Record(begun if size <= limit else None, size, lines, True)
                begun, size, lines = b"", 0, 0
    if size:
        whole = state is not _State.QUOTED
        yield _Record(begun if size <= limit else None, size, lines, whole)


class _State(Enum):
    """Where in a record a scan is."""

    START = auto()  # at the first byte of a field
    PLAIN = auto()  # in a field where quotes mean nothing
    QUOTED = auto()  # in a field where commas and newlines mean nothing
    QUOTE = auto()  # behind a quote in a quoted field: its end, or half of a doubled quote


def _scan(block: bytes, at: int, state: _State) -> tuple[int, _State, bool]:
    """Goes on to the end of a record.

    Returns:
        Where the scan stopped, the state there, and whether the record ends there.
    """
    while at < len(block):
        if state is _State.QUOTED:
            quote = block.find(b'"', at)
            if quote < 0:
                return len(block), state, False
            at, state = quote + 1, _State.QUOTE
        elif state is _State.PLAIN:
            end = _END_OF_FIELD.search(block, at)
            if end is None:
                return len(block), state, False
            at, state = end.end(), _State.START
            if end[0] == b"\n":
                return at, state, True
        elif block[at] == _QUOTE:
            at, state = at + 1, _State.QUOTED
        else:
            state = _State.PLAIN
    return at, state, False
