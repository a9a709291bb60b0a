from __future__ import annotations

import gzip
import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bc2_data.errors import DataError
from bc2_data.sources import BrokenRow, Row, open_sources
from bc2_data.sources import json as json_module

ROWS: list[dict[str, Any]] = [
    {"text": "first  "},
    {"text": "中文\n\tline", "other": 1},
    {"text": None},
]
VALUES = st.recursive(
    st.none() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=2),
    max_leaves=3,
)
OBJECTS = st.lists(st.dictionaries(st.text(max_size=4), VALUES, max_size=2), max_size=5)


def read(*paths: Path) -> list[Row | BrokenRow]:
    """Returns all rows in order, the broken ones of a batch after its others."""
    return [
        row
        for source in open_sources(paths)
        for batch in source.batches(("text",))
        for row in (*batch.rows, *batch.broken)
    ]


def numbered(rows: list[dict[str, Any]]) -> list[Row]:
    return [Row(number, row) for number, row in enumerate(rows, start=1)]


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.JSONL"])
def test_json_rows_come_as_written(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    whole = name.lower() == "a.json"
    text = json.dumps(ROWS) if whole else "\n".join(map(json.dumps, ROWS))
    path.write_text(text, encoding="utf-8")
    assert read(path) == numbered(ROWS)


def test_parquet_reads_only_the_columns_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.Table.from_pylist(ROWS), path)
    assert read(path) == numbered([{"text": row["text"]} for row in ROWS])


def test_parquet_without_the_column_shows_those_it_has(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"content": ["x"]}), path)
    assert read(path) == [Row(1, {"content": "x"})]


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.parquet"])
def test_many_rows_keep_their_numbers_and_sizes_add_up(tmp_path: Path, name: str) -> None:
    rows = [{"text": f"row {number} " * 9} for number in range(1, 1301)]
    path = tmp_path / name
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=400)
    else:
        separator, ends = ("\n", ("", "\n")) if name == "a.jsonl" else (",\n", ("[", "]"))
        path.write_text(ends[0] + separator.join(map(json.dumps, rows)) + ends[1])
    (source,) = open_sources([path])
    batches = list(source.batches(("text",)))
    assert [row for batch in batches for row in batch.rows] == numbered(rows)
    assert len(batches) > 2
    assert sum(batch.size for batch in batches) == path.stat().st_size


@given(rows=OBJECTS, indent=st.sampled_from([None, 1]), chunk=st.integers(1, 40))
def test_json_arrays_in_any_pieces(
    rows: list[dict[str, Any]], indent: int | None, chunk: int
) -> None:
    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_module, "_CHUNK", chunk)
        path = Path(folder) / "a.json"
        path.write_text(json.dumps(rows, indent=indent, ensure_ascii=False, default=str), "utf-8")
        assert read(path) == numbered(rows)


@given(rows=OBJECTS, indent=st.sampled_from([None, 1]), chunk=st.integers(1, 40))
def test_json_objects_one_after_another(
    rows: list[dict[str, Any]], indent: int | None, chunk: int
) -> None:
    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_module, "_CHUNK", chunk)
        path = Path(folder) / "a.json"
        path.write_text("\n".join(json.dumps(row, indent=indent) for row in rows) + "\n", "utf-8")
        assert read(path) == numbered(rows)


def test_one_json_object_is_one_row(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text('\ufeff {\n "text": "one" }', encoding="utf-8")
    assert read(path) == [Row(1, {"text": "one"})]


def test_a_broken_line_does_not_stop_the_others(tmp_path: Path) -> None:
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
    ]
    path.write_bytes(b"\n".join(lines))
    rows = read(path)
    assert rows[:2] == [Row(1, {"text": "a"}), Row(8, {"text": "b"})]
    broken = [row for row in rows[2:] if isinstance(row, BrokenRow)]
    assert [row.number for row in broken] == [3, 4, 5, 6, 7]
    assert broken[0].why == "no JSON: column 10: Unterminated string starting at"
    assert broken[1].why == "a JSON list, not an object"
    assert "utf-8" in broken[2].why


