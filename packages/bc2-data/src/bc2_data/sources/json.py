"""JSON: an array of objects, or objects one after another, read piece by piece."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from bc2_data.errors import DataError
from bc2_data.sources.base import Batch, BrokenRow, Row, Source, batched, too_large
from bc2_data.sources.stored import StoredFile
from bc2_data.sources.stream import ByteStream

_CHUNK = 1 << 20
_NO_SPACE = re.compile(r"[^ \t\n\r]")
_MARK = re.compile(r'\\.|["{}\[\]]', re.DOTALL)

# How far before the end of the text read so far a parser may stumble merely because a token
# (``-Infinity``, ``\\ud83d\\ude00``) is cut there.
_LONGEST_CUT_TOKEN = 16

_Numbered = tuple[Row | BrokenRow, int]


@dataclass(frozen=True)
class JsonSource(Source):
    """Reads a .json file; in memory is no more than one object, of `max_row_bytes` at most."""

    format: ClassVar[str] = "JSON"
    unit: ClassVar[str] = "row"

    def batches(self, columns: Sequence[str]) -> Iterator[Batch]:
        """Yields all rows.

        Raises:
            DataError: The text is no JSON from some line on; what follows cannot be told apart.
        """
        del columns  # an object is parsed whole
        with self.file.stream(self.format) as stream:
            scanner = _Scanner(self.file, stream, self.max_row_bytes)
            yield from batched(self._rows(scanner), stream.position)

    def _rows(self, scanner: _Scanner) -> Iterator[_Numbered]:
        opening = scanner.peek()
        if opening == "[":
            yield from _elements(scanner)
        elif opening == "{":
            while scanner.peek() == "{":
                yield scanner.row()
        elif opening:
            raise self.file.mismatch(self.format, f"text that begins with {opening!r}")
        if scanner.peek():
            raise scanner.broken("unexpected text after the last row")


def _elements(scanner: _Scanner) -> Iterator[_Numbered]:
    scanner.skip()
    if scanner.peek() == "]":
        scanner.skip()
        return
    while True:
        yield scanner.row()
        mark = scanner.peek()
        if mark not in ("]", ","):
            raise scanner.broken("a comma or ] is missing")
        scanner.skip()
        if mark == "]":
            return


class _Scanner:
    """Takes JSON values off the front of a file.

    Bytes that are no UTF-8 are kept as lone surrogates, which only they can give, so that one of
    them spoils its own row alone.

    Args:
        file: The file, for errors.
        stream: Its bytes.
        limit: The most bytes of a value.
    """

    def __init__(self, file: StoredFile, stream: ByteStream, limit: int) -> None:
        self._file = file
        self._stream = stream
        self._limit = limit
        self._utf8 = codecs.getincrementaldecoder("utf-8-sig")(errors="surrogateescape")
        self._json = json.JSONDecoder()
        self._text = ""
        self._position = 0
        self._line = 1  # of the first character in _text
        self._ended = False  # whether _text holds the end of the file
        self._number = 0

    def peek(self) -> str:
        """Returns the next character that is no white space, "" at the end."""
        while True:
            found = _NO_SPACE.search(self._text, self._position)
            if found:
                self._position = found.start()
                return found[0]
            self._position = len(self._text)
            if self._ended:
                return ""
            self._read_more()

    def skip(self) -> None:
        """Goes past the character that `peek` returned."""
        self._position += 1

    def row(self) -> _Numbered:
        """Takes the next value off, with the bytes that it has."""
        self.peek()
        self._number += 1
        try:
            while (parsed := self._parse()) is None:
                if len(self._text) - self._position > self._limit:
                    return too_large(self._number, self._pass_over(), self._limit), 0
                self._read_more()
        except (RecursionError, ValueError) as error:  # thousands of levels, or of digits
            self._pass_over()
            return BrokenRow(self._number, f"no readable JSON: {error}"), 0
        value, end = parsed
        text, self._position = self._text[self._position : end], end
        return self._checked(value, text)

    def broken(self, why: str, position: int | None = None) -> DataError:
        """Returns the error of a file that is no JSON from here on."""
        end = self._position if position is None else position
        line = self._line + self._text.count("\n", 0, end)
        return DataError(
            f"{self._file}:{line}: no JSON: {why}",
            "mend the file; in JSON Lines (.jsonl) one broken row does not stop the others",
        )

    def _parse(self) -> tuple[Any, int] | None:
        """Returns the next value and its end in the text; None where the text must go on."""
        try:
            value, end = self._json.raw_decode(self._text, self._position)
        except json.JSONDecodeError as error:
            if not self._ended and self._may_be_cut(error):
                return None
            raise self.broken(error.msg, error.pos) from error
        if end == len(self._text) and not self._ended:
            return None  # a number may go on
        return value, end

    def _checked(self, value: Any, text: str) -> _Numbered:
        try:
            size = len(text.encode("utf-8"))
        except UnicodeEncodeError as error:
            byte = ord(text[error.start]) - 0xDC00
            return BrokenRow(self._number, f"no UTF-8: byte 0x{byte:02x}"), 0
        if size > self._limit:
            return too_large(self._number, size, self._limit), 0
        if not isinstance(value, dict):
            return BrokenRow(self._number, f"a JSON {type(value).__name__}, not an object"), 0
        return Row(self._number, value), size

    def _pass_over(self) -> int:
        """Goes past a value without holding or parsing it, and returns its bytes.

        Raises:
            DataError: The file ends first.
        """
        if self._text[self._position] not in '"{[':
            raise self.broken("a number of thousands of digits")
        size, depth, in_string = 0, 0, False
        while True:
            start = self._position
            for mark in _MARK.finditer(self._text, start):
                self._position = mark.end()
                if mark[0] == '"':
                    in_string = not in_string
                elif not in_string and mark[0] in "{}[]":
                    depth += 1 if mark[0] in "{[" else -1
                if depth == 0 and not in_string:
                    return size + self._bytes_from(start)
            # A backslash at the very end waits for what it escapes.
            cut = self._position < len(self._text) and self._text.endswith("\\")
            self._position = len(self._text) - cut
            size += self._bytes_from(start)
            if self._ended:
                raise self.broken("the last value does not end")
            self._read_more()

    def _bytes_from(self, start: int) -> int:
        return len(self._text[start : self._position].encode("utf-8", "surrogateescape"))

    def _may_be_cut(self, error: json.JSONDecodeError) -> bool:
        unterminated = error.msg.startswith("Unterminated string")
        return unterminated or error.pos >= len(self._text) - _LONGEST_CUT_TOKEN

    def _read_more(self) -> None:
        """Appends to the text; twice as much each time, so that a huge value costs linear time."""
        rest = self._text[self._position :]
        block = self._stream.read(max(_CHUNK, len(rest)))
        self._ended = not block
        self._line += self._text.count("\n", 0, self._position)
        self._text = rest + self._utf8.decode(block, final=self._ended)
        self._position = 0
