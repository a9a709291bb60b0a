"""SHA-256 in a thread of its own, while the bytes are written or the next ones are read.

Why SHA-256: it finds every change, deliberate ones too; ``sha256sum`` and Hugging Face's Git LFS
pointers speak it; and of the strong hashes in Python's library it is the fastest on CPUs with SHA
instructions (``python tools/bench/hashes.py``).
"""

from __future__ import annotations

import hashlib
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from bc2_ckpt.background import Background
from bc2_ckpt.write_behind import WriteBehind

_INLINE = 1 << 16
"""Fewer bytes are hashed at once: handing them over would take longer."""


class HashThread(Background):
    """Hashes one part after the other; a caller that runs ahead holds two of them in memory."""

    def update(self, digest: Any, part: bytes | memoryview) -> None:
        """Adds a part to a digest of hashlib; the part must not be changed afterwards."""
        if len(part) < _INLINE:
            self.wait()
            digest.update(part)
        else:
            self.run(digest.update, part)


class HashedFile:
    """A file that is written from its beginning to its end; used as a context manager.

    What is written is on its way to the disk at once, see `bc2_ckpt.write_behind`.

    Args:
        path: The file to make.

    Attributes:
        path: As given.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._digest = hashlib.sha256()
        with ExitStack() as stack:
            self._file = stack.enter_context(open(path, "wb", buffering=0))
            self._behind = stack.enter_context(WriteBehind(self._file.fileno()))
            self._thread = stack.enter_context(HashThread())
            self._parts = stack.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._parts.__exit__(kind, error, trace)

    @property
    def sha256(self) -> str:
        """SHA-256 of everything written so far, 64 hexadecimal digits."""
        self._thread.wait()
        return self._digest.hexdigest()

    def write(self, data: bytes | memoryview) -> int:
        """Appends bytes, which must not be changed afterwards, and returns how many."""
        rest = memoryview(data).cast("B")
        self._thread.update(self._digest, rest)
        while rest:  # one write call takes no more than 2 GiB
            rest = rest[self._file.write(rest) :]
        count = memoryview(data).nbytes
        self._behind.add(count)
        return count

    def tell(self) -> int:
        """Returns the number of bytes written."""
        return self._file.tell()