def test_parquet_strings_that_are_no_utf8_are_broken_rows(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    texts = pa.array([b"good", b"\xff\xfe", b"fine"], pa.binary()).view(pa.string())
    pq.write_table(pa.table({"text": texts}), path)
    rows = read(path)
    assert rows[:2] == [Row(1, {"text": "good"}), Row(3, {"text": "fine"})]
    assert isinstance(rows[2], BrokenRow)
    assert rows[2].number == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[{"text": "a"},\n {"text": "b" "c"}]', r"a\.json:2: no JSON: Expecting ',' delimiter"),
        ('[{"text": "a"}\n {"text": "b"}]', r"a\.json:2: no JSON: a comma or ] is missing"),
        ('[{"text": "a"},\n\n {"text": "b', r"a\.json:3: no JSON: Unterminated string"),
        ('[{"text": "a"}]\n x', r"a\.json:2: no JSON: unexpected text after the last row"),
        ('{"text": "a"}\n]', r"a\.json:2: no JSON: unexpected text"),
        ("text,other\n1,2\n", r"is named \.json but holds text that begins with 't'"),
        ("[" + '{"a":' * 100_000, r"nested too deeply"),
    ],
)
def test_broken_json_is_named_by_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "a.json"
    path.write_text(text)
    with pytest.raises(DataError, match=message) as caught:
        read(path)
    assert caught.value.hint


def test_lines_are_counted_across_the_pieces_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(json_module, "_CHUNK", 7)
    path = tmp_path / "a.json"
    path.write_text("[" + '{"text":\n"a"},\n' * 50 + "{]")
    with pytest.raises(DataError, match=r"a\.json:101: no JSON"):
        read(path)


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.parquet"])
@pytest.mark.parametrize(
    ("content", "what"),
    [
        (gzip.compress(b"{}"), "a gzip archive"),
        (b"PK\x03\x04rest", "a zip archive"),
        (b"<!DOCTYPE html>\n<html>", "an HTML page"),
        (b"version https://git-lfs.github.com/spec/v1", "a Git LFS pointer"),
    ],
)
def test_content_that_contradicts_the_ending(
    tmp_path: Path, name: str, content: bytes, what: str
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(DataError, match=f"is named .* but holds {what}"):
        read(path)


def test_parquet_and_json_arrays_under_other_names(tmp_path: Path) -> None:
    pq.write_table(pa.Table.from_pylist(ROWS), tmp_path / "a.jsonl")
    with pytest.raises(DataError, match="holds a parquet file, not JSON Lines"):
        read(tmp_path / "a.jsonl")
    (tmp_path / "b.jsonl").write_text(json.dumps(ROWS))
    with pytest.raises(DataError, match="holds a JSON array, not JSON Lines"):
        read(tmp_path / "b.jsonl")
    (tmp_path / "c.parquet").write_text(json.dumps(ROWS))
    with pytest.raises(DataError, match="is no parquet file"):
        read(tmp_path / "c.parquet")
    (tmp_path / "d.json").write_bytes(b'[{"text": "\xff"}]')
    with pytest.raises(DataError, match="no UTF-8"):
        read(tmp_path / "d.json")


def test_a_truncated_parquet_file_is_damaged(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.Table.from_pylist(ROWS), path)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DataError, match="is no parquet file, or is damaged"):
        read(path)


def test_a_folder_is_read_in_order_of_names(tmp_path: Path) -> None:
    for name in ("b.jsonl", "a/z.jsonl", "a/y.jsonl", ".hidden/x.jsonl", "README.md"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps({"text": name}))
    rows = [row for row in read(tmp_path) if isinstance(row, Row)]
    assert [row.fields["text"] for row in rows] == ["a/y.jsonl", "a/z.jsonl", "b.jsonl"]


def test_paths_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "data.jsonl").write_text("{}")
    with pytest.raises(DataError, match="does not exist") as caught:
        open_sources([tmp_path / "dat.jsonl"])
    assert "data.jsonl" in caught.value.hint
    (tmp_path / "notes.docx").write_text("x")
    with pytest.raises(DataError, match=r"the ending '\.docx' is unknown"):
        open_sources([tmp_path / "notes.docx"])
    (tmp_path / "none.jsonl").touch()
    with pytest.raises(DataError, match=r"none\.jsonl is empty"):
        open_sources([tmp_path / "none.jsonl"])
    (tmp_path / "folder").mkdir()
    with pytest.raises(DataError, match="holds no data file"):
        open_sources([tmp_path / "folder"])
    (tmp_path / "other.json").write_text("[]")
    with pytest.raises(DataError, match=r"several types: \.json, \.jsonl"):
        open_sources([tmp_path])
