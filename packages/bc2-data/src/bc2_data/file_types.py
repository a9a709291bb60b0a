"""What a file really holds, told from its first bytes."""

from __future__ import annotations

from pathlib import Path

HEAD_BYTES = 64

_SIGNATURES = {
    b"PAR1": "a parquet file",
    b"ARROW1": "an arrow file",
    b"FEA1": "a feather file of version 1",
    b"\x1f\x8b": "a gzip archive",
    b"\x28\xb5\x2f\xfd": "a zstd archive",
    b"PK\x03\x04": "a zip archive",
    b"PK\x05\x06": "an empty zip archive",
    b"BZh": "a bzip2 archive",
    b"\xfd7zXZ": "an xz archive",
    b"7z\xbc\xaf": "a 7z archive",
    b"\xff\xfe": "UTF-16 text",
    b"\xfe\xff": "UTF-16 text",
    b"version https://git-lfs": "a Git LFS pointer",
    b"<!doctype html": "an HTML page",
    b"<html": "an HTML page",
}


def foreign_content(path: Path) -> str | None:
    """Returns what a file holds, such as ``a zip archive``; None where no signature is known."""
    with open(path, "rb") as file:
        return content_of(file.read(HEAD_BYTES))


def content_of(head: bytes) -> str | None:
    """Returns what begins with these bytes, such as ``a zip archive``; None where that is unknown.

    Args:
        head: The first `HEAD_BYTES` bytes.
    """
    for signature, content in _SIGNATURES.items():
        if head.startswith(signature) or head.lstrip().lower().startswith(signature):
            return content
    return None
