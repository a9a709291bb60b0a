"""Bytes that are read once, from front to back."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Callable
from typing import Protocol

from bc2_data.errors import DataError
from bc2_data.file_types import HEAD_BYTES
from bc2_data.sources.location import readable

BLOCK_BYTES = 1 << 20

# Text shrinks to a third and logs to a fiftieth; what grows more was made to do harm. The first
# bytes are free: a short file of nothing but spaces harms nobody.
MAX_EXPANSION = 200
FREE_BYTES = 64 << 20


class Readable(Protocol):
    """What a stream takes its bytes from."""

    def read(self, size: int, /) -> bytes:
        """Returns some bytes, up to `size`; none at the end."""


class ByteStream:
    """The bytes of a file, decompressed where it is compressed.

    Args:
        name: Names the file in errors.
        content: Its bytes.
        position: Tells how many bytes were read of the file as it is stored.
        compression: How it is compressed as it is stored, such as ``gzip``; None for not at all.
    """

    def __init__(
        self, name: str, content: Readable, position: Callable[[], int], compression: str | None
    ) -> None:
        self.position = position
        self._name = name
        self._content = content
        self._compression = compression
        self._total = 0
        self._ahead = b""

    def head(self) -> bytes:
        """Returns the first bytes, which `read` will return again; fewer in a short file.

        Raises:
            DataError: As `read`.
        """
        while (lack := HEAD_BYTES - len(self._ahead)) and (block := self._read(lack)):
            self._ahead += block
        return self._ahead

    def read(self, size: int = BLOCK_BYTES) -> bytes:
        """Returns some of the next bytes, `size` at most; none at the end.

        Raises:
            DataError: The file cannot be read, is damaged, ends too early, or is a bomb: a small
                file that decompresses to a huge one.
        """
        if self._ahead:
            block, self._ahead = self._ahead[:size], self._ahead[size:]
            return block
        return self._read(size)

    def _read(self, size: int) -> bytes:
        with readable(self._name):
            try:
                block = self._content.read(size)
            except (zipfile.BadZipFile, zlib.error, EOFError) as error:
                raise self._damaged(error) from error
            except OSError as error:
                if self._compression is None or error.errno is not None:
                    raise
                raise self._damaged(error) from error  # a decoder's error, not the system's
        self._total += len(block)
        if self._compression and self._total > FREE_BYTES:
            self._refuse_bomb()
        return block

    def _damaged(self, error: Exception) -> DataError:
        return DataError(
            f"{self._name} is no {self._compression} data, is damaged or cut short: {error}",
            "download it anew",
        )

    def _refuse_bomb(self) -> None:
        if self._total > MAX_EXPANSION * self.position():
            raise DataError(
                f"{self._name} decompresses to more than {MAX_EXPANSION} times its size, "
                "which text does not",
                "if you know what it holds, decompress it yourself",
            )
