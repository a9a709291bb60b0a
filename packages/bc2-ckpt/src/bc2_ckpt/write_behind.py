"""Sends a large file to the disk while it is being written.

Left alone, the kernel collects what is written until memory runs short, and the end waits for the
disk. Sent part by part, each part's pages serve for the next one: memory stays as it is, other
programs' files stay in it, and the disk is busy from the beginning. See also `bc2_ckpt.mapped`,
which does so for what is read.
"""

from __future__ import annotations

import os

from bc2_ckpt.background import Background

PART_BYTES = 64 * 2**20
"""Large enough that waiting for the disk to confirm it takes no time worth mentioning."""


class WriteBehind(Background):
    """Sends one file; what the disk said is raised by the next part or at the end of the block.

    Args:
        descriptor: Of the file, open as long as the block; it begins empty.
    """

    def __init__(self, descriptor: int) -> None:
        super().__init__()
        self._descriptor = descriptor
        self._sent = 0
        self._written = 0

    def add(self, count: int) -> None:
        """Says that so many bytes were appended to the file.

        Raises:
            OSError: An earlier part did not reach the disk.
        """
        self._written += count
        if self._written - self._sent >= PART_BYTES:
            self.run(_send, self._descriptor, self._sent, self._written - self._sent)
            self._sent = self._written


def _send(descriptor: int, start: int, length: int) -> None:
    """Waits until a part of a file is on disk and gives its pages back."""
    os.fsync(descriptor)
    if hasattr(os, "posix_fadvise"):
        os.posix_fadvise(descriptor, start, length, os.POSIX_FADV_DONTNEED)
