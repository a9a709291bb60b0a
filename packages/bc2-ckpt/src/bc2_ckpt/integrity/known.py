"""What was written down of a checkpoint when it was made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from bc2_ckpt.errors import DamagedFileError
from bc2_ckpt.files import is_inside, read_json
from bc2_ckpt.integrity.manifest import MANIFEST, TensorRecord, read_manifest
from bc2_ckpt.integrity.records import FileRecord, is_sha256

TRAINER_CHECKSUMS = "checksums.json"
"""What bc2-train writes into every checkpoint: the SHA-256 of each file by its name."""


@dataclass(frozen=True)
class Known:
    """What a checkpoint should be.

    Attributes:
        path: Where that is written.
        files: By path relative to the folder of `path`.
        tensors: By Hugging Face name; empty where nothing is known of them.
    """

    path: Path
    files: Mapping[str, FileRecord]
    tensors: Mapping[str, TensorRecord]


def find_known(directory: Path) -> Known | None:
    """Returns what is known of a checkpoint; None where nothing was written down.

    Raises:
        DamagedFileError: Something was, but it is damaged.
    """
    manifest, checksums = directory / MANIFEST, directory / TRAINER_CHECKSUMS
    if manifest.exists():
        written = read_manifest(manifest)
        return Known(manifest, written.files, written.tensors)
    if checksums.exists():
        return Known(checksums, _trainer_records(checksums), {})
    return None


def _trainer_records(path: Path) -> dict[str, FileRecord]:
    records = {}
    for name, digest in read_json(path).items():
        if not is_sha256(digest) or not is_inside(name):
            raise DamagedFileError(f"{path}: {name!r} is not the SHA-256 of a file beside it")
        records[name] = FileRecord(None, digest)
    return records
