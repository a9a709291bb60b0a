"""The small text files of a checkpoint, and what may stand in a file's place; needs no torch."""

from __future__ import annotations

import json
from pathlib import Path, PurePosixPath
from typing import Any, TypeGuard

from bc2_ckpt.errors import DamagedFileError

LFS_MAGIC = b"version https://git-lfs"


def refuse_placeholder(path: Path) -> None:
    """Raises where a file is missing, empty, a web page or a Git LFS pointer.

    Raises:
        DamagedFileError: Says which of these it is and how to get the file itself.
    """
    if not path.is_file():
        raise DamagedFileError(f"{path} is missing", "download or copy it again")
    with open(path, "rb") as file:
        start = file.read(512)
    if not start:
        raise DamagedFileError(f"{path} is empty", "download or copy it again")
    if start.startswith(LFS_MAGIC):
        raise DamagedFileError(
            f"{path} is a Git LFS pointer, not the file itself",
            "run `git lfs pull` where it was cloned",
        )
    if start.lstrip().lower().startswith((b"<!doctype html", b"<html")):
        raise DamagedFileError(
            f"{path} is a web page, not the file itself",
            "a download through a /blob/ URL saves a web page: use /resolve/ instead",
        )


def is_inside(name: object) -> TypeGuard[str]:
    """Whether something is a relative path that stays inside the folder where it starts."""
    if not isinstance(name, str):
        return False
    path = PurePosixPath(name)
    return bool(path.parts) and not path.is_absolute() and ".." not in path.parts


def read_json(path: Path) -> dict[str, Any]:
    """Reads a JSON object.

    Raises:
        DamagedFileError: The file is missing, no JSON, or holds something else than an object.
    """
    refuse_placeholder(path)
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DamagedFileError(
            f"{path} is not JSON: {error}", "download or copy it again"
        ) from error
    if not isinstance(value, dict):
        raise DamagedFileError(f"{path} holds no JSON object", "download or copy it again")
    return value


def write_json(path: Path, value: object) -> None:
    """Writes JSON as Hugging Face lays it out."""
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
