"""What is known of files: size and SHA-256, where from and by which name."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeGuard

from bc2_ckpt.errors import DamagedFileError
from bc2_ckpt.files import is_inside

_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class FileRecord:
    """A file as it should be.

    Attributes:
        size: In bytes; None where only the checksum is known.
        sha256: 64 hexadecimal digits, lower case.
    """

    size: int | None
    sha256: str


def file_records(where: str, value: Any) -> dict[str, FileRecord]:
    """Reads ``{"name": {"size": N, "sha256": "..."}}``, the form that every manifest has.

    Args:
        where: The manifest, for errors.
        value: What its JSON holds.

    Raises:
        DamagedFileError: Something else is there, or a name leads out of the folder.
    """
    if not isinstance(value, Mapping) or not value:
        raise DamagedFileError(f"{where} names no files", "give a manifest of sizes and sha256")
    records = {}
    for name, entry in value.items():
        known = entry if isinstance(entry, Mapping) else {}
        size, digest = known.get("size"), known.get("sha256")
        if type(size) is not int or not is_sha256(digest):
            raise DamagedFileError(f"{where}: {name!r} has no size and sha256 that could be right")
        if not is_inside(name):
            raise DamagedFileError(f"{where} names {name!r}, which is no file beside it")
        records[name] = FileRecord(size, digest)
    return records


def is_sha256(value: Any) -> TypeGuard[str]:
    """Whether a value is a SHA-256 in lower-case hexadecimal."""
    return isinstance(value, str) and _SHA256.fullmatch(value) is not None
