"""Rows that are too large: skipped, counted, never held."""

from __future__ import annotations

import json
import re
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bc2_data.sources import MAX_ROW_BYTES, BrokenRow, Row, open_sources
from bc2_data.sources.base import BATCH_BYTES

ReadRows = Callable[..., list[Row | BrokenRow]]

MEGABYTE = 10**6


def write(path: Path, texts: list[str]) -> None:
    """Writes a file of one format."""
    match path.suffix:
        case ".jsonl":
            path.write_text("".join(f'{{"text":"{text}"}}\n' for text in texts))
        case ".json":
            path.write_text(json.dumps([{"text": text} for text in texts], indent=1))
        case ".csv":
            path.write_text("text\n" + "".join(f'"{text}"\n' for text in texts))
        case ".txt":
            path.write_text("\n".join(texts))
        case ".parquet":
            pq.write_table(pa.table({"text": texts}), path)
        case ".arrow":
            table = pa.table({"text": texts})
            with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
                writer.write_table(table)


ENDINGS = (".jsonl", ".json", ".csv", ".txt", ".parquet", ".arrow")


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_row_of_50_megabytes_is_skipped(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"a{ending}"
    write(path, ["before", "x" * (50 * MEGABYTE), "after"])
    (source,) = open_sources([path])
    assert source.max_row_bytes == MAX_ROW_BYTES == 8 << 20
    tracemalloc.start()
    try:
        batches = list(source.batches(("text",)))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert [row.fields["text"] for batch in batches for row in batch.rows] == ["before", "after"]
    (broken,) = [row for batch in batches for row in batch.broken]
    assert broken.reason == "too_large"
    assert re.fullmatch(r"50,000,0\d\d bytes, --max-row-bytes is 8,388,608", broken.why)
    assert broken.number == {".csv": 3}.get(ending, 2)
    # Memory of pyarrow, which decodes a page of parquet whole, is not traced.
    assert peak < 30 * MEGABYTE


@pytest.mark.parametrize("ending", ENDINGS)
def test_batches_are_bounded_in_bytes_too(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"a{ending}"
    write(path, ["x" * MEGABYTE] * 20)
    (source,) = open_sources([path])
    lengths = [len(batch) for batch in source.batches(("text",))]
    assert sum(lengths) == 20
    assert max(lengths) <= 1 + BATCH_BYTES // MEGABYTE


@pytest.mark.parametrize(
    ("name", "content", "size"),
    [
        ("a.jsonl", b'{"text": "abc"}\r\n{"text": "longer"}\n{}\n', 19),
        ("a.txt", b"short\nlonger, and the last\nx", 21),
        ("a.csv", b'text\n"a\nb"\n"longer\n"\nx\n', 10),
    ],
)
def test_the_limit_is_exact(
    tmp_path: Path, read_rows: ReadRows, name: str, content: bytes, size: int
) -> None:
    """The second of three rows has `size` bytes, and is the largest."""
    path = tmp_path / name
    path.write_bytes(content)
    enough, lacking = (read_rows(path, max_row_bytes=limit) for limit in (size, size - 1))
    assert len(enough) == 3
    assert lacking[:2] == [enough[0], enough[2]]
    (broken,) = lacking[2:]
    assert isinstance(broken, BrokenRow)
    assert (broken.number, broken.reason) == (enough[1].number, "too_large")
    assert broken.why == f"{size} bytes, --max-row-bytes is {size - 1}"
