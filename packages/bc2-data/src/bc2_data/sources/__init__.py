"""Where rows come from: files by their ending, folders of such files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bc2_data.errors import DataError, nearest
from bc2_data.sources.base import Batch, BrokenRow, Row, Source, place

__all__ = ["ENDINGS", "Batch", "BrokenRow", "Row", "Source", "open_sources", "place"]

ENDINGS = (".parquet", ".jsonl", ".json")


def open_sources(inputs: Sequence[Path]) -> list[Source]:
    """Returns one source a file, in the order given; the files of a folder are sorted by name.

    Args:
        inputs: Files, and folders whose files with a known ending are read, subfolders included.

    Raises:
        DataError: A path does not exist, is empty, or has an unknown ending; a folder holds no
            data file or files of several types.
    """
    return [_source(file) for path in inputs for file in _files(path)]


def _source(path: Path) -> Source:
    if path.stat().st_size == 0:
        raise DataError(f"{path} is empty", "leave the file out, or download it anew")
    match path.suffix.lower():
        case ".parquet":
            from bc2_data.sources.parquet import ParquetSource  # pyarrow takes a second to load

            return ParquetSource(path)
        case ".jsonl":
            from bc2_data.sources.jsonl import JsonLinesSource

            return JsonLinesSource(path)
        case ".json":
            from bc2_data.sources.json import JsonSource

            return JsonSource(path)
        case _:
            raise DataError(
                f"{path}: the ending {path.suffix!r} is unknown", f"known: {', '.join(ENDINGS)}"
            )


def _files(path: Path) -> list[Path]:
    if path.is_dir():
        return _files_in(path)
    if not path.exists():
        parent = path.parent
        siblings = [entry.name for entry in parent.iterdir()] if parent.is_dir() else []
        raise DataError(
            f"{path} does not exist",
            nearest(path.name, siblings) if 0 < len(siblings) <= 20 else f"look into {parent}",
        )
    return [path]


def _files_in(folder: Path) -> list[Path]:
    files = sorted(
        file
        for file in folder.rglob("*")
        if file.suffix.lower() in ENDINGS
        and file.is_file()
        and not any(part.startswith(".") for part in file.relative_to(folder).parts)
    )
    found = {file.suffix.lower() for file in files}
    if not found:
        raise DataError(f"{folder} holds no data file", f"known endings: {', '.join(ENDINGS)}")
    if len(found) > 1:
        raise DataError(
            f"{folder} holds files of several types: {', '.join(sorted(found))}",
            "name the files that are meant",
        )
    return files
