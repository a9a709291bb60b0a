"""Loading pickled tensors without carrying out anything that a file asks for."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path
from typing import IO, Any

import torch

from bc2_ckpt.errors import DamagedFileError, UnsafeFileError
from bc2_ckpt.files import refuse_placeholder

_ZIP_MAGIC = b"PK\x03\x04"


def load_file(path: Path) -> Any:
    """Loads a file that torch.save wrote; its tensors are mapped, not read, where that is possible.

    Raises:
        DamagedFileError: The file is missing, cut short or no such file.
        UnsafeFileError: It asks for more than tensors and plain values.
    """
    refuse_placeholder(path)
    with open(path, "rb") as file:
        is_zip = file.read(len(_ZIP_MAGIC)) == _ZIP_MAGIC
    if is_zip:
        _refuse_compressed(path)
    # Files of torch before 1.6 are no zip archives and cannot be mapped.
    return _load(str(path), str(path), mmap=is_zip)


def load_stream(stream: IO[bytes], where: str) -> Any:
    """Loads what torch.save wrote into part of a file.

    Args:
        stream: A seekable stream of just that part.
        where: What it is, for errors.

    Raises:
        DamagedFileError: The part is cut short or was not written by torch.save.
        UnsafeFileError: It asks for more than tensors and plain values.
    """
    return _load(stream, where, mmap=False)


def _refuse_compressed(path: Path) -> None:
    """Raises where an archive was packed anew: torch would map compressed bytes as weights."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except (zipfile.BadZipFile, ValueError) as error:
        raise _cut_short(str(path)) from error
    if any(member.compress_type != zipfile.ZIP_STORED for member in members):
        raise DamagedFileError(
            f"{path} is compressed, which no file that torch wrote is",
            "load it with torch.load and save it again with torch.save",
        )


def _load(source: str | IO[bytes], where: str, mmap: bool) -> Any:
    try:
        return torch.load(source, map_location="cpu", weights_only=True, mmap=mmap)
    # A damaged or hostile pickle can raise anything on its way.
    except Exception as error:
        refused = re.search(r"GLOBAL (\S+)", str(error))
        if refused:
            raise UnsafeFileError(
                f"{where} asks for {refused[1]}, which is no data; nothing of it was carried out",
                "do not use this file unless you know who made it",
            ) from error
        raise _cut_short(where) from error


def _cut_short(where: str) -> DamagedFileError:
    return DamagedFileError(
        f"{where} cannot be read: it is cut short or damaged", "download or copy it again"
    )
