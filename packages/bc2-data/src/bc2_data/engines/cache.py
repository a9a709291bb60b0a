"""Files made of other files, kept in the user's cache directory; deleting them costs time only."""

from __future__ import annotations

import os
import tempfile
from contextlib import suppress
from pathlib import Path


def cache_file(name: str) -> Path:
    """Returns where a file of that name is kept: ``$XDG_CACHE_HOME/bc2`` or ``~/.cache/bc2``."""
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "bc2" / name


def store(path: Path, text: str) -> None:
    """Writes a cache file whole or, where the directory cannot be written, not at all.

    Several processes may store the same file at the same time.
    """
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, partial = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        try:
            with open(descriptor, "w", encoding="utf-8") as file:
                file.write(text)
            os.replace(partial, path)
        except OSError:
            os.unlink(partial)
            raise
