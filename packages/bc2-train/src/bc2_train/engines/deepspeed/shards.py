"""Writes tensors that all ranks assemble together into files that each rank has some of."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent import futures
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from bc2_train.ranks import Ranks

MAX_SHARD_BYTES = 2 * 1024**3
"""The size of a file, which a rank holds in memory until it is written."""


@dataclass(frozen=True)
class Entry:
    """A tensor to be written.

    Attributes:
        name: Its name in the file.
        num_bytes: Its size.
        read: Returns it; every rank must call this, in the same order.
    """

    name: str
    num_bytes: int
    read: Callable[[], Tensor]


class ShardWriter:
    """Writes safetensors files, the next one always by the next rank.

    Args:
        ranks: The processes of the run.
        asynchronous: Whether files are written in the background. A rank then holds all of its
            files in memory until they are.
    """

    def __init__(self, ranks: Ranks, *, asynchronous: bool) -> None:
        self._ranks = ranks
        self._asynchronous = asynchronous
        self._pool = ThreadPoolExecutor(1)
        self._pending: list[Future[None]] = []
        self._count = 0

    def write(
        self, directory: Path, stem: str, entries: Iterable[Entry], *, split: bool = True
    ) -> dict[str, str]:
        """Writes entries into files of at most `MAX_SHARD_BYTES`, or of one entry.

        Args:
            directory: It exists.
            stem: The files are called ``STEM.safetensors`` or ``STEM-00001-of-00003.safetensors``.
            entries: What they hold, in this order.
            split: Whether there may be several files.

        Returns:
            The file of every entry.
        """
        shards = list(_split(entries)) if split else [list(entries)]
        files: dict[str, str] = {}
        for number, shard in enumerate(shards, start=1):
            suffix = f"-{number:05d}-of-{len(shards):05d}" if len(shards) > 1 else ""
            name = f"{stem}{suffix}.safetensors"
            files |= {entry.name: name for entry in shard}
            self._write_shard(directory / name, shard)
        return files

    def _write_shard(self, path: Path, shard: list[Entry]) -> None:
        ours = self._count % self._ranks.size == self._ranks.rank
        self._count += 1
        held: dict[str, Tensor] = {}
        for entry in shard:
            tensor = entry.read()
            if ours:
                held[entry.name] = tensor.to("cpu", copy=True)
        if not ours:
            return
        self._pending.append(self._pool.submit(_save, held, path))
        if not self._asynchronous:
            futures.wait(self._pending)

    def done(self, *, wait: bool) -> bool:
        """Returns whether all ranks have written all files; see `PendingSave.done`.

        Raises:
            OSError: A file could not be written; every rank raises, whichever it was that failed.
        """
        if wait:
            futures.wait(self._pending)
        if self._ranks.any(not all(future.done() for future in self._pending)):
            return False
        self._pool.shutdown()
        errors = [error for future in self._pending if (error := future.exception())]
        for messages in self._ranks.gather([str(error) for error in errors]):
            if messages:
                raise OSError(messages[0])
        return True


def _save(tensors: dict[str, Tensor], path: Path) -> None:
    try:
        save_file(tensors, path, metadata={"format": "pt"})
    except SafetensorError as error:
        # Such as "Error while serializing: I/O error: No space left on device (os error 28)".
        raise OSError(f"{path}: {str(error).rpartition('error: ')[2]}") from error


def _split(entries: Iterable[Entry]) -> Iterator[list[Entry]]:
    shard: list[Entry] = []
    size = 0
    for entry in entries:
        if shard and size + entry.num_bytes > MAX_SHARD_BYTES:
            yield shard
            shard, size = [], 0
        shard.append(entry)
        size += entry.num_bytes
    if shard:
        yield shard
