"""Reads boxes of tensors out of the pieces of a distributed checkpoint."""

from __future__ import annotations

import io
import math
import os
import re
import struct
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import IO, Any, cast

import torch
from torch import Tensor

from bc2_ckpt.errors import DamagedFileError
from bc2_ckpt.formats.torch_dist.metadata import Chunk, Extent, StoredTensor
from bc2_ckpt.mapped import use
from bc2_ckpt.safe_load import load_stream

_DATA_RECORD = re.compile(r"[^/]+/data/\d+")
_LOCAL_HEADER = struct.Struct("<4s5H3L2H")
"""Of a zip member; it ends in the lengths of the name and the extra field that follow."""


def open_extent(directory: Path, extent: Extent) -> IO[bytes]:
    """Opens a range of a file as if it were a file."""
    return cast("IO[bytes]", _FilePart(directory / extent.file, extent))


def load_extent(directory: Path, extent: Extent) -> Any:
    """Loads what torch.save wrote into a range of a file, tensors and plain values alone."""
    with open_extent(directory, extent) as part:
        return load_stream(part, f"{directory / extent.file} at byte {extent.start}")


def touched(stored: StoredTensor, offsets: tuple[int, ...], sizes: tuple[int, ...]) -> StoredTensor:
    """Returns a stored tensor with those of its chunks alone that a box touches."""
    chunks = tuple(chunk for chunk in stored.chunks if _overlap(chunk, offsets, sizes))
    return replace(stored, chunks=chunks)


class Pieces:
    """The pieces of one checkpoint, mapped, not read, so that a part of a piece costs no more."""

    def __init__(self, directory: Path) -> None:
        """Maps nothing yet.

        Args:
            directory: The checkpoint; `vet` has passed it.
        """
        self._directory = directory
        self._files: dict[str, Tensor] = {}
        self._chunks: dict[Extent, Tensor] = {}

    def read_box(
        self, stored: StoredTensor, offsets: tuple[int, ...], sizes: tuple[int, ...]
    ) -> Tensor:
        """Reads a box of a stored tensor from every chunk that it touches.

        Args:
            stored: The tensor.
            offsets: Where the box begins on each axis.
            sizes: Its shape.

        Returns:
            A new tensor of shape `sizes` in the stored dtype.

        Raises:
            DamagedFileError: A part of the box is in no chunk, or a chunk is not what it should be.
        """
        overlaps = [
            (chunk, box) for chunk in stored.chunks if (box := _overlap(chunk, offsets, sizes))
        ]
        covered = sum(math.prod(stop - start for start, stop in box) for _, box in overlaps)
        if covered != math.prod(sizes):
            raise DamagedFileError(
                f"{self._directory}: a tensor at {offsets} is not stored as a whole"
            )
        item = stored.dtype.itemsize
        result = torch.empty((*sizes[:-1], sizes[-1] * item), dtype=torch.uint8)
        used = []
        for chunk, box in overlaps:
            part = self._chunk_bytes(stored, chunk)[_within(box, chunk.offsets, item)]
            result[_within(box, offsets, item)] = part
            used.append(part)
        use(used)
        return result.view(stored.dtype)

    def _chunk_bytes(self, stored: StoredTensor, chunk: Chunk) -> Tensor:
        """Returns a chunk's bytes: its shape, with the last axis in bytes.

        Chunks begin at any byte of their file, where only bytes can be mapped.
        """
        extent = chunk.extent
        if extent in self._chunks:
            return self._chunks[extent]
        with torch.serialization.skip_data():
            tensor = load_extent(self._directory, extent)
        if (
            not isinstance(tensor, Tensor)
            or tuple(tensor.shape) != chunk.sizes
            or tensor.dtype != stored.dtype
        ):
            raise self._damaged(extent)
        if not tensor.is_contiguous():
            whole: Tensor = load_extent(self._directory, extent)
            return whole.contiguous().view(torch.uint8)
        item = stored.dtype.itemsize
        start = extent.start + self._data_start(extent) + tensor.storage_offset() * item
        if start + tensor.nbytes > extent.start + extent.length:
            raise self._damaged(extent)
        data = self._map(extent.file)[start : start + tensor.nbytes]
        self._chunks[extent] = data.view(*chunk.sizes[:-1], chunk.sizes[-1] * item)
        return self._chunks[extent]

    def _map(self, file: str) -> Tensor:
        if file not in self._files:
            path = self._directory / file
            self._files[file] = torch.from_file(
                str(path), shared=False, size=path.stat().st_size, dtype=torch.uint8
            )
        return self._files[file]

    def _data_start(self, extent: Extent) -> int:
        """Returns where, within a chunk's archive, the elements begin."""
        try:
            with open_extent(self._directory, extent) as part, zipfile.ZipFile(part) as archive:
                (data,) = (x for x in archive.infolist() if _DATA_RECORD.fullmatch(x.filename))
                part.seek(data.header_offset)
                *_, name_length, extra_length = _LOCAL_HEADER.unpack(part.read(_LOCAL_HEADER.size))
        # The directory is damaged, or there is not one tensor in it, or no header where it says.
        except (zipfile.BadZipFile, ValueError, OSError, struct.error) as error:
            raise self._damaged(extent) from error
        if data.compress_type != zipfile.ZIP_STORED:
            raise self._damaged(extent)
        start: int = data.header_offset + _LOCAL_HEADER.size + name_length + extra_length
        return start

    def _damaged(self, extent: Extent) -> DamagedFileError:
        return DamagedFileError(
            f"{self._directory / extent.file} at byte {extent.start} holds another tensor than "
            ".metadata says",
            "copy the checkpoint again",
        )


_Box = list[tuple[int, int]]


def _overlap(chunk: Chunk, offsets: tuple[int, ...], sizes: tuple[int, ...]) -> _Box | None:
    """Returns start and stop on each axis where a chunk and a box meet, or None."""
    box = [
        (max(a, b), min(a + m, b + n))
        for a, m, b, n in zip(chunk.offsets, chunk.sizes, offsets, sizes, strict=True)
    ]
    return box if all(start < stop for start, stop in box) else None


def _within(box: _Box, offsets: tuple[int, ...], item: int) -> tuple[slice, ...]:
    """Returns a box relative to where a chunk or a box begins, its last axis in bytes."""
    *rows, columns = (
        slice(start - offset, stop - offset)
        for (start, stop), offset in zip(box, offsets, strict=True)
    )
    return (*rows, slice(columns.start * item, columns.stop * item))


class _FilePart(io.RawIOBase):
    """A seekable view of a range of a file."""

    def __init__(self, path: Path, extent: Extent) -> None:
        self._file = open(path, "rb")  # noqa: SIM115 - closed by close()
        self._start = extent.start
        self._length = extent.length
        self._position = 0

    def close(self) -> None:
        super().close()
        self._file.close()

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
