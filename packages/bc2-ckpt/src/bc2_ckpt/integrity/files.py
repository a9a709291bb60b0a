"""Compares the files of a folder with what is known of them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from bc2_ckpt.errors import DamagedFileError
from bc2_ckpt.files import refuse_placeholder
from bc2_ckpt.integrity.records import FileRecord
from bc2_data.checks import Check

OnBytes = Callable[[int], object]

_BLOCK = 4 << 20


def check_files(
    directory: Path, known: Mapping[str, FileRecord], on_bytes: OnBytes
) -> Iterator[Check]:
    """Yields one check a file: there, of the right size, with the right SHA-256.

    Args:
        directory: Holds the files.
        known: Their records, by path relative to it.
        on_bytes: Called with the number of bytes of everything that is read.
    """
    for name, record in known.items():
        wrong = _wrong(directory / name, record, on_bytes)
        if wrong is None:
            yield Check("ok", name)
        else:
            yield Check("failed", f"{name} {wrong}")


def sha256_of(path: Path, on_bytes: OnBytes) -> str:
    """Returns the SHA-256 of a file, and says how it comes along."""
    digest = hashlib.sha256()
    buffer = bytearray(_BLOCK)
    with open(path, "rb", buffering=0) as file:
        while count := file.readinto(buffer):
            digest.update(memoryview(buffer)[:count])
            on_bytes(count)
    return digest.hexdigest()


def _wrong(path: Path, record: FileRecord, on_bytes: OnBytes) -> str | None:
    if not path.is_file():
        return "is missing"
    size = path.stat().st_size
    if record.size is not None and size != record.size:
        what = "is cut short" if size < record.size else "is too long"
        return _placeholder(path) or f"{what}: {size:,} bytes instead of {record.size:,}"
    digest = sha256_of(path, on_bytes)
    if digest != record.sha256:
        short = f"has SHA-256 {digest[:16]}... instead of {record.sha256[:16]}..."
        return _placeholder(path) or short
    return None


def _placeholder(path: Path) -> str | None:
    """Returns what stands in a file's place, or None."""
    try:
        refuse_placeholder(path)
    except DamagedFileError as error:
        return error.message.removeprefix(f"{path} ")
    return None
