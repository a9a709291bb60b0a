"""Plain text: one row a line, as the ``text`` loader of Hugging Face datasets has it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from bc2_data.sources.base import BrokenRow, Row
from bc2_data.sources.lines import LinesSource

COLUMN = "text"


@dataclass(frozen=True)
class TextSource(LinesSource):
    """Reads a .txt file; each line, without its end, is the field ``text`` of a row."""

    format: ClassVar[str] = "plain text"

    def parse(self, number: int, line: bytes) -> Row | BrokenRow:
        """Returns the line; an empty line is a row too."""
        try:
            return Row(number, {COLUMN: line.removesuffix(b"\r").decode("utf-8")})
        except UnicodeDecodeError as error:
            return BrokenRow(number, f"no UTF-8: {error}")
