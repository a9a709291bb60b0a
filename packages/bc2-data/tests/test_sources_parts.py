"""Files cut into parts: together they are the file, and each row is named by its place in it."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bc2_data.sources import BrokenRow, Row, Source, open_sources
from bc2_data.sources import stream as stream_module

LINES = st.lists(
    st.sampled_from([b"", b'{"text": "a"}', b'{"text": "\xe4\xb8\xad"}', b"{", b"x" * 30, b"\r"]),
    max_size=12,
)


def places(source: Source) -> list[tuple[str, object]]:
    """Returns each row with where it stands in the file."""
    found: list[tuple[str, object]] = []
    for batch in source.batches(("text",)):
        found += [(source.place(row.number), row.fields) for row in batch.rows]
        found += [(source.place(row.number), row.why) for row in batch.broken]
    return sorted(found, key=lambda row: int(row[0].split()[-1].rpartition(":")[2]))


@pytest.mark.parametrize("name", ["a.jsonl", "a.txt"])
@given(lines=LINES, ends=st.booleans(), size=st.integers(1, 40), block=st.integers(1, 50))
def test_the_parts_of_lines_are_the_file(
    name: str, lines: list[bytes], ends: bool, size: int, block: int
) -> None:
    content = b"\n".join([b'{"text": "first"}', *lines]) + (b"\n" if ends else b"")
    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(stream_module.ByteStream.read, "__defaults__", (block,))
        path = Path(folder) / name
        path.write_bytes(content)
        (source,) = open_sources([path], max_row_bytes=25)
        parts = [pickle.loads(pickle.dumps(part)) for part in source.split(size)]
        assert len(parts) == -(-len(content) // size)
        assert [row for part in parts for row in places(part)] == places(source)
        sizes = [sum(batch.size for batch in part.batches(("text",))) for part in parts]
        assert sum(sizes) <= len(content)


def test_sizes_of_the_parts_add_up(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps({"text": "x" * (n % 700)}) + "\n" for n in range(3000)))
    (source,) = open_sources([path])
    parts = source.split(100_000)
    assert len(parts) == -(-path.stat().st_size // 100_000) > 3
    read = sum(batch.size for part in parts for batch in part.batches(("text",)))
    assert read == path.stat().st_size


def test_lines_are_counted_once_for_all_parts(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"line\n" * 1000)
    (source,) = open_sources([path])
    parts = source.split(500)
    assert parts[4].place(1) == f"{path}:401"
    path.write_bytes(b"x" * 1999 + b"\n" + b"line\n" * 600)  # what was counted is gone
    assert [part.place(7) for part in parts[4:]] == [f"{path}:{407 + 100 * i}" for i in range(6)]


def test_a_part_can_be_split_again(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"".join(b"line %d\n" % number for number in range(300)))
    (source,) = open_sources([path])
    halves = source.split(1500)
    again = [part for half in halves for part in half.split(100)]
    assert len(halves) == 2 < len(again)
    assert [row for part in again for row in places(part)] == places(source)


@pytest.mark.parametrize(("size", "groups"), [(1, 7), (5_000, 4), (10**9, 1)])
def test_the_parts_of_parquet_are_row_groups(tmp_path: Path, size: int, groups: int) -> None:
    path = tmp_path / "a.parquet"
    texts = [f"{number:05} {'x' * 20}" for number in range(650)]
    pq.write_table(
        pa.table({"text": texts}),
        path,
        row_group_size=100,
        compression="none",
        use_dictionary=False,
    )
    (source,) = open_sources([path])
    parts = [pickle.loads(pickle.dumps(part)) for part in source.split(size)]
    assert len(parts) == groups
    rows = [row for part in parts for row in places(part)]
    assert rows == [(f"{path}, row {n}", {"text": text}) for n, text in enumerate(texts, 1)]
    assert sum(b.size for part in parts for b in part.batches(("text",))) == path.stat().st_size


def test_other_files_are_one_part(tmp_path: Path) -> None:
    for name in ("a.json", "a.csv", "b.jsonl.gz", "b.parquet.zst"):
        (tmp_path / name).write_bytes(b"any content")
        (source,) = open_sources([tmp_path / name])
        assert list(source.split(1)) == [source]
    pq.write_table(pa.table({"text": pa.array([], pa.string())}), tmp_path / "a.parquet")
    (source,) = open_sources([tmp_path / "a.parquet"])
    (part,) = source.split(1)
    assert list(part.batches(("text",))) == []


def test_places_of_a_whole_file_are_its_own(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("{}\n\n{")
    (source,) = open_sources([tmp_path / "a.jsonl"])
    (batch,) = source.batches(())
    assert batch.rows == [Row(1, {})]
    (broken,) = batch.broken
    assert isinstance(broken, BrokenRow)
    assert source.place(broken.number) == f"{tmp_path}/a.jsonl:3"
