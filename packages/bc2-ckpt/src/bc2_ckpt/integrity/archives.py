"""The checksums that torch itself writes: a CRC-32 for each member of a zip archive.

torch does not look at them when it loads, so a flipped bit in a ``.bin`` goes unnoticed. They do
not cover the archive's own directory.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from bc2_ckpt.errors import CkptError
from bc2_ckpt.formats.torch_dist.metadata import METADATA, read_index
from bc2_ckpt.formats.torch_dist.pieces import open_extent
from bc2_ckpt.integrity.files import OnBytes
from bc2_data.checks import Check

_ARCHIVES = (".bin", ".pt")
_BLOCK = 4 << 20


def check_archives(directory: Path, on_bytes: OnBytes) -> Iterator[Check]:
    """Yields one check for each file that torch.save wrote into a checkpoint.

    Args:
        directory: The checkpoint.
        on_bytes: Called with the number of bytes of everything that is read.
    """
    for path in sorted(path for path in directory.rglob("*") if path.suffix in _ARCHIVES):
        name = str(path.relative_to(directory))
        if not zipfile.is_zipfile(path):
            yield Check("skipped", f"{name} holds no checksums: torch before 1.6 wrote none")
            continue
        with open(path, "rb") as file:
            damage = _damage(file, on_bytes)
        yield (
            Check("failed", f"{name}: {damage}") if damage else Check("ok", f"{name}: its CRC-32s")
        )
    if (directory / METADATA).exists():
        yield from _check_pieces(directory, on_bytes)


def _check_pieces(directory: Path, on_bytes: OnBytes) -> Iterator[Check]:
    """Every tensor of a distributed checkpoint is an archive inside a larger file."""
    try:
        index = read_index(directory)
    except CkptError as error:
        yield Check("failed", error.message)
        return
    pieces = [(key, chunk.extent) for key, t in index.tensors.items() for chunk in t.chunks]
    pieces += index.objects.items()
    damaged = 0
    for key, extent in pieces:
        with open_extent(directory, extent) as stream:
            damage = _damage(stream, on_bytes)
        if damage:
            damaged += 1
            yield Check("failed", f"{extent.file} at byte {extent.start:,}, {key}: {damage}")
    if not damaged:
        yield Check("ok", f"the CRC-32s of {len(pieces)} pieces")


def _damage(stream: IO[bytes], on_bytes: OnBytes) -> str | None:
    """Reads every member of an archive; returns what is wrong with it, or None."""
    try:
        with zipfile.ZipFile(stream) as archive:
            for member in archive.infolist():
                with archive.open(member) as content:
                    while block := content.read(_BLOCK):
                        on_bytes(len(block))
    # What a damaged directory leads to: a wrong name, flag, size, offset or method.
    except (zipfile.BadZipFile, NotImplementedError, ValueError, EOFError, OSError) as error:
        return str(error) or "it is cut short"
    return None
