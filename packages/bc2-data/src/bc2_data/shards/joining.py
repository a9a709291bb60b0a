"""Puts finished shards together, in order, while later ones are still being encoded.

A joined shard's own files are removed, so a job takes the disk space of its outputs and little
more. They are removed only when all of its bytes are in the joined files, so whenever a run is cut
short, a finished shard's bytes are whole in one place or the other; checksums tell in which.
"""

from __future__ import annotations

import hashlib
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

from bc2_data.shards.columns import ColumnCheck, column_path
from bc2_data.shards.report import ShardReport, report_path

_CHUNK = 1 << 20


class JoinedColumn:
    """One column of all shards joined so far.

    Args:
        path: The file; what it holds already counts only as far as `take_over` says so.

    Attributes:
        path: As given.
        size: Bytes.
    """

    def __init__(self, path: Path) -> None:
        path.touch()
        self.path = path
        self.size = 0
        self._digest = hashlib.sha256()

    @property
    def sha256(self) -> str:
        """SHA-256 of all bytes, 64 hexadecimal digits."""
        return self._digest.hexdigest()

    def holds_next(self, check: ColumnCheck) -> bool:
        """Tells whether the file goes on with a whole column of one more shard."""
        with open(self.path, "rb") as file:
            file.seek(self.size)
            return _is_whole(file, check)

    def take_over(self, check: ColumnCheck) -> None:
        """Counts the column that `holds_next` found."""
        with open(self.path, "rb") as file:
            file.seek(self.size)
            for chunk in _chunks(file, check.size):
                self._digest.update(chunk)
        self.size += check.size

    def append(self, source: Path) -> None:
        """Appends the column of one shard, in place of whatever stands beyond `size`."""
        with open(source, "rb") as read, open(self.path, "r+b") as write:
            write.seek(self.size)
            write.truncate()
            while chunk := read.read(_CHUNK):
                write.write(chunk)
                self._digest.update(chunk)
                self.size += len(chunk)


class Joiner:
    """Joins the shards of one job.

    Args:
        folder: Where the shards' files are.
        joined: Where each column of all shards goes.
        shards: Indices of all shards of the job, in order.
        on_joined: Is called with each shard's report, in order, when the shard was joined.

    Attributes:
        columns: The joined columns by name; whole when every shard was added.
    """

    def __init__(
        self,
        folder: Path,
        joined: Mapping[str, Path],
        shards: Sequence[int],
        on_joined: Callable[[ShardReport], object],
    ) -> None:
        self.columns = {name: JoinedColumn(path) for name, path in joined.items()}
        self._folder = folder
        self._next = deque(shards)
        self._waiting: dict[int, ShardReport] = {}
        self._on_joined = on_joined

    def resume(self, reports: Iterable[ShardReport]) -> list[ShardReport]:
        """Takes up what an interrupted run left, and returns the reports of its whole shards.

        Shards whose bytes are damaged lose their reports, and count as not finished.

        Args:
            reports: Of the shards that were marked as finished.
        """
        left = {report.index: report for report in reports}
        whole = []
        while self._next and (report := left.get(self._next[0])):
            if not self._is_joined(report):
                break
            for name, check in report.columns.items():
                self.columns[name].take_over(check)
                self._path(report, name).unlink(missing_ok=True)
            self._on_joined(report)
            whole.append(left.pop(self._next.popleft()))
        for report in left.values():
            if self._is_in_files(report):
                self.add(report)
                whole.append(report)
            else:
                report_path(self._folder, report.index).unlink()
        return whole

    def add(self, report: ShardReport) -> None:
        """Takes one more finished shard, and joins those that are next in order."""
        self._waiting[report.index] = report
        while self._next and (following := self._waiting.pop(self._next[0], None)):
            for name, column in self.columns.items():
                column.append(self._path(following, name))
            for name in self.columns:
                self._path(following, name).unlink()
            self._on_joined(following)
            self._next.popleft()

    def _is_joined(self, report: ShardReport) -> bool:
        return all(self.columns[name].holds_next(check) for name, check in report.columns.items())

    def _is_in_files(self, report: ShardReport) -> bool:
        for name, check in report.columns.items():
            path = self._path(report, name)
            if not path.is_file() or path.stat().st_size != check.size:
                return False
            with open(path, "rb") as file:
                if not _is_whole(file, check):
                    return False
        return True

    def _path(self, report: ShardReport, column: str) -> Path:
        return column_path(self._folder, report.index, column)


def _is_whole(file: BinaryIO, check: ColumnCheck) -> bool:
    """Tells whether a column is what a file goes on with."""
    size = crc32 = 0
    for chunk in _chunks(file, check.size):
        size += len(chunk)
        crc32 = zlib.crc32(chunk, crc32)
    return (size, crc32) == (check.size, check.crc32)


def _chunks(file: BinaryIO, size: int) -> Iterator[bytes]:
    """Yields the next bytes of a file, in pieces; fewer than `size` where the file ends."""
    while size and (chunk := file.read(min(size, _CHUNK))):
        yield chunk
        size -= len(chunk)
