"""What ``bc2-ckpt check-download`` compares: a download with what was published.

What was published comes from a manifest, a JSON file ``{"model": ..., "files": {name: {"size",
"sha256"}}}``; from a folder of Git LFS pointers, which hold size and SHA-256 of the files that they
stand for; or from `bc2_ckpt.integrity.releases`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from bc2_ckpt.errors import CkptError, DamagedFileError
from bc2_ckpt.files import LFS_MAGIC, read_json
from bc2_ckpt.integrity.records import FileRecord, file_records
from bc2_ckpt.integrity.releases import RELEASES
from bc2_data.errors import nearest

_LARGEST_POINTER = 1024
_POINTER = re.compile(rb"^oid sha256:([0-9a-f]{64})\nsize (\d+)$", re.MULTILINE)


@dataclass(frozen=True)
class Published:
    """What a download should be.

    Attributes:
        name: The release, or where its records were read.
        files: Its files by name.
    """

    name: str
    files: Mapping[str, FileRecord]


def published(directory: Path, source: str | None) -> Published:
    """Returns what a download should be.

    Args:
        directory: The download.
        source: A manifest, a folder of LFS pointers, or the name of a release; None for the
            release that has weight files of the same names.

    Raises:
        CkptError: Nothing is known of the download, or the source cannot be read.
    """
    if source is None:
        return _same_names(directory)
    if source in RELEASES:
        return Published(source, RELEASES[source])
    path = Path(source)
    if path.is_dir():
        return Published(source, _pointers(path))
    if not path.is_file():
        raise CkptError(
            f"{source} is neither a manifest, nor a folder of LFS pointers, nor a known release",
            nearest(source, RELEASES),
        )
    content = read_json(path)
    return Published(str(content.get("model", source)), file_records(source, content.get("files")))


def _same_names(directory: Path) -> Published:
    for name, files in RELEASES.items():
        if any((directory / file).exists() for file in files if file.endswith(".bin")):
            return Published(name, files)
    raise CkptError(
        f"{directory} has the weight files of no release that is known here "
        f"({', '.join(RELEASES)})",
        "give --manifest FILE, or a folder of the release's LFS pointers, as "
        "`GIT_LFS_SKIP_SMUDGE=1 git clone` leaves them",
    )


def _pointers(directory: Path) -> dict[str, FileRecord]:
    records = {}
    for path in sorted(directory.iterdir()):
        if not path.is_file() or path.stat().st_size > _LARGEST_POINTER:
            continue
        content = path.read_bytes()
        if content.startswith(LFS_MAGIC) and (match := _POINTER.search(content)):
            records[path.name] = FileRecord(int(match[2]), match[1].decode())
    if not records:
        raise DamagedFileError(
            f"{directory} holds no Git LFS pointers",
            "clone the release again with GIT_LFS_SKIP_SMUDGE=1",
        )
    return records
