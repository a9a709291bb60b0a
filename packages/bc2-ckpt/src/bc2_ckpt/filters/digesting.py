"""Checksums of everything that is read, computed on its way.

A tensor's checksum is the SHA-256 of its elements in Hugging Face's arrangement, row by row,
little-endian, without the rows that only pad the vocabulary. So it is the same in every format, and
that of the tensor's bytes in a safetensors file.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from torch import Tensor

from bc2_ckpt.blocks import raw_bytes
from bc2_ckpt.filters.base import Filter
from bc2_ckpt.formats.protocol import CheckpointReader
from bc2_ckpt.hashing import HashThread


class Digesting(Filter):
    """Hashes what is read through it, in a thread of its own; used as a context manager.

    Every tensor is to be read once, its rows in ascending order, as a `Writer` does.

    Args:
        reader: The source.
        on_bytes: Called with the number of bytes of everything that is read.
    """

    def __init__(self, reader: CheckpointReader, on_bytes: Callable[[int], object]) -> None:
        super().__init__(reader)
        self._on_bytes = on_bytes
        self._thread = HashThread()
        self._hashes: dict[str, Any] = {}
        self._rows: dict[str, int] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._thread.__exit__(kind, error, trace)

    def read(self, name: str, rows: slice | None = None) -> Tensor:
        """Returns one tensor or rows of it, in Hugging Face's arrangement."""
        tensor = self._reader.read(name, rows)
        start = 0 if rows is None else rows.start
        if start != self._rows.get(name, 0):
            raise ValueError(f"{name}: row {start} was read after row {self._rows.get(name, 0)}")
        self._rows[name] = start + tensor.shape[0]
        self._thread.update(self._hashes.setdefault(name, hashlib.sha256()), raw_bytes(tensor))
        self._on_bytes(tensor.nbytes)
        return tensor

    def digests(self) -> dict[str, str]:
        """Returns the SHA-256 of every tensor, 64 hexadecimal digits each.

        Raises:
            ValueError: A tensor was not read to its end.
        """
        self._thread.wait()
        for name, info in self.tensors().items():
            if self._rows.get(name) != info.shape[0]:
                raise ValueError(f"{name} was not read to its end")
        return {name: self._hashes[name].hexdigest() for name in self.tensors()}
