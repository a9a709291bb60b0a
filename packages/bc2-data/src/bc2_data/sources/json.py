"""JSON: an array of objects, or objects one after another, read piece by piece."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar, TextIO

from bc2_data.errors import DataError
from bc2_data.sources.base import Batch, BrokenRow, Row, batched, refuse_foreign, wrong_type

_CHUNK = 1 << 20
_WHITESPACE = " \t\n\r"

# How far before the end of the text read so far a parser may stumble merely because a token
# (``-Infinity``, ``\\ud83d\\ude00``) is cut there.
_LONGEST_CUT_TOKEN = 16


class JsonSource:
    """Reads a .json file in memory bounded by its largest object."""

    format: ClassVar[str] = "JSON"
    unit: ClassVar[str] = "row"

    def __init__(self, path: Path) -> None:
        self.path = path

    def batches(self, columns: Sequence[str]) -> Iterator[Batch]:
        """Yields all rows.

        Raises:
            DataError: The text is no JSON from some line on; what follows cannot be told apart.
        """
        del columns  # an object is parsed whole
        refuse_foreign(self.path, self.format)
        return batched(self._rows())

    def _rows(self) -> Iterator[tuple[Row | BrokenRow, int]]:
        with (
            open(self.path, "rb") as raw,
            io.TextIOWrapper(raw, encoding="utf-8-sig") as file,
        ):
            scanner = _Scanner(self.path, file)
            done = 0
            try:
                for number, value in enumerate(_values(self.path, scanner), start=1):
                    position = raw.tell()
                    yield _row(number, value), position - done
                    done = position
            except UnicodeDecodeError as error:
                raise wrong_type(
                    self.path, self.format, f"bytes that are no UTF-8 ({error})"
                ) from (error)


def _row(number: int, value: Any) -> Row | BrokenRow:
    if isinstance(value, dict):
        return Row(number, value)
    return BrokenRow(number, f"a JSON {type(value).__name__}, not an object")


def _values(path: Path, scanner: _Scanner) -> Iterator[Any]:
    opening = scanner.peek()
    if opening == "":
        return
    if opening == "[":
        yield from _elements(scanner)
    elif opening == "{":
        while scanner.peek() == "{":
            yield scanner.value()
    else:
        raise wrong_type(path, "JSON", f"text that begins with {opening!r}")
    if scanner.peek():
        raise scanner.broken("unexpected text after the last row")


def _elements(scanner: _Scanner) -> Iterator[Any]:
    scanner.skip()
    if scanner.peek() == "]":
        scanner.skip()
        return
    while True:
        yield scanner.value()
        mark = scanner.peek()
        if mark not in ("]", ","):
            raise scanner.broken("a comma or ] is missing")
        scanner.skip()
        if mark == "]":
            return


class _Scanner:
    """Takes JSON values off the front of a text file."""

    def __init__(self, path: Path, file: TextIO) -> None:
        self._path = path
        self._file = file
        self._decoder = json.JSONDecoder()
        self._text = ""
        self._position = 0
        self._line = 1  # of the first character in _text

    def peek(self) -> str:
        """Returns the next character that is no white space, "" at the end."""
        while True:
            while self._position < len(self._text):
                character = self._text[self._position]
                if character not in _WHITESPACE:
                    return character
                self._position += 1
            if not self._read_more():
                return ""

    def skip(self) -> None:
        """Goes past the character that `peek` returned."""
        self._position += 1

    def value(self) -> Any:
        """Takes the next value off."""
        self.peek()
        while True:
            try:
                value, end = self._decoder.raw_decode(self._text, self._position)
            except json.JSONDecodeError as error:
                if self._may_be_cut(error) and self._read_more():
                    continue
                raise self.broken(error.msg, error.pos) from error
            except RecursionError as error:
                raise self.broken("nested too deeply") from error
            if end == len(self._text) and self._read_more():
                continue  # a number may go on
            self._position = end
            return value

    def broken(self, why: str, position: int | None = None) -> DataError:
        end = self._position if position is None else position
        line = self._line + self._text.count("\n", 0, end)
        return DataError(
            f"{self._path}:{line}: no JSON: {why}",
            "mend the file; in JSON Lines (.jsonl) one broken row does not stop the others",
        )

    def _may_be_cut(self, error: json.JSONDecodeError) -> bool:
        unterminated = error.msg.startswith("Unterminated string")
        return unterminated or error.pos >= len(self._text) - _LONGEST_CUT_TOKEN

    def _read_more(self) -> bool:
        """Appends to the text; twice as much each time, so that a huge value costs linear time."""
        rest = self._text[self._position :]
        chunk = self._file.read(max(_CHUNK, len(rest)))
        if not chunk:
            return False
        self._line += self._text.count("\n", 0, self._position)
        self._text = rest + chunk
        self._position = 0
        return True
