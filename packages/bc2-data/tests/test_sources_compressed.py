"""Compressed files and archives: sound, damaged, and made to do harm."""

from __future__ import annotations

import gzip
import io
import json
import tempfile
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bc2_data.errors import DataError
from bc2_data.sources import BrokenRow, Row, open_sources
from bc2_data.sources import stream as stream_module

ReadRows = Callable[..., list[Row | BrokenRow]]

ROWS = [{"text": f"row {number}"} for number in range(1, 2001)]
NUMBERED = [Row(number, row) for number, row in enumerate(ROWS, 1)]
LINES = "".join(json.dumps(row) + "\n" for row in ROWS).encode()


def zstd(content: bytes) -> bytes:
    return bytes(pa.compress(content, "zstd", asbytes=True))


def parquet() -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(ROWS), sink)
    return bytes(sink.getvalue())


def arrow() -> bytes:
    table = pa.Table.from_pylist(ROWS)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())


CONTENTS: dict[str, Callable[[], bytes]] = {
    ".jsonl": lambda: LINES,
    ".json": lambda: json.dumps(ROWS).encode(),
    ".csv": lambda: ("text\n" + "".join(f"{row['text']}\n" for row in ROWS)).encode(),
    ".txt": lambda: "\n".join(row["text"] for row in ROWS).encode(),
    ".parquet": parquet,
    ".arrow": arrow,
}
COMPRESSORS = {".gz": gzip.compress, ".zst": zstd}
each_compression = pytest.mark.parametrize("compression", COMPRESSORS)


@each_compression
@pytest.mark.parametrize("ending", CONTENTS)
def test_every_format_compressed(
    tmp_path: Path, read_rows: ReadRows, ending: str, compression: str
) -> None:
    path = tmp_path / f"a{ending}{compression}"
    path.write_bytes(COMPRESSORS[compression](CONTENTS[ending]()))
    assert [row.fields for row in read_rows(path) if isinstance(row, Row)] == ROWS
    (source,) = open_sources([path])
    sizes = [batch.size for batch in source.batches(("text",))]
    assert sum(sizes) == pytest.approx(path.stat().st_size, abs=8)


@pytest.mark.parametrize("ending", CONTENTS)
def test_every_format_in_an_archive(tmp_path: Path, read_rows: ReadRows, ending: str) -> None:
    path = archive(tmp_path, {f"rows{ending}": CONTENTS[ending]()})
    assert [row.fields for row in read_rows(path) if isinstance(row, Row)] == ROWS
    (source,) = open_sources([path])
    assert source.location.size() == path.stat().st_size
    assert 0 < sum(batch.size for batch in source.batches(("text",))) <= path.stat().st_size


@each_compression
def test_what_was_compressed_piece_by_piece(
    tmp_path: Path, read_rows: ReadRows, compression: str
) -> None:
    path = tmp_path / f"a.jsonl{compression}"
    compress = COMPRESSORS[compression]
    path.write_bytes(compress(LINES[:5000]) + compress(LINES[5000:]))
    assert read_rows(path) == NUMBERED


@each_compression
@pytest.mark.parametrize("missing", [1, 4, 1000])
def test_what_is_cut_short(
    tmp_path: Path, read_rows: ReadRows, compression: str, missing: int
) -> None:
    for ending in (".jsonl", ".parquet"):
        path = tmp_path / f"a{ending}{compression}"
        path.write_bytes(COMPRESSORS[compression](CONTENTS[ending]())[:-missing])
        with pytest.raises(DataError, match="is damaged or cut short: Truncated"):
            read_rows(path)


@each_compression
def test_what_is_not_compressed_or_empty(
    tmp_path: Path, read_rows: ReadRows, compression: str
) -> None:
    path = tmp_path / f"a.jsonl{compression}"
    for content, message in [
        (LINES, "is no (gzip|zstd) data, is damaged or cut short"),
        (b"<html>no such file</html>", "holds an HTML page, not (gzip|zstd)"),
        (COMPRESSORS[compression](b"<html>no such file</html>"), "an HTML page, not JSON Lines"),
        (COMPRESSORS[compression](b""), "is empty"),
        (COMPRESSORS[compression](LINES) + b"more", "is damaged"),
    ]:
        path.write_bytes(content)
        with pytest.raises(DataError, match=message):
            read_rows(path)


def test_a_wrong_checksum(tmp_path: Path, read_rows: ReadRows) -> None:
    content = bytearray(gzip.compress(LINES))
    content[-8] ^= 1
    (tmp_path / "a.jsonl.gz").write_bytes(content)
    with pytest.raises(DataError, match="is damaged"):
        read_rows(tmp_path / "a.jsonl.gz")
    path = archive(tmp_path, {"a.jsonl": LINES}, zipfile.ZIP_STORED)
    path.write_bytes(path.read_bytes().replace(b"row 7", b"row 8", 1))
    with pytest.raises(DataError, match=r"data\.zip/a\.jsonl.* Bad CRC-32"):
        read_rows(path)


