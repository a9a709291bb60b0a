"""Reads boxes of tensors out of the pieces of a distributed checkpoint."""

from __future__ import annotations

import io
import math
import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bc2_ckpt.errors import DamagedFileError
from bc2_ckpt.formats.torch_dist.metadata import Chunk, Extent, StoredTensor
from bc2_ckpt.safe_load import load_stream


def load_extent(directory: Path, extent: Extent) -> Any:
    """Loads what torch.save wrote into a range of a file, tensors and plain values alone."""
    path = directory / extent.file
    with open(path, "rb") as file:
        return load_stream(_FilePart(file, extent), f"{path} at byte {extent.start}")


def read_box(
    directory: Path, stored: StoredTensor, offsets: tuple[int, ...], sizes: tuple[int, ...]
) -> Tensor:
    """Reads a box of a stored tensor from every chunk that it touches.

    Args:
        directory: The checkpoint.
        stored: The tensor.
        offsets: Where the box begins on each axis.
        sizes: Its shape.

    Returns:
        A tensor of shape `sizes` in the stored dtype.

    Raises:
        DamagedFileError: A part of the box is in no chunk, or a chunk is not what it should be.
    """
    overlaps = [(chunk, box) for chunk in stored.chunks if (box := _overlap(chunk, offsets, sizes))]
    covered = sum(math.prod(stop - start for start, stop in box) for _, box in overlaps)
    if covered != math.prod(sizes):
        raise DamagedFileError(f"{directory}: a tensor at {offsets} is not stored as a whole")
    box_of_one = overlaps[0][0]
    if (box_of_one.offsets, box_of_one.sizes) == (offsets, sizes):
        return _load_chunk(directory, stored, box_of_one)
    result = torch.empty(sizes, dtype=stored.dtype)
    for chunk, box in overlaps:
        result[_within(box, offsets)] = _load_chunk(directory, stored, chunk)[
            _within(box, chunk.offsets)
        ]
    return result


_Box = list[tuple[int, int]]


def _overlap(chunk: Chunk, offsets: tuple[int, ...], sizes: tuple[int, ...]) -> _Box | None:
    """Returns start and stop on each axis where a chunk and a box meet, or None."""
    box = [
        (max(a, b), min(a + m, b + n))
        for a, m, b, n in zip(chunk.offsets, chunk.sizes, offsets, sizes, strict=True)
    ]
    return box if all(start < stop for start, stop in box) else None


def _within(box: _Box, offsets: tuple[int, ...]) -> tuple[slice, ...]:
    return tuple(
        slice(start - offset, stop - offset)
        for (start, stop), offset in zip(box, offsets, strict=True)
    )


def _load_chunk(directory: Path, stored: StoredTensor, chunk: Chunk) -> Tensor:
    tensor = load_extent(directory, chunk.extent)
    if (
        not isinstance(tensor, Tensor)
        or tuple(tensor.shape) != chunk.sizes
        or tensor.dtype != stored.dtype
    ):
        raise DamagedFileError(
            f"{directory / chunk.extent.file} at byte {chunk.extent.start} holds another tensor "
            "than .metadata says",
            "copy the checkpoint again",
        )
    return tensor


class _FilePart(io.RawIOBase):
    """A seekable view of a range of a file."""

    def __init__(self, file: io.BufferedReader, extent: Extent) -> None:
        self._file = file
        self._start = extent.start
        self._length = extent.length
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._length}[whence]
        self._position = base + offset
        return self._position

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        view = view[: max(0, self._length - self._position)]
        self._file.seek(self._start + self._position)
        count = self._file.readinto(view)
        self._position += count
        return count
