"""A file of rows as it is stored: plain, compressed, or a member of an archive."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, BinaryIO, Literal

from bc2_data.errors import DataError
from bc2_data.file_types import HEAD_BYTES, content_of
from bc2_data.sources.archive import open_member
from bc2_data.sources.location import Location
from bc2_data.sources.stream import ByteStream, Readable

Compression = Literal["gzip", "zstd", "zip"]


@dataclass(frozen=True, slots=True)
class StoredFile:
    """Where the bytes of rows are, and how to get at them.

    Its text names the file in messages: ``archive.zip/member.jsonl`` for a member.

    Attributes:
        location: The file on its storage.
        compression: How it is compressed; None for a plain file.
        member: The member that is meant, where the file is a zip archive.
    """

    location: Location
    compression: Compression | None = None
    member: str | None = None

    def __str__(self) -> str:
        return str(self.location) if self.member is None else f"{self.location}/{self.member}"

    @contextmanager
    def stream(self, expected: str, start: int = 0) -> Iterator[ByteStream]:
        """Opens the file to be read once, from front to back, in constant memory.

        Args:
            expected: What the file should hold, for errors, such as ``JSON Lines``.
            start: Where in a plain file to begin, in bytes.

        Raises:
            DataError: The file cannot be opened, is empty, or begins like one of another type.
        """
        sequential = start == 0 and self.compression != "zip"
        with (
            self.location.open(sequential=sequential) as raw,
            self._decoded(raw, start) as (content, begin),
        ):
            stream = ByteStream(str(self), content, lambda: raw.tell() - begin, self.compression)
            if start == 0:
                self._check(stream.head(), expected)
            yield stream

    @contextmanager
    def random_access(self, expected: str) -> Iterator[tuple[IO[bytes], int]]:
        """Opens the file to be read at any position.

        A compressed file is decompressed into a temporary file without a name, which takes room in
        the temporary folder (TMPDIR) and none in memory.

        Args:
            expected: As for `stream`.

        Yields:
            The file, and how many bytes are stored of it.

        Raises:
            DataError: As `stream`; the file's server does not read from the middle of files; the
                temporary folder is full.
        """
        if self.compression is None:
            with self.location.open() as raw:
                if not raw.seekable():
                    raise DataError(
                        f"{self}: its server reads files from the beginning only",
                        f"download it: reading {expected} begins at the end",
                    )
                self._check(ByteStream(str(self), raw, raw.tell, None).head(), expected)
                size = raw.seek(0, os.SEEK_END)
                raw.seek(0)
                yield raw, size
        else:
            with self.stream(expected) as stream, tempfile.TemporaryFile() as unpacked:
                _unpack(stream, unpacked)
                yield unpacked, stream.position()

    def mismatch(self, expected: str, content: str) -> DataError:
        """Returns the error for a file that holds something else than its name says."""
        return DataError(
            f"{self} holds {content}, not {expected} as its name says",
            "give the file the ending that fits it, or download it anew",
        )

    @contextmanager
    def _decoded(self, raw: BinaryIO, start: int) -> Iterator[tuple[Readable, int]]:
        """Yields the decoded bytes, and where the stored ones begin."""
        if self.compression is None:
            if start:
                raw.seek(start)
            yield raw, start
        elif self.member is not None:
            with open_member(self.location, raw, self.member) as (content, begin):
                yield content, begin
        else:
            import pyarrow as pa  # a plain file can do without

            if raw.seekable():
                self._check(raw.read(HEAD_BYTES), self.compression)
                raw.seek(0)
            with pa.CompressedInputStream(pa.PythonFile(raw, "r"), self.compression) as content:
                yield content, 0

    def _check(self, head: bytes, expected: str) -> None:
        if not head:
            raise DataError(f"{self} is empty", "leave the file out, or download it anew")
        content = content_of(head)
        if content and expected not in content:
            raise self.mismatch(expected, content)


def _unpack(stream: ByteStream, file: IO[bytes]) -> None:
    while block := stream.read():
        try:
            file.write(block)
        except OSError as error:
            raise DataError(
                f"no room to decompress in {tempfile.gettempdir()}: {error}",
                "set TMPDIR to another folder, or decompress the file yourself",
            ) from error
    file.seek(0)
