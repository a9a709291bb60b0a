"""SHA-256 in a thread of its own, while the bytes are written or the next ones are read.

Why SHA-256: it finds every change, deliberate ones too; ``sha256sum`` and Hugging Face's Git LFS
pointers speak it; and of the strong hashes in Python's library it is the fastest on CPUs with SHA
instructions (``python tools/bench/hashes.py``).
"""

from __future__ import annotations

import hashlib
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, Self

_INLINE = 1 << 16
"""Fewer bytes are hashed at once: handing them over would take longer."""


class HashThread:
    """Hashes one part after the other; used as a context manager.

    No more than one part waits, so a caller that runs ahead holds two in memory.
    """

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(max_workers=1)
        self._pending: Future[None] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._pool.shutdown()

    def update(self, digest: Any, part: bytes | memoryview) -> None:
        """Adds a part to a digest of hashlib; the part must not be changed afterwards."""
        self.wait()
        if len(part) < _INLINE:
            digest.update(part)
        else:
            self._pending = self._pool.submit(digest.update, part)

    def wait(self) -> None:
        """Returns when every part that was handed over has been hashed."""
        if self._pending is not None:
            self._pending.result()
            self._pending = None


class HashedFile:
    """A file that is written from its beginning to its end; used as a context manager.

    Args:
        path: The file to make.

    Attributes:
        path: As given.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._digest = hashlib.sha256()
        self._thread = HashThread()
        self._file = open(path, "wb", buffering=0)  # noqa: SIM115 - closed by __exit__

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._thread.__exit__(kind, error, trace)
        self._file.close()

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
        return memoryview(data).nbytes

    def tell(self) -> int:
        """Returns the number of bytes written."""
        return self._file.tell()
