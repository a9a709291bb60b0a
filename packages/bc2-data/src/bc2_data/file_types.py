"""What a file really holds, told from its first bytes."""

from __future__ import annotations

from pathlib import Path

_SIGNATURES = {
    b"PAR1": "a parquet file",
    b"ARROW1": "an arrow file",
    b"\x1f\x8b": "a gzip archive",
    b"\x28\xb5\x2f\xfd": "a zstandard archive",
    b"PK\x03\x04": "a zip archive",
    b"version https://git-lfs": "a Git LFS pointer",
    b"<!doctype html": "an HTML page",
    b"<html": "an HTML page",
}
_HEAD = 64


def foreign_content(path: Path) -> str | None:
    """Returns what a file holds, such as ``a zip archive``; None where no signature is known."""
    with open(path, "rb") as file:
        head = file.read(_HEAD)
    for signature, content in _SIGNATURES.items():
        if head.startswith(signature) or head.lstrip().lower().startswith(signature):
            return content
    return None
