"""JSON arrays and objects, read in pieces of any size."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bc2_data.errors import DataError
from bc2_data.sources import BrokenRow, Row, open_sources
from bc2_data.sources import json as json_module

ReadRows = Callable[..., list[Row | BrokenRow]]

TEXTS = st.text(max_size=8) | st.text('"\\{}[],é中', max_size=8)
VALUES = st.recursive(
    st.none() | st.integers() | st.floats(allow_nan=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=2),
    max_leaves=3,
)
OBJECTS = st.lists(st.dictionaries(st.text(max_size=4), VALUES, max_size=2), max_size=5)
LAYOUTS = {
    "array": lambda rows, **how: json.dumps(rows, **how),
    "objects": lambda rows, **how: "\n".join(json.dumps(row, **how) for row in rows) + "\n",
}


@pytest.mark.parametrize("layout", LAYOUTS)
@given(
    rows=OBJECTS,
    indent=st.sampled_from([None, 1]),
    ascii_only=st.booleans(),
    chunk=st.integers(1, 40),
    limit=st.integers(2, 60) | st.just(1000),
)
def test_any_rows_in_any_pieces_under_any_limit(
    read_rows: ReadRows,
    layout: str,
    rows: list[dict[str, Any]],
    indent: int | None,
    ascii_only: bool,
    chunk: int,
    limit: int,
) -> None:
    text = LAYOUTS[layout](rows, indent=indent, ensure_ascii=ascii_only)
    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_module, "_CHUNK", chunk)
        path = Path(folder) / "a.json"
        path.write_text(text, "utf-8")
        found = read_rows(path, max_row_bytes=limit)
    whole = [row for row in found if isinstance(row, Row)]
    large = [row for row in found if isinstance(row, BrokenRow)]
    decoder = json.JSONDecoder()
    expected: list[Row] = []
    skipped: list[BrokenRow] = []
    position = text.find("[") + 1 if layout == "array" else 0
    for number, row in enumerate(rows, start=1):
        position = text.index("{", position)
        _, end = decoder.raw_decode(text, position)
        size = len(text[position:end].encode())
        if size <= limit:
            expected.append(Row(number, row))
        else:
            why = f"{size:,} bytes, --max-row-bytes is {limit:,}"
            skipped.append(BrokenRow(number, why, "too_large"))
        position = end
    assert whole == expected
    assert large == skipped


def test_one_object_is_one_row(tmp_path: Path, read_rows: ReadRows) -> None:
    path = tmp_path / "a.json"
    path.write_text('\ufeff {\n "text": "one" }', encoding="utf-8")
    assert read_rows(path) == [Row(1, {"text": "one"})]


def test_what_is_no_row_does_not_stop_the_others(tmp_path: Path, read_rows: ReadRows) -> None:
    path = tmp_path / "a.json"
    elements = [
        b'{"text": "a"}',
        b"[1, {}]",
        b'{"text": "\xff\xfe"}',
        b'{"text": ' + b"9" * 5_000 + b"}",
        b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
        b'"\\"}"',
        b'{"text": "\\ud800"}',
    ]
    path.write_bytes(b"[" + b",\n".join(elements) + b"]")
    rows = read_rows(path)
    assert rows[:2] == [Row(1, {"text": "a"}), Row(7, {"text": "\ud800"})]
    broken = [row for row in rows[2:] if isinstance(row, BrokenRow)]
    assert [row.number for row in broken] == [2, 3, 4, 5, 6]
    assert broken[0].why == "a JSON list, not an object"
    assert broken[1].why == "no UTF-8: byte 0xff"
    assert "digits" in broken[2].why
    assert "recursion" in broken[3].why
    assert broken[4].why == "a JSON str, not an object"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[{"text": "a"},\n {"text": "b" "c"}]', r"a\.json:2: no JSON: Expecting ',' delimiter"),
        ('[{"text": "a"}\n {"text": "b"}]', r"a\.json:2: no JSON: a comma or ] is missing"),
        ('[{"text": "a"},\n\n {"text": "b', r"a\.json:3: no JSON: Unterminated string"),
        ('[{"text": "a"}]\n x', r"a\.json:2: no JSON: unexpected text after the last row"),
        ('{"text": "a"}\n]', r"a\.json:2: no JSON: unexpected text"),
        ("text,other\n1,2\n", r"a\.json holds text that begins with 't', not JSON"),
        ("[" + '{"a":' * 100_000, r"a\.json:1: no JSON: the last value does not end"),
        ("[\n" + "9" * 5_000 + "]", r"a\.json:2: no JSON: a number of thousands of digits"),
    ],
)
def test_broken_json_is_named_by_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "a.json"
    path.write_text(text)
    (source,) = open_sources([path])
    with pytest.raises(DataError, match=message) as caught:
        list(source.batches(("text",)))
    assert caught.value.hint


def test_lines_are_counted_across_the_pieces_read(
    tmp_path: Path, read_rows: ReadRows, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(json_module, "_CHUNK", 7)
    path = tmp_path / "a.json"
    path.write_text("[" + '{"text":\n"a"},\n' * 50 + "{]")
    for limit in (1000, 5):  # read, or passed over
        with pytest.raises(DataError, match=r"a\.json:101: no JSON"):
            read_rows(path, max_row_bytes=limit)


def test_a_fault_is_no_reason_to_read_on(tmp_path: Path, read_rows: ReadRows) -> None:
    path = tmp_path / "a.json"
    path.write_text('[{"text" "a"},\n' + '{"text": "b"},\n' * 200_000)
    with pytest.raises(DataError, match=r"a\.json:1: no JSON: Expecting ':' delimiter"):
        read_rows(path, max_row_bytes=1000)
