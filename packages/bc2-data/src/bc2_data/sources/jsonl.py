"""JSON Lines: one object a line."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import ClassVar

from bc2_data.sources.base import Batch, BrokenRow, Row, batched, refuse_foreign, wrong_type

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class JsonLinesSource:
    """Reads a .jsonl file; a line that is no JSON object is a broken row."""

    format: ClassVar[str] = "JSON Lines"
    unit: ClassVar[str] = "line"

    def __init__(self, path: Path) -> None:
        self.path = path

    def batches(self, columns: Sequence[str]) -> Iterator[Batch]:
        """Yields all rows; blank lines are none."""
        del columns  # a line is parsed whole
        refuse_foreign(self.path, self.format)
        return batched(self._rows())

    def _rows(self) -> Iterator[tuple[Row | BrokenRow, int]]:
        first = True
        with open(self.path, "rb") as file:
            for number, line in enumerate(file, start=1):
                text = line.removeprefix(_BYTE_ORDER_MARK) if number == 1 else line
                if text.isspace() or not text:
                    continue
                if first and text.lstrip().startswith(b"["):
                    raise wrong_type(self.path, self.format, "a JSON array")
                first = False
                yield _parse(number, text), len(line)


def _parse(number: int, line: bytes) -> Row | BrokenRow:
    try:
        value = json.loads(line.rstrip(b"\r\n").decode("utf-8"))
    except json.JSONDecodeError as error:
        return BrokenRow(number, f"no JSON: column {error.colno}: {error.msg}")
    except (UnicodeDecodeError, RecursionError) as error:
        return BrokenRow(number, f"no JSON: {error}")
    except ValueError as error:  # an integer of thousands of digits
        return BrokenRow(number, f"no readable JSON: {error}")
    if not isinstance(value, dict):
        return BrokenRow(number, f"a JSON {type(value).__name__}, not an object")
    return Row(number, value)