@pytest.mark.parametrize("name", ["a.jsonl.gz", "a.jsonl.zst", "a.parquet.gz", "data.zip"])
def test_bombs(
    tmp_path: Path, read_rows: ReadRows, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(stream_module, "FREE_BYTES", 4 << 20)
    content = b"PAR1" * (5 << 20)
    text = b" " * len(content)
    path = tmp_path / name
    if name == "data.zip":
        archive(tmp_path, {"a.jsonl": text})
    else:
        compressed = text if "jsonl" in name else content
        path.write_bytes(COMPRESSORS[path.suffix](compressed))
    with pytest.raises(DataError, match="more than 200 times its size"):
        read_rows(path)
    monkeypatch.undo()  # so small a bomb does no harm
    if name != "a.parquet.gz":
        assert [row.number for row in read_rows(path)] == [1]


def test_the_members_of_an_archive(tmp_path: Path, read_rows: ReadRows) -> None:
    path = archive(
        tmp_path,
        {
            "rows/second.jsonl": b'{"text": "b"}\n{',
            "rows/first.jsonl": b'{"text": "a"}',
            "README.md": b"nothing",
            "__MACOSX/rows/._first.jsonl": b"\x00\x05\x16\x07",
            "rows/.hidden.jsonl": b"{}",
        },
    )
    second, first = open_sources([path])  # in the archive's order
    assert second.location == first.location
    assert second.place(2) == f"{path}/rows/second.jsonl:2"
    rows = read_rows(path)
    assert [row.fields["text"] for row in rows if isinstance(row, Row)] == ["b", "a"]
    assert [row.number for row in rows if isinstance(row, BrokenRow)] == [2]


@pytest.mark.parametrize(
    "name", ["../a.jsonl", "/etc/a.jsonl", "x/../../a.jsonl", "..\\a.jsonl", "C:\\a.jsonl", ".."]
)
def test_members_that_lead_out_of_the_archive(tmp_path: Path, name: str) -> None:
    path = archive(tmp_path, {"fine.jsonl": b"{}", name: b"{}"})
    with pytest.raises(DataError, match="has a path that leads out of the archive"):
        open_sources([path])
    assert list(tmp_path.iterdir()) == [path]


def test_archives_that_cannot_be_used(tmp_path: Path, read_rows: ReadRows) -> None:
    sound = archive(tmp_path, {"a.jsonl": LINES}).read_bytes()
    path = tmp_path / "data.zip"
    for content, message in [
        (sound[:-30], "is no zip archive, or is cut short"),
        (b"<html>", "is no zip archive"),
        (encrypted(sound), r"its member 'a\.jsonl' is encrypted"),
    ]:
        path.write_bytes(content)
        with pytest.raises(DataError, match=message):
            open_sources([path])
    for members, message in [
        ({"a.jsonl": b"{}", "b.json": b"[]"}, r"several types: \.json, \.jsonl"),
        ({"a.md": b"{}"}, "holds no file of rows"),
        ({"a.jsonl.gz": gzip.compress(LINES)}, "holds no file of rows"),
        ({}, "holds no file of rows"),
    ]:
        with pytest.raises(DataError, match=message):
            open_sources([archive(tmp_path, members)])
    with pytest.raises(DataError, match="is not compressed by deflate"):
        open_sources([archive(tmp_path, {"a.jsonl": LINES}, zipfile.ZIP_BZIP2)])
    with pytest.raises(DataError, match=r"data\.zip/a\.jsonl is empty"):
        read_rows(archive(tmp_path, {"a.jsonl": b""}))
    with pytest.warns(UserWarning, match="Duplicate name"):
        archive(tmp_path, [("a.jsonl", b"{}"), ("a.jsonl", b"{}")])
    with pytest.raises(DataError, match="holds two members of one name"):
        open_sources([path])


def test_a_full_temporary_folder(
    tmp_path: Path, read_rows: ReadRows, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Full(io.BytesIO):
        def write(self, _: object) -> int:
            raise OSError(28, "No space left on device")

    (tmp_path / "a.parquet.gz").write_bytes(gzip.compress(parquet()))
    monkeypatch.setattr(tempfile, "TemporaryFile", Full)
    with pytest.raises(DataError, match=r"no room to decompress .* No space left") as caught:
        read_rows(tmp_path / "a.parquet.gz")
    assert "TMPDIR" in caught.value.hint


def archive(
    folder: Path,
    members: dict[str, bytes] | Iterable[tuple[str, bytes]],
    method: int = zipfile.ZIP_DEFLATED,
) -> Path:
    path = folder / "data.zip"
    with zipfile.ZipFile(path, "w", method) as file:
        for name, content in members.items() if isinstance(members, dict) else members:
            file.writestr(name, content)
    return path


def encrypted(content: bytes) -> bytes:
    """Sets the flag of an encrypted member, in its own header and in the directory."""
    changed = bytearray(content)
    changed[6] |= 1
    changed[content.index(b"PK\x01\x02") + 8] |= 1
    return bytes(changed)
