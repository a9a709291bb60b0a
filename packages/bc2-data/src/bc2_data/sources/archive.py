"""Zip archives: which members hold rows, and reading one from front to back.

Nothing is ever extracted under a member's name.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, BinaryIO

from bc2_data.errors import DataError
from bc2_data.sources.location import Location, readable

# The others (bzip2, lzma) are decoded by the standard library without a bound on what one read
# may yield.
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)

_ENCRYPTED = 1  # flag bit
_LEAVES = re.compile(r"[/\\]|[A-Za-z]:|(?:.*[/\\])?\.\.(?:[/\\]|$)")


def member_names(location: Location) -> list[str]:
    """Returns the files in an archive, in its order, without hidden ones.

    Raises:
        DataError: It is no zip archive; a member is encrypted, is compressed by an unusual method,
            has the name of another, or a path that leads out of the archive.
    """
    with location.open() as raw, _archive(location, raw) as archive:
        members = [member for member in archive.infolist() if not member.is_dir()]
        for member in members:
            _check(location, member)
    names = [member.filename for member in members]
    if len(set(names)) < len(names):
        raise DataError(f"{location} holds two members of one name", "repack it")
    return [name for name in names if not _is_hidden(name)]


@contextmanager
def open_member(location: Location, raw: BinaryIO, name: str) -> Iterator[tuple[IO[bytes], int]]:
    """Opens a member of an archive.

    Yields:
        Its bytes, and where in the archive it begins.
    """
    with _archive(location, raw) as archive, archive.open(name) as member:
        yield member, archive.getinfo(name).header_offset


@contextmanager
def _archive(location: Location, raw: BinaryIO) -> Iterator[zipfile.ZipFile]:
    if not raw.seekable():
        raise DataError(
            f"{location}: the server reads files from the beginning only",
            "download the archive first",
        )
    try:
        with readable(location):
            archive = zipfile.ZipFile(raw)
    except zipfile.BadZipFile as error:
        raise DataError(
            f"{location} is no zip archive, or is cut short: {error}", "download it anew"
        ) from error
    with archive:
        yield archive


def _check(location: Location, member: zipfile.ZipInfo) -> None:
    where = f"{location}: its member {member.filename!r}"
    if _LEAVES.match(member.filename):
        raise DataError(f"{where} has a path that leads out of the archive", "do not trust it")
    if member.flag_bits & _ENCRYPTED:
        raise DataError(f"{where} is encrypted", "unpack it with its password first")
    if member.compress_type not in _METHODS:
        raise DataError(f"{where} is not compressed by deflate", "repack it, or unpack it first")


def _is_hidden(name: str) -> bool:
    """Tells whether a member is none of the user's data, such as ``__MACOSX/._rows.jsonl``."""
    return any(part.startswith(".") for part in name.split("/"))
