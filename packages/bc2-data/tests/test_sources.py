"""Every format, and the ways to name files."""

from __future__ import annotations

import gzip
import json
import os
import pickle
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bc2_data.errors import DataError
from bc2_data.sources import BrokenRow, Row, open_sources

ReadRows = Callable[..., list[Row | BrokenRow]]

ROWS: list[dict[str, Any]] = [
    {"text": "first  "},
    {"text": '中文 "quoted", ok'},
    {"text": "third"},
]
FORMATS = (".jsonl", ".json", ".csv", ".txt", ".parquet", ".arrow", ".feather")


def encoded(ending: str, rows: list[dict[str, Any]]) -> bytes:
    """Returns a file of one format."""
    lines = [json.dumps(row) for row in rows]
    table = pa.Table.from_pylist(rows)
    sink = pa.BufferOutputStream()
    match ending:
        case ".jsonl":
            return "".join(f"{line}\n" for line in lines).encode()
        case ".json":
            return json.dumps(rows, indent=1).encode()
        case ".csv":
            quoted = ['"{}"\n'.format(row["text"].replace('"', '""')) for row in rows]
            return ("text\n" + "".join(quoted)).encode()
        case ".txt":
            return "\n".join(row["text"] for row in rows).encode()
        case ".parquet":
            pq.write_table(table, sink, row_group_size=400)
        case ".arrow":
            with pa.ipc.new_stream(sink, table.schema) as writer:
                writer.write_table(table, 700)
        case ".feather":
            with pa.ipc.new_file(sink, table.schema) as writer:
                writer.write_table(table, 700)
    return sink.getvalue().to_pybytes()


def numbered(rows: list[dict[str, Any]], first: int = 1) -> list[Row]:
    return [Row(number, row) for number, row in enumerate(rows, first)]


@pytest.mark.parametrize("ending", [*FORMATS, ".JSONL"])
def test_rows_come_as_written(tmp_path: Path, read_rows: ReadRows, ending: str) -> None:
    path = tmp_path / f"a{ending}"
    path.write_bytes(encoded(ending.lower(), ROWS))
    assert read_rows(path) == numbered(ROWS, first=2 if ending == ".csv" else 1)


@pytest.mark.parametrize("ending", FORMATS)
def test_many_rows_keep_their_numbers_and_sizes_add_up(tmp_path: Path, ending: str) -> None:
    rows = [{"text": f"row {number} " * 9} for number in range(1, 1301)]
    path = tmp_path / f"a{ending}"
    path.write_bytes(encoded(ending, rows))
    (source,) = open_sources([path])
    batches = list(source.batches(("text",)))
    assert [row for batch in batches for row in batch.rows] == numbered(
        rows, first=2 if ending == ".csv" else 1
    )
    assert len(batches) > 2
    mark = 8 if ending == ".arrow" else 0  # the end of a stream is none of its rows
    assert sum(batch.size for batch in batches) == path.stat().st_size - mark


@pytest.mark.parametrize("ending", FORMATS)
def test_a_source_travels_to_another_process(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"a{ending}"
    path.write_bytes(encoded(ending, ROWS))
    (source,) = open_sources([path], max_row_bytes=1234)
    copy = pickle.loads(pickle.dumps(source))
    assert copy == source
    assert copy.max_row_bytes == 1234
    assert list(copy.batches(("text",))) == list(source.batches(("text",)))


@pytest.mark.parametrize("ending", FORMATS)
@pytest.mark.parametrize(
    ("content", "what"),
    [
        (gzip.compress(b"{}"), "a gzip archive"),
        (b"PK\x03\x04rest", "a zip archive"),
        (b"<!DOCTYPE html>\n<html>", "an HTML page"),
        (b"version https://git-lfs.github.com/spec/v1", "a Git LFS pointer"),
        ("text".encode("utf-16"), "UTF-16 text"),
    ],
)
def test_content_that_contradicts_the_ending(
    tmp_path: Path, read_rows: ReadRows, ending: str, content: bytes, what: str
) -> None:
    path = tmp_path / f"a{ending}"
    path.write_bytes(content)
    with pytest.raises(DataError, match=f"holds {what}, not") as caught:
        read_rows(path)
    assert caught.value.hint


def test_one_format_under_the_name_of_another(tmp_path: Path, read_rows: ReadRows) -> None:
    for name, ending, message in [
        ("a.jsonl", ".parquet", "holds a parquet file, not JSON Lines"),
        ("b.jsonl", ".json", "holds a JSON array, not JSON Lines"),
        ("c.parquet", ".json", "is no parquet file"),
        ("d.arrow", ".parquet", "holds a parquet file, not arrow"),
        ("e.parquet", ".feather", "holds an arrow file, not parquet"),
        ("f.arrow", ".jsonl", "is no arrow file"),
        ("g.json", ".csv", "holds text that begins with 't', not JSON"),
    ]:
        (tmp_path / name).write_bytes(encoded(ending, ROWS))
        with pytest.raises(DataError, match=message):
            read_rows(tmp_path / name)


def test_broken_lines_do_not_stop_the_others(tmp_path: Path, read_rows: ReadRows) -> None:
    path = tmp_path / "a.jsonl"
    lines = [
        b'\xef\xbb\xbf{"text": "a"}',
        b"",
        b'{"text": "cut',
        b"[1, 2]",
        b'{"text": "\xff"}',
        b"[" * 100_000,
        b"9" * 5_000,
        b'{"text": "b"}\r',
        b'{"text": null}',
    ]
    path.write_bytes(b"\n".join(lines))
    rows = read_rows(path)
    assert rows[:3] == [Row(1, {"text": "a"}), Row(8, {"text": "b"}), Row(9, {"text": None})]
    broken = [row for row in rows[3:] if isinstance(row, BrokenRow)]
    assert [row.number for row in broken] == [3, 4, 5, 6, 7]
    assert {row.reason for row in broken} == {"bad_row"}
    assert broken[0].why == "no JSON: column 10: Unterminated string starting at"
    assert broken[1].why == "a JSON list, not an object"
    assert "utf-8" in broken[2].why


def test_every_line_of_a_text_is_a_row(tmp_path: Path, read_rows: ReadRows) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"\xef\xbb\xbf  one\r\n\ntwo\x0b\xe2\x80\xa8still two\n\xff\nlast\r")
    rows = read_rows(path)
    texts = ["  one", "", "two\x0b\u2028still two", "last"]
    numbers = [1, 2, 3, 5]
    assert rows[:4] == [Row(n, {"text": text}) for n, text in zip(numbers, texts, strict=True)]
    assert isinstance(rows[4], BrokenRow)
    assert rows[4].number == 4
    assert "no UTF-8" in rows[4].why


