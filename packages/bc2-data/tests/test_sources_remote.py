"""Files behind URLs: fsspec's memory, and a web server on this machine."""

from __future__ import annotations

import hashlib
import json
import pickle
import re
import sys
import threading
import zipfile
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path
from typing import ClassVar

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bc2_data.errors import DataError
from bc2_data.sources import BrokenRow, Location, Row, open_sources

fsspec = pytest.importorskip("fsspec", reason="fsspec, of the extra `remote`, is not installed")

ReadRows = Callable[..., list[Row | BrokenRow]]

ROWS = [{"text": f"row {number}"} for number in range(1, 3001)]
NUMBERED = [Row(number, row) for number, row in enumerate(ROWS, 1)]
LINES = "".join(json.dumps(row) + "\n" for row in ROWS).encode()


def parquet() -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(ROWS), sink, row_group_size=1000)
    return bytes(sink.getvalue())


def arrow(new: Callable[..., object]) -> bytes:
    table = pa.Table.from_pylist(ROWS)
    sink = pa.BufferOutputStream()
    with new(sink, table.schema) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())


def archive() -> bytes:
    content = BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("a.jsonl", LINES)
    return content.getvalue()


# By whether they can be read from a server that knows nothing of ranges.
STREAMED = {
    "a.jsonl": LINES,
    "a.json": json.dumps(ROWS).encode(),
    "a.jsonl.zst": bytes(pa.compress(LINES, "zstd", asbytes=True)),
    "b.parquet.zst": bytes(pa.compress(parquet(), "zstd", asbytes=True)),
}
SEEKED = {
    "a.parquet": parquet(),
    "stream.arrow": arrow(pa.ipc.new_stream),
    "a.feather": arrow(pa.ipc.new_file),
    "a.zip": archive(),
}
FILES = STREAMED | SEEKED


@pytest.fixture(scope="module", autouse=True)
def memory() -> Iterator[None]:
    """Puts the files into memory://bucket/."""
    system = fsspec.filesystem("memory")
    for name, content in FILES.items():
        system.pipe(f"/bucket/{name}", content)
    yield
    system.rm("/bucket", recursive=True)


@pytest.mark.parametrize("name", FILES)
def test_every_kind_of_file_in_memory(read_rows: ReadRows, name: str) -> None:
    url = f"memory://bucket/{name}"
    assert read_rows(url) == NUMBERED
    (source,) = open_sources([url])
    assert str(source.location) == url
    assert source.location.name == name
    assert source.location.size() == len(FILES[name])
    assert source.location.sha256() == hashlib.sha256(FILES[name]).hexdigest()
    assert pickle.loads(pickle.dumps(source)) == source
    sizes = [batch.size for batch in source.batches(("text",))]
    assert 0.9 * len(FILES[name]) < sum(sizes) <= len(FILES[name])


@pytest.mark.parametrize(("name", "size"), [("a.jsonl", 10_000), ("a.parquet", 1)])
def test_remote_files_have_parts_too(name: str, size: int) -> None:
    (source,) = open_sources([f"memory://bucket/{name}"])
    parts = source.split(size)
    assert len(parts) > 2
    rows = [
        (part.place(row.number), row.fields)
        for part in parts
        for batch in part.batches(("text",))
        for row in batch.rows
    ]
    between = ":" if name == "a.jsonl" else ", row "
    assert rows == [
        (f"memory://bucket/{name}{between}{number}", row) for number, row in enumerate(ROWS, 1)
    ]


def test_folders_and_patterns_of_a_server(read_rows: ReadRows) -> None:
    system = fsspec.filesystem("memory")
    for name in ("b.jsonl", "sub/a.jsonl", ".hidden/x.jsonl", "notes.md"):
        system.pipe(f"/folder/{name}", json.dumps({"text": name}).encode())

    def texts(*inputs: str) -> list[str]:
        return [row.fields["text"] for row in read_rows(*inputs) if isinstance(row, Row)]

    assert texts("memory://folder") == ["b.jsonl", "sub/a.jsonl"]
    assert texts("memory://folder/*.jsonl") == ["b.jsonl"]
    assert texts("memory://folder/s*") == ["sub/a.jsonl"]
    assert texts("memory://folder/sub/a.jsonl", "memory://folder/b.jsonl") == [
        "sub/a.jsonl",
        "b.jsonl",
    ]
    for url, message in [
        ("memory://folder/none.jsonl", "memory://folder/none.jsonl does not exist"),
        ("memory://folder/*.csv", r"no file matches memory://folder/\*.csv"),
        ("memory://folder/notes.md", r"the ending '\.md' is unknown"),
    ]:
        with pytest.raises(DataError, match=message):
            open_sources([url])
    system.pipe("/folder/c.json", b"[]")
    with pytest.raises(DataError, match=r"several types: \.json, \.jsonl"):
        open_sources(["memory://folder"])
    system.rm("/folder", recursive=True)


