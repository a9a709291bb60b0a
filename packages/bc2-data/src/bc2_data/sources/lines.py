"""Files whose rows are lines, read whole or in parts."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar, Self

from bc2_data.sources.base import PART_BYTES, Batch, BrokenRow, Row, Source, batched, too_large
from bc2_data.sources.location import Location, readable
from bc2_data.sources.stream import BLOCK_BYTES, ByteStream

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class LinesSource(Source):
    """Reads a file of lines, or a part of one.

    A line belongs to the part that holds its first byte, so that the parts of a plain file follow
    from its size alone.

    Attributes:
        start: First byte of the part.
        end: The byte behind the part; None for the end of the file.
        index: Knows the number of the part's first line; None where `start` is 0.
    """

    unit: ClassVar[str] = "line"
    start: int = 0
    end: int | None = None
    index: LineIndex | None = field(default=None, compare=False, repr=False)

    @abstractmethod
    def parse(self, number: int, line: bytes) -> Row | BrokenRow | None:
        """Returns the row of a line, given without its end; None where a line is no row."""

    def check_head(self, head: bytes) -> None:
        """Looks at the first bytes of the file.

        Raises:
            DataError: The file is of another type.
        """

    def batches(self, columns: Sequence[str]) -> Iterator[Batch]:
        """Yields all rows of the part."""
        del columns  # a line is parsed whole
        # The byte before the part tells whether its first byte begins a line.
        before = min(self.start, 1)
        with self.file.stream(self.format, self.start - before) as stream:
            if self.start == 0:
                self.check_head(stream.head().removeprefix(_BYTE_ORDER_MARK))
            yield from batched(self._rows(stream), lambda: self._clamp(stream.position() - before))

    def split(self, size: int = PART_BYTES) -> Sequence[Self]:
        """Returns parts of `size` bytes, where the file is plain and can be read from anywhere."""
        if self.file.compression is not None or not self.location.is_seekable():
            return [self]
        end = self.location.size() if self.end is None else self.end
        if end is None or end - self.start <= size:
            return [self]
        index = LineIndex(self.location)
        return [
            replace(self, start=start, end=min(start + size, end), index=index)
            for start in range(self.start, end, size)
        ]

    def _rows(self, stream: ByteStream) -> Iterator[tuple[Row | BrokenRow, int]]:
        number = 0
        end = self.start - min(self.start, 1)
        for line, size in read_lines(stream, self.max_row_bytes):
            begin, end = end, end + size
            if begin < self.start:
                continue
            if self.end is not None and begin >= self.end:
                return
            number += 1
            if line is None:
                yield too_large(number, size, self.max_row_bytes), 0
                continue
            if begin == 0:
                line = line.removeprefix(_BYTE_ORDER_MARK)
            row = self.parse(number, line)
            if row is not None:
                yield row, size

    def _clamp(self, position: int) -> int:
        """Leaves out what was read of the next part."""
        return max(position, 0) if self.end is None else min(position, self.end - self.start)

    def _rows_before(self) -> int:
        return self.index.lines_before(self.start) if self.index and self.start else 0


class LineIndex:
    """Counts the lines of a file as far as somebody asks, each line once.

    Args:
        location: A plain file.
    """

    def __init__(self, location: Location) -> None:
        self._location = location
        self._known = {0: 0}  # ends of lines before a byte

    def lines_before(self, start: int) -> int:
        """Returns how many lines begin before a byte of the file.

        Args:
            start: The byte, at least 1.

        Raises:
            DataError: The file cannot be read.
        """
        # The last of them may end behind `start`; what ends before it are all the others.
        return self._ends_before(start - 1) + 1

    def _ends_before(self, byte: int) -> int:
        nearest = max(known for known in self._known if known <= byte)
        ends = self._known[nearest]
        with self._location.open() as file, readable(self._location):
            file.seek(nearest)
            left = byte - nearest
            while left and (block := file.read(min(left, BLOCK_BYTES))):
                ends += block.count(b"\n")
                left -= len(block)
        self._known[byte] = ends
        return ends


def read_lines(stream: ByteStream, limit: int) -> Iterator[tuple[bytes | None, int]]:
    """Yields the lines of a stream.

    Args:
        stream: Where the lines come from.
        limit: The most bytes that a line may have, newline included.

    Yields:
        The line without its newline, None for one beyond the limit; its bytes, newline included.
    """
    begun, lost = b"", 0  # what is held, and what is not, of a line that goes on
    while block := stream.read():
        first, *rest = block.split(b"\n")
        begun += first
        for line in rest:
            size = lost + len(begun) + 1
            yield begun if size <= limit else None, size
            begun, lost = line, 0
        if len(begun) > limit:
            begun, lost = b"", lost + len(begun)
    if size := lost + len(begun):
        yield begun if size <= limit else None, size
