"""Parquet and arrow: columns, row groups, odd types, damage."""

from __future__ import annotations

import datetime
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bc2_data.errors import DataError
from bc2_data.sources import BrokenRow, Row, open_sources

ReadRows = Callable[..., list[Row | BrokenRow]]

ROWS: list[dict[str, Any]] = [
    {"text": "one", "turns": [{"role": "user", "content": "a"}], "n": 1},
    {"text": None, "turns": [], "n": 2},
    {"text": "中文", "turns": None, "n": None},
]


def write_parquet(table: Any, path: Path) -> None:
    pq.write_table(table, path)


def write_stream(table: Any, path: Path) -> None:
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
        writer.write_table(table)


def write_file(table: Any, path: Path) -> None:
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table)


WRITERS = {"a.parquet": write_parquet, "stream.arrow": write_stream, "a.feather": write_file}
each_format = pytest.mark.parametrize("name", WRITERS)


@each_format
def test_only_the_columns_asked_for_are_read(tmp_path: Path, name: str) -> None:
    WRITERS[name](pa.Table.from_pylist(ROWS), tmp_path / name)
    (source,) = open_sources([tmp_path / name])
    (batch,) = source.batches(("turns", "absent", "text"))
    assert batch.rows == [
        Row(number, {key: row[key] for key in ("turns", "text")})
        for number, row in enumerate(ROWS, 1)
    ]


@each_format
def test_without_the_column_a_row_shows_those_that_are(
    tmp_path: Path, read_rows: ReadRows, name: str
) -> None:
    WRITERS[name](pa.table({"content": ["x"]}), tmp_path / name)
    assert read_rows(tmp_path / name) == [Row(1, {"content": "x"})]


@each_format
def test_no_rows(tmp_path: Path, read_rows: ReadRows, name: str) -> None:
    WRITERS[name](pa.table({"text": pa.array([], pa.string())}), tmp_path / name)
    assert read_rows(tmp_path / name) == []


@each_format
@pytest.mark.parametrize(
    "type_", [pa.string(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int32(), "string")]
)
def test_a_row_has_the_size_of_its_own_text(
    tmp_path: Path, read_rows: ReadRows, name: str, type_: Any
) -> None:
    """Views and dictionaries keep the texts of other rows too."""
    texts = ["x" * 100, "y" * 900, "z" * 2000]
    WRITERS[name](pa.table({"text": pa.array(texts).cast(type_)}), tmp_path / name)
    rows = read_rows(tmp_path / name, max_row_bytes=1500)
    assert rows[:2] == [Row(1, {"text": texts[0]}), Row(2, {"text": texts[1]})]
    (broken,) = rows[2:]
    assert isinstance(broken, BrokenRow)
    assert (broken.number, broken.reason) == (3, "too_large")


@each_format
def test_what_cannot_be_a_value_is_a_broken_row(
    tmp_path: Path, read_rows: ReadRows, name: str
) -> None:
    texts = pa.array([b"good", b"\xff\xfe", b"fine"], pa.binary()).view(pa.string())
    WRITERS[name](pa.table({"text": texts}), tmp_path / name)
    rows = read_rows(tmp_path / name)
    assert rows[:2] == [Row(1, {"text": "good"}), Row(3, {"text": "fine"})]
    assert isinstance(rows[2], BrokenRow)
    assert rows[2].number == 2
    assert "UTF8" in rows[2].why

    dates = pa.array([0, 2**60], pa.timestamp("us"))
    WRITERS[name](pa.table({"text": dates}), tmp_path / name)
    row, broken = read_rows(tmp_path / name)
    assert row == Row(1, {"text": datetime.datetime(1970, 1, 1)})
    assert isinstance(broken, BrokenRow)
    assert broken.number == 2


@each_format
def test_any_damage_is_an_error_or_a_broken_row(
    tmp_path: Path, read_rows: ReadRows, name: str
) -> None:
    """No byte that is changed, and no byte that is missing, may lead to a crash."""
    path = tmp_path / name
    rows = [{"text": f"中文 {i}" * (i % 5), "turns": [{"role": "u"}] * (i % 3)} for i in range(60)]
    WRITERS[name](pa.Table.from_pylist(rows), path)
    sound = path.read_bytes()
    choose = random.Random(7)
    errors: list[str] = []
    for attempt in range(150):
        damaged = bytearray(sound[: choose.randrange(1, len(sound))] if attempt % 3 == 0 else sound)
        damaged[choose.randrange(len(damaged))] = choose.choice([0, 127, 255])
        path.write_bytes(damaged)
        try:
            read_rows(path)
        except DataError as error:
            errors.append(error.message)
    assert len(errors) > 50  # those that are cut short, at least
    assert all(message.startswith(str(path)) for message in errors)


@pytest.mark.parametrize("name", ["a.parquet", "a.feather"])
def test_a_truncated_file_is_damaged(tmp_path: Path, read_rows: ReadRows, name: str) -> None:
    path = tmp_path / name
    WRITERS[name](pa.Table.from_pylist(ROWS), path)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DataError, match=r"is no (parquet|arrow) file, or is damaged"):
        read_rows(path)


def test_two_streams_in_one_file_are_refused(tmp_path: Path, read_rows: ReadRows) -> None:
    path = tmp_path / "a.arrow"
    write_stream(pa.table({"text": ["x"]}), path)
    path.write_bytes(path.read_bytes() * 2)
    with pytest.raises(DataError, match="something follows the end of the stream"):
        read_rows(path)


def test_a_parquet_file_with_fewer_rows_than_it_announces(
    tmp_path: Path, read_rows: ReadRows, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_parquet(pa.table({"text": ["x", "y"]}), tmp_path / "a.parquet")
    monkeypatch.setattr("bc2_data.sources.parquet.to_batches", lambda *_: iter(()))
    with pytest.raises(DataError, match="it holds 0 rows where it announces 2"):
        read_rows(tmp_path / "a.parquet")