def test_a_file_url_is_a_path(tmp_path: Path, read_rows: ReadRows) -> None:
    (tmp_path / "a.jsonl").write_bytes(LINES)
    assert read_rows(f"file://{tmp_path}/a.jsonl") == NUMBERED


def test_schemes_that_cannot_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match="Protocol not known: nosuch"):
        open_sources(["nosuch://a.jsonl"])
    monkeypatch.setitem(sys.modules, "s3fs", None)
    with pytest.raises(DataError, match="s3fs") as caught:
        open_sources(["s3://bucket/a.jsonl"])
    assert caught.value.hint == "pip install 'bc2-data[s3]'"
    monkeypatch.setitem(sys.modules, "fsspec", None)
    with pytest.raises(DataError, match="fsspec") as caught:
        open_sources(["abfs://bucket/a.jsonl"])
    assert caught.value.hint == "pip install 'bc2-data[remote]'"


def test_secrets_in_urls_are_not_shown() -> None:
    web = Location("https://user:pass@host/dir/a.jsonl?signature=secret")
    assert (str(web), web.name) == ("https://host/dir/a.jsonl", "a.jsonl")
    ftp = Location("ftp://user:pass@host/a?.jsonl")
    assert (str(ftp), ftp.name) == ("ftp://host/a?.jsonl", "a?.jsonl")


class Server(BaseHTTPRequestHandler):
    """Serves FILES, those below /ranges/ from any byte on."""

    protocol_version = "HTTP/1.1"
    queries: ClassVar[set[str]] = set()

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def log_message(self, *_: object) -> None:
        pass

    def _answer(self, with_body: bool) -> None:
        path, _, query = self.path.partition("?")
        self.queries.add(query)
        folder, _, name = path[1:].partition("/")
        content = FILES.get(name, b"")
        status = 200 if name in FILES else 403 if folder == "forbidden" else 404
        wanted = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        if folder == "ranges" and wanted and status == 200:
            first, last = map(int, wanted.groups())
            status, content = 206, content[first : last + 1]
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        if folder == "broken":
            content, self.close_connection = content[: len(content) // 2], True
        self.end_headers()
        if with_body:
            self.wfile.write(content)


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    pytest.importorskip("aiohttp", reason="aiohttp, of the extra `http`, is not installed")
    with ThreadingHTTPServer(("127.0.0.1", 0), Server) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()
        thread.join()


@pytest.mark.parametrize("name", FILES)
def test_a_web_server_with_ranges(server: str, read_rows: ReadRows, name: str) -> None:
    assert read_rows(f"{server}/ranges/{name}?key=secret") == NUMBERED
    assert "key=secret" in Server.queries
    (source,) = open_sources([f"{server}/ranges/{name}?key=secret"])
    assert source.location.size() == len(FILES[name])
    assert source.location.sha256() == hashlib.sha256(FILES[name]).hexdigest()
    rows = [
        row.fields
        for part in source.split(20_000)
        for batch in part.batches(("text",))
        for row in batch.rows
    ]
    assert rows == ROWS


@pytest.mark.parametrize("name", STREAMED)
def test_a_web_server_without_ranges(server: str, read_rows: ReadRows, name: str) -> None:
    assert read_rows(f"{server}/plain/{name}") == NUMBERED
    (source,) = open_sources([f"{server}/plain/{name}"])
    assert len(source.split(1000)) == 1
    assert source.location.sha256() == hashlib.sha256(FILES[name]).hexdigest()


@pytest.mark.parametrize("name", SEEKED)
def test_what_a_server_without_ranges_cannot_give(
    server: str, read_rows: ReadRows, name: str
) -> None:
    with pytest.raises(DataError, match="reads files from the beginning only") as caught:
        read_rows(f"{server}/plain/{name}")
    assert "download" in caught.value.hint


def test_what_a_web_server_refuses(server: str, read_rows: ReadRows) -> None:
    for path, message in [
        ("plain/none.jsonl?key=secret", "/plain/none.jsonl cannot be had: 404"),
        ("forbidden/none.jsonl?key=secret", "/forbidden/none.jsonl cannot be had: 403"),
        ("broken/a.jsonl?key=secret", "/broken/a.jsonl cannot be read: ClientPayloadError"),
    ]:
        with pytest.raises(DataError, match=message) as caught:
            read_rows(f"{server}/{path}")
        assert "secret" not in caught.value.message
    with pytest.raises(DataError, match=r"a\.jsonl cannot be had: Cannot connect to host"):
        open_sources(["http://127.0.0.1:9/a.jsonl"])