def test_a_folder_is_read_in_order_of_names(tmp_path: Path, read_rows: ReadRows) -> None:
    for name in ("b.jsonl", "a/z.jsonl", "a/y.jsonl", ".hidden/x.jsonl", "README.md"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps({"text": name}))
    assert texts(read_rows(tmp_path)) == ["a/y.jsonl", "a/z.jsonl", "b.jsonl"]


def test_links_within_a_folder_are_followed_once(tmp_path: Path, read_rows: ReadRows) -> None:
    (tmp_path / "in" / "part").mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    for name in ("in/part/a.jsonl", "elsewhere/b.jsonl"):
        (tmp_path / name).write_text(json.dumps({"text": name}))
    (tmp_path / "in" / "link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "in" / "part" / "round").symlink_to(tmp_path / "in")
    assert texts(read_rows(tmp_path / "in")) == ["elsewhere/b.jsonl", "in/part/a.jsonl"]
    (tmp_path / "in" / "c.jsonl").symlink_to(tmp_path / "gone")
    with pytest.raises(DataError, match=r"in/c\.jsonl does not exist"):
        open_sources([tmp_path / "in"])


def test_patterns(tmp_path: Path, read_rows: ReadRows, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("1/b.jsonl", "1/a.jsonl", "2/c.jsonl", "2/d.json", "[x]*.jsonl"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps({"text": name}))
    monkeypatch.chdir(tmp_path)
    assert texts(read_rows("*/*.jsonl")) == ["1/a.jsonl", "1/b.jsonl", "2/c.jsonl"]
    assert texts(read_rows("**/c.jsonl", "1/[b]*")) == ["2/c.jsonl", "1/b.jsonl"]
    assert texts(read_rows("[1]")) == ["1/a.jsonl", "1/b.jsonl"]  # a folder
    assert texts(read_rows("[x]*.jsonl")) == ["[x]*.jsonl"]  # a file of that very name
    with pytest.raises(DataError, match=r"no file matches nothing-\*\.jsonl"):
        open_sources(["nothing-*.jsonl"])


def test_inputs_that_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "data.jsonl").write_text("{}")
    with pytest.raises(DataError, match=r"dat\.jsonl does not exist") as caught:
        open_sources([tmp_path / "dat.jsonl"])
    assert "data.jsonl" in caught.value.hint
    for name in ("notes.docx", "data.gz", "data.tar.gz", "data.jsonl.bz2", "data"):
        (tmp_path / name).write_text("x")
        with pytest.raises(DataError, match=f"{name}: the ending '.*' is unknown") as caught:
            open_sources([tmp_path / name])
        assert ".jsonl" in caught.value.hint
    (tmp_path / "none.jsonl").touch()
    with pytest.raises(DataError, match=r"none\.jsonl is empty"):
        open_sources([tmp_path / "none.jsonl"])
    (tmp_path / "folder").mkdir()
    with pytest.raises(DataError, match="holds no file of rows"):
        open_sources([tmp_path / "folder"])
    (tmp_path / "other.json").write_text("[]")
    with pytest.raises(DataError, match=r"several types: \.json, \.jsonl"):
        open_sources([tmp_path])


@pytest.fixture
def guarded() -> Iterator[Path]:
    """A folder, seen by somebody who is not root, since root may read everything."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        for file in ("open.jsonl", "closed.jsonl", "inner/a.jsonl"):
            (folder / file).parent.mkdir(exist_ok=True)
            (folder / file).write_text("{}")
        (folder / "closed.jsonl").chmod(0)
        (folder / "inner").chmod(0)
        user = os.geteuid()
        if user == 0:
            os.seteuid(65534)
        try:
            yield folder
        finally:
            os.seteuid(user)
            (folder / "inner").chmod(0o755)


def test_what_may_not_be_read_is_never_left_out(guarded: Path, read_rows: ReadRows) -> None:
    assert read_rows(guarded / "open.jsonl") == [Row(1, {})]
    for address, message in [
        (guarded / "closed.jsonl", r"closed\.jsonl may not be read: Permission denied"),
        (guarded / "inner" / "a.jsonl", r"a\.jsonl may not be read: Permission denied"),
        (guarded / "inner", "inner may not be read: Permission denied"),
        (guarded, "may not be read: Permission denied"),
    ]:
        with pytest.raises(DataError, match=message):
            read_rows(address)


def texts(rows: list[Row | BrokenRow]) -> list[str]:
    return [row.fields["text"] for row in rows if isinstance(row, Row)]
