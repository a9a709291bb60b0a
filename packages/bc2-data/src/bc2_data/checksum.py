"""SHA-256 of files, in constant memory, read or as they are written."""

from __future__ import annotations

import hashlib
from pathlib import Path
from types import TracebackType
from typing import Self


def sha256(path: Path) -> str:
    """Returns the SHA-256 of a file's bytes as 64 hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class DigestWriter:
    """A file that is written from its beginning to its end, with its SHA-256 known at once.

    Used as a context manager.

    Args:
        path: The file; what it holds already is replaced.

    Attributes:
        path: As given.
        size: Bytes written so far.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.size = 0
        self._digest = hashlib.sha256()
        self._file = open(path, "wb")  # noqa: SIM115 - closed by __exit__

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()

    @property
    def sha256(self) -> str:
        """SHA-256 of the bytes written so far, 64 hexadecimal digits."""
        return self._digest.hexdigest()

    def write(self, data: bytes | memoryview) -> None:
        """Appends bytes, or the contiguous elements of an array."""
        self._file.write(data)
        self._digest.update(data)
        self.size += memoryview(data).nbytes
