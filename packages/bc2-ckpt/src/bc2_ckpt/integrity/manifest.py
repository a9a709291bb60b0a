"""``bc2-checkpoint.json``: the checksums that lie beside every checkpoint that bc2-ckpt writes.

It holds the SHA-256 of every tensor, which can be compared between formats, and size and SHA-256
of every file, which leave no byte uncovered: headers, archive directories and padding included. Its
last line is the SHA-256 of everything before it, so a change of the manifest is noticed too.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bc2_ckpt import __version__
from bc2_ckpt.errors import DamagedFileError
from bc2_ckpt.files import read_json
from bc2_ckpt.filters.digesting import Digesting
from bc2_ckpt.formats.protocol import CheckpointReader
from bc2_ckpt.integrity.records import FileRecord, file_records
from bc2_data.checksum import sha256

MANIFEST = "bc2-checkpoint.json"

_SEAL = "sha256_of_the_above"


@dataclass(frozen=True)
class TensorRecord:
    """A tensor as it should be.

    Attributes:
        dtype: A torch name such as ``bfloat16``.
        shape: In Hugging Face's arrangement, without vocabulary padding.
        sha256: See `bc2_ckpt.filters.digesting`.
    """

    dtype: str
    shape: tuple[int, ...]
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """What a checkpoint should be.

    Attributes:
        format: One of `bc2_ckpt.formats.FORMATS`.
        tensors: By Hugging Face name.
        files: By path relative to the manifest, which is not among them.
    """

    format: str
    tensors: Mapping[str, TensorRecord]
    files: Mapping[str, FileRecord]


def seal(
    directory: Path,
    reader: Digesting,
    to: str,
    file_digests: Mapping[str, str],
) -> None:
    """Writes the manifest of a checkpoint that has just been written.

    Args:
        directory: The checkpoint, complete but for the manifest.
        reader: What it was written from; everything was read through it.
        to: The format that it was written in.
        file_digests: The SHA-256 of files by path relative to `directory`; others are read back.
    """
    digests = reader.digests()
    tensors = {
        name: TensorRecord(info.dtype_name, info.shape, digests[name])
        for name, info in reader.tensors().items()
    }
    files = {}
    for path in sorted(path for path in directory.rglob("*") if path.is_file()):
        name = path.relative_to(directory).as_posix()
        files[name] = FileRecord(path.stat().st_size, file_digests.get(name) or sha256(path))
    write_manifest(directory, Manifest(to, tensors, files))


def refuse_changed(reader: CheckpointReader, digests: Mapping[str, str]) -> None:
    """Raises where tensors that were read are not those that the source's manifest tells of.

    Args:
        reader: A checkpoint as it is stored; one without a manifest passes.
        digests: The SHA-256 of its tensors as they were read.

    Raises:
        DamagedFileError: Names the first of them.
    """
    path = reader.beside(MANIFEST)
    if path is None:
        return
    for name, record in read_manifest(path).tensors.items():
        if digests.get(name) != record.sha256:
            raise DamagedFileError(
                f"{name} in {reader.source} is not the tensor that was written",
                f"copy the checkpoint again; if it was changed on purpose, remove {path}",
            )


def write_manifest(directory: Path, manifest: Manifest) -> None:
    """Writes the manifest of a checkpoint into its directory."""
    content = {
        "bc2_ckpt": __version__,
        "format": manifest.format,
        "tensors": {
            name: {"dtype": record.dtype, "shape": list(record.shape), "sha256": record.sha256}
            for name, record in manifest.tensors.items()
        },
        "files": {
            name: {"size": record.size, "sha256": record.sha256}
            for name, record in sorted(manifest.files.items())
        },
    }
    (directory / MANIFEST).write_text(_sealed(content), "utf-8")


def read_manifest(path: Path) -> Manifest:
    """Reads a manifest.

    Raises:
        DamagedFileError: It is not as it was written.
    """
    content = read_json(path)
    content.pop(_SEAL, None)
    if path.read_text("utf-8") != _sealed(content):
        raise DamagedFileError(f"{path} is not as it was written", "copy the checkpoint again")
    try:
        tensors = {
            name: TensorRecord(entry["dtype"], tuple(entry["shape"]), entry["sha256"])
            for name, entry in content["tensors"].items()
        }
        return Manifest(content["format"], tensors, file_records(str(path), content["files"]))
    except (KeyError, TypeError, AttributeError) as error:
        raise DamagedFileError(f"{path} is not of this version's form: {error}") from error


def _sealed(content: dict[str, Any]) -> str:
    """Returns the text of a manifest, one tensor or file a line."""
    lines = []
    for key, value in content.items():
        if isinstance(value, dict):
            entries = [
                f"    {json.dumps(name)}: {json.dumps(entry)}" for name, entry in value.items()
            ]
            lines.append(f"  {json.dumps(key)}: {{\n" + ",\n".join(entries) + "\n  }")
        else:
            lines.append(f"  {json.dumps(key)}: {json.dumps(value)}")
    text = "{\n" + ",\n".join(lines) + ",\n"
    seal = hashlib.sha256(text.encode()).hexdigest()
    return f'{text}  "{_SEAL}": "{seal}"\n}}\n'
