"""CSV: what the standard library makes of it, record by record."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bc2_data.errors import DataError
from bc2_data.sources import BrokenRow, Row, open_sources
from bc2_data.sources import stream as stream_module

ReadRows = Callable[..., list[Row | BrokenRow]]


@given(
    rows=st.lists(st.lists(st.text('ab,"\n\r é中', max_size=6), min_size=2, max_size=2)),
    # With "\n" the library's minimal quoting forgets that a "\r" needs quotes.
    dialect=st.sampled_from(
        [(csv.QUOTE_MINIMAL, "\r\n"), (csv.QUOTE_ALL, "\r\n"), (csv.QUOTE_ALL, "\n")]
    ),
)
def test_what_a_writer_wrote_is_read(
    read_rows: ReadRows, rows: list[list[str]], dialect: tuple[int, str]
) -> None:
    file = io.StringIO(newline="")
    quoting, end = dialect
    writer = csv.writer(file, quoting=quoting, lineterminator=end)
    writer.writerows([["text", "other"], *rows])
    found = read_text(read_rows, file.getvalue())
    assert [list(row.fields.values()) for row in found if isinstance(row, Row)] == rows
    assert len(found) == len(rows)


@given(text=st.text('a,"\n é', min_size=1, max_size=30), block=st.integers(1, 9))
@example(text='a"b\n"c"d,\n"', block=1)
def test_records_end_where_the_standard_library_ends_them(
    read_rows: ReadRows, text: str, block: int
) -> None:
    """Whatever the text is: stray quotes, quotes that do not end, any pieces it is read in."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stream_module.ByteStream.read, "__defaults__", (block,))
        found = read_text(read_rows, "x\n" + text)
    expected = [record for record in csv.reader(io.StringIO(text, newline="")) if record]
    values = [list(row.fields.values()) for row in found if isinstance(row, Row)]
    unended = [row for row in found if isinstance(row, BrokenRow) and "end" in row.why]
    if unended:  # the library gives what there is
        expected.pop()
    assert values == [record for record in expected if len(record) == 1]
    assert len(found) == len(expected) + len(unended)


def test_broken_records_do_not_stop_the_others(tmp_path: Path, read_rows: ReadRows) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(
        b"\xef\xbb\xbftext,n\r\n"
        b'"two\nlines",1\r\n'
        b"\r\n"
        b"short\n"
        b"one,two,three\n"
        b"\xff,2\n"
        b"return\ralone,3\n"
        b'say "hi",4\n'
        b"last,"
    )
    rows = read_rows(path)
    assert rows[:3] == [
        Row(2, {"text": "two\nlines", "n": "1"}),
        Row(9, {"text": 'say "hi"', "n": "4"}),
        Row(10, {"text": "last", "n": ""}),
    ]
    broken = [row for row in rows[3:] if isinstance(row, BrokenRow)]
    assert [row.number for row in broken] == [5, 6, 7, 8]
    assert broken[0].why == "1 fields, the header has 2"
    assert broken[1].why == "3 fields, the header has 2"
    assert "no UTF-8" in broken[2].why
    assert "no CSV" in broken[3].why


def test_a_field_may_be_as_large_as_a_row(tmp_path: Path, read_rows: ReadRows) -> None:
    path = tmp_path / "a.csv"
    text = "one,\n" * 100_000  # the library's own limit is 131,072 characters
    path.write_text(f'text\n"{text}"\n')
    assert read_rows(path) == [Row(2, {"text": text})]


def test_a_quote_that_does_not_end(tmp_path: Path, read_rows: ReadRows) -> None:
    path = tmp_path / "a.csv"
    path.write_text('text\none\n"two\nthree\n')
    assert read_rows(path) == [
        Row(2, {"text": "one"}),
        BrokenRow(3, "a quoted field does not end"),
    ]


@pytest.mark.parametrize(
    "content", [b"\n", b"a,a\n1,2\n", b'"a\nb', b"\xe9\n", b"a\rb\n", b"x" * 100 + b"\n"]
)
def test_a_header_that_is_none(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(content)
    (source,) = open_sources([path], max_row_bytes=50)
    with pytest.raises(DataError, match=r"a\.csv:1: the first line names no columns"):
        list(source.batches(("text",)))


def test_a_header_alone_has_no_rows(tmp_path: Path, read_rows: ReadRows) -> None:
    (tmp_path / "a.csv").write_text("text")
    assert read_rows(tmp_path / "a.csv") == []


def read_text(read_rows: ReadRows, text: str) -> list[Row | BrokenRow]:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "a.csv"
        path.write_bytes(text.encode())
        return read_rows(path)
