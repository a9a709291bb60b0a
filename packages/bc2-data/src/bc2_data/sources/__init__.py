"""Where rows come from: one file for each format, and what they share.

`discovery` finds the files, `location` and `stored` open them, a `Source` reads their rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bc2_data.sources.base import (
    MAX_ROW_BYTES,
    PART_BYTES,
    Batch,
    BrokenRow,
    Row,
    Source,
)
from bc2_data.sources.discovery import find_files
from bc2_data.sources.location import Location

__all__ = [
    "MAX_ROW_BYTES",
    "PART_BYTES",
    "Batch",
    "BrokenRow",
    "Location",
    "Row",
    "Source",
    "open_sources",
]


def open_sources(inputs: Sequence[str | Path], max_row_bytes: int = MAX_ROW_BYTES) -> list[Source]:
    """Returns one source for each file, or for each member of an archive.

    Args:
        inputs: Files and folders, by path or URL, and patterns such as ``data/*.jsonl.gz``. Of a
            folder and its subfolders those files are read whose names have a known ending.
        max_row_bytes: Larger rows are not read; they are given as broken.

    Raises:
        DataError: See `bc2_data.sources.discovery.find_files`.
    """
    return [
        _source_type(format_)(file, max_row_bytes)
        for format_, file in find_files(str(address) for address in inputs)
    ]


def _source_type(format_: str) -> type[Source]:
    """Returns the class for an ending; its imports wait until they are needed."""
    match format_:
        case ".parquet":
            from bc2_data.sources.parquet import ParquetSource

            return ParquetSource
        case ".arrow" | ".feather":
            from bc2_data.sources.arrow import ArrowSource

            return ArrowSource
        case ".jsonl":
            from bc2_data.sources.jsonl import JsonLinesSource

            return JsonLinesSource
        case ".json":
            from bc2_data.sources.json import JsonSource

            return JsonSource
        case ".csv":
            from bc2_data.sources.csv import CsvSource

            return CsvSource
        case ".txt":
            from bc2_data.sources.txt import TextSource

            return TextSource
        case _:
            raise AssertionError(f"discovery gave {format_}, which no source reads")
