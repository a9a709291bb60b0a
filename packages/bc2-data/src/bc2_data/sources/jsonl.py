"""JSON Lines: one object a line."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import ClassVar

from bc2_data.sources.base import BrokenRow, Row
from bc2_data.sources.lines import LinesSource


@dataclass(frozen=True)
class JsonLinesSource(LinesSource):
    """Reads a .jsonl file; a line that is no JSON object is a broken row, a blank line is none."""

    format: ClassVar[str] = "JSON Lines"

    def check_head(self, head: bytes) -> None:
        """Refuses a JSON array, which is better read as one."""
        if head.lstrip().startswith(b"["):
            raise self.file.mismatch(self.format, "a JSON array")

    def parse(self, number: int, line: bytes) -> Row | BrokenRow | None:
        """Returns the object of a line."""
        if not line or line.isspace():
            return None
        try:
            value = json.loads(line.decode("utf-8"))
        except json.JSONDecodeError as error:
            return BrokenRow(number, f"no JSON: column {error.colno}: {error.msg}")
        except (UnicodeDecodeError, RecursionError) as error:
            return BrokenRow(number, f"no JSON: {error}")
        except ValueError as error:  # an integer of thousands of digits
            return BrokenRow(number, f"no readable JSON: {error}")
        if not isinstance(value, dict):
            return BrokenRow(number, f"a JSON {type(value).__name__}, not an object")
        return Row(number, value)
