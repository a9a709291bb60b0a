"""Gives the memory of mapped files back as soon as it has been used.

The kernel keeps what was read of a file until it runs out of memory. That helps nobody where every
byte is read once: other programs' files are pushed out, the kernel has to search for pages, and on
a virtual machine a new page may first have to be had from the host, which takes longer than to
read, hash and write it. Pages that go back at once serve for what is read next.
"""

from __future__ import annotations

import ctypes
import mmap
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

from torch import Tensor

_MADV_PAGEOUT = 21
"""Of Linux 5.4; Python's mmap module does not name it."""
_READS_IN_USE = 2
"""One is being written while the one before may still be hashed."""

_libc = ctypes.CDLL(None)
_used: ContextVar[deque[Sequence[Tensor]] | None] = ContextVar("used", default=None)


@contextmanager
def read_once() -> Iterator[None]:
    """Within the block, what readers read is not read again, by this process or by others."""
    token = _used.set(deque())
    try:
        yield
    finally:
        _used.reset(token)


def use(views: Sequence[Tensor]) -> None:
    """Says which parts of mapped files a read uses, which are given back some reads later.

    Args:
        views: Tensors that lie in mapped files. Outside of `read_once` nothing happens.
    """
    used = _used.get()
    if used is None:
        return
    used.append(views)
    if len(used) > _READS_IN_USE:
        for view in used.popleft():
            _give_back(view)


def _give_back(view: Tensor) -> None:
    """Hints that the pages of a view are not needed; read all the same, they come from the file.

    A kernel that does not know the hint, or does not follow it, changes nothing but the speed.
    """
    if not view.numel():
        return
    steps = zip(view.shape, view.stride(), strict=True)
    length = (sum((size - 1) * stride for size, stride in steps) + 1) * view.itemsize
    start = view.data_ptr()
    first = start - start % mmap.PAGESIZE
    _libc.madvise(ctypes.c_void_p(first), ctypes.c_size_t(start + length - first), _MADV_PAGEOUT)
