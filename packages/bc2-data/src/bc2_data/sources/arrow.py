"""Arrow's own file formats: IPC file (feather), IPC stream (Hugging Face datasets)."""

from __future__ import annotations

import mmap
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import IO, Any, ClassVar

import pyarrow as pa

from bc2_data.errors import DataError
from bc2_data.sources.base import Batch, Source
from bc2_data.sources.columnar import present, to_batches

_FILE_SIGNATURE = b"ARROW1"


@dataclass(frozen=True)
class ArrowSource(Source):
    """Reads the named columns of an .arrow or .feather file.

    A record batch is looked at through a memory map, however large it is; one whose buffers are
    compressed, or that comes from a server, is in memory whole.
    """

    format: ClassVar[str] = "arrow"
    unit: ClassVar[str] = "row"

    def batches(self, columns: Sequence[str]) -> Iterator[Batch]:
        """Yields all rows, with those of the columns that the file has.

        Raises:
            DataError: The file is no arrow file, or is damaged.
        """
        with self.file.random_access(self.format) as (raw, size):
            try:
                yield from self._read(raw, size, columns)
            except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
                raise DataError(
                    f"{self.file} is no arrow file, or is damaged: {error}", "download it anew"
                ) from error

    def _read(self, raw: IO[bytes], size: int, columns: Sequence[str]) -> Iterator[Batch]:
        buffers, release = _buffers(raw)
        rows, read = 0, 0
        for table, share in _tables(buffers):
            position = int(size * share)
            chosen = table.select(present(table.schema.names, columns))
            for batch in to_batches(chosen, rows + 1, self.max_row_bytes):
                rows += len(batch)
                batch.size, read = position - read, position
                yield batch
                release()


def _buffers(raw: IO[bytes]) -> tuple[Any, Callable[[], None]]:
    """Returns what pyarrow reads, and what frees the memory that reading took so far."""
    try:
        descriptor = raw.fileno()
    except OSError:  # it is on a server
        return pa.PythonFile(raw, "r"), lambda: None
    mapped = mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ)
    # Pages that were looked at count as memory of the process until they are given back.
    return pa.BufferReader(pa.py_buffer(mapped)), lambda: mapped.madvise(mmap.MADV_DONTNEED)


def _tables(buffers: Any) -> Iterator[tuple[Any, float]]:
    """Yields the record batches, each with the share of the file that is read with it."""
    is_file = buffers.read(len(_FILE_SIGNATURE)) == _FILE_SIGNATURE
    buffers.seek(0)
    if is_file:
        file = pa.ipc.open_file(buffers)
        for index in range(file.num_record_batches):
            yield file.get_batch(index), (index + 1) / file.num_record_batches
    else:
        for table in pa.ipc.open_stream(buffers):
            yield table, buffers.tell() / buffers.size()
        if buffers.tell() < buffers.size():
            raise OSError("something follows the end of the stream")
