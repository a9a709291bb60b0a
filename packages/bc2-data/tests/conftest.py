"""Fixtures: a tiny tokenizer, the command line, and the real data where it is at hand."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from bc2_data import train_tokenizer
from bc2_data.cli import main
from bc2_data.encoding import Encoded, LengthLimit, encode_batch
from bc2_data.handlers import HandlerOptions, make_handler
from bc2_data.sources import MAX_ROW_BYTES, Batch, BrokenRow, Row, open_sources
from bc2_data.sources.jsonl import JsonLinesSource
from bc2_data.sources.location import Location
from bc2_data.sources.stored import StoredFile
from bc2_data.tokenizer import Tokenizer, load_tokenizer

# A deadline measures the machine, which is shared, more than the code.
settings.register_profile("bc2", deadline=None, max_examples=40)
settings.load_profile("bc2")

CORPUS = (
    "The quick brown fox jumps over the lazy dog, and the dog sleeps on.\n"
    "    def tokenise(text):\n\treturn [piece for piece in text.split() if piece]\n",
    "A model reads tokens; a tokenizer reads text. Reading text is what tokenizers are for.\n",
    "北京是中国的首都。模型读取文本，文本由词元组成。今天天气很好，我们去公园吧。\n",  # noqa: RUF001
    "1234567890 + 42 = 1234567932; 3.14159 is near pi.   Three spaces, then more.\n",
    "In the beginning was the word, and the word was with the reader, and it was good.\n",
)


@dataclass(frozen=True)
class Outcome:
    """What a command line did."""

    status: int
    out: str
    err: str


Cli = Callable[..., Outcome]
EncodeRows = Callable[..., Encoded]
WriteRows = Callable[[str, Iterable[Any]], Path]
ReadRows = Callable[..., list[Row | BrokenRow]]
Made = Callable[..., Path]


@pytest.fixture(scope="session", autouse=True)
def _private_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keeps the user's cache directory out of the tests, those in other processes included."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def corpus() -> tuple[str, ...]:
    return CORPUS


@pytest.fixture(scope="session")
def tokenizer_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tokenizer of 640 pieces that behaves as Baichuan2's does."""
    directory = tmp_path_factory.mktemp("tokenizer")
    train_tokenizer(CORPUS, directory, vocab_size=640)
    return directory


@pytest.fixture(scope="session")
def fast_tokenizer_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tokenizer that has the characters of ``<0x1F>`` as pieces, which fastokens needs."""
    directory = tmp_path_factory.mktemp("fast-tokenizer")
    train_tokenizer([*CORPUS, " ".join("<0123456789ABCDEFx>")], directory, vocab_size=660)
    return directory


@pytest.fixture
def tokenizer(tokenizer_dir: Path) -> Tokenizer:
    return load_tokenizer(tokenizer_dir)


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Cli:
    """Runs ``bc2-data`` in this process."""

    def run(*arguments: object) -> Outcome:
        try:
            status = main([str(argument) for argument in arguments])
        except SystemExit as exit_:  # argparse's own way out
            status = int(exit_.code or 0)
        out, err = capsys.readouterr()
        return Outcome(status, out, err)

    return run


@pytest.fixture(scope="session")
def encode_rows() -> EncodeRows:
    """Encodes rows with a handler, as if they were the lines of data.jsonl."""

    def run(
        tokenizer: Tokenizer,
        handler: str,
        rows: Sequence[Mapping[str, Any]],
        limit: LengthLimit | None = None,
        **options: Any,
    ) -> Encoded:
        made = make_handler(handler, HandlerOptions(**options), tokenizer.special)
        batch = Batch(rows=[Row(number, row) for number, row in enumerate(rows, start=1)])
        source = JsonLinesSource(StoredFile(Location("data.jsonl")))
        return encode_batch(batch, source, made, tokenizer, limit or LengthLimit())

    return run


@pytest.fixture
def write_rows(tmp_path: Path) -> WriteRows:
    """Writes rows into a .jsonl, .json or .parquet file below ``in/`` and returns its path."""

    def write(name: str, rows: Iterable[Any]) -> Path:
        path = tmp_path / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".jsonl":
            path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        elif path.suffix == ".json":
            path.write_text(json.dumps(list(rows), indent=1), encoding="utf-8")
        else:
            import pyarrow as pa
            import pyarrow.parquet as pq

            pq.write_table(pa.Table.from_pylist(list(rows)), path)
        return path

    return write


@pytest.fixture
def corpus_folder(tmp_path: Path) -> Path:
    """A folder of six .jsonl files: Alpaca rows with a text besides, and rows of every fault."""
    folder = tmp_path / "corpus"
    folder.mkdir()
    for file in range(6):
        lines = []
        for row in range(40):
            text = f"{CORPUS[row % len(CORPUS)]} {file}.{row} <reserved_106>"
            fields = {"text": text, "instruction": text, "input": "", "output": str(row)}
            lines.append(json.dumps(fields))
            if row % 5 == 4:
                lines += ["{broken", "[1]", '{"text": 5, "instruction": 5}', ""]
                lines.append(json.dumps({"text": "", "instruction": "", "output": ""}))
        (folder / f"{file}.jsonl").write_text("\n".join(lines), encoding="utf-8")
    return folder


@pytest.fixture
def large_folder(tmp_path: Path) -> Path:
    """A folder of twelve .jsonl files that keep two workers busy for some seconds."""
    folder = tmp_path / "large"
    folder.mkdir()
    for file in range(12):
        rows = (json.dumps({"text": f"{file} {row} " + "".join(CORPUS) * 4}) for row in range(300))
        (folder / f"{file:02}.jsonl").write_text("\n".join(rows), encoding="utf-8")
    return folder


@pytest.fixture
def made(cli: Cli, write_rows: WriteRows, tokenizer_dir: Path, tmp_path: Path) -> Made:
    """Tokenises rows, with further arguments of ``tokenize``, and returns the prefix."""

    def make(rows: Iterable[Any], *arguments: object, name: str = "data") -> Path:
        prefix = tmp_path / "out" / name
        outcome = cli(
            *("tokenize", "--input", write_rows("a.jsonl", rows), "--tokenizer", tokenizer_dir),
            *("--output-prefix", prefix, *arguments),
        )
        assert outcome.status == 0, outcome.err
        return prefix

    return make


@pytest.fixture(scope="session")
def read_rows() -> ReadRows:
    """Reads inputs; the broken rows of a batch come behind the others."""

    def read(*inputs: str | Path, max_row_bytes: int = MAX_ROW_BYTES) -> list[Row | BrokenRow]:
        return [
            row
            for source in open_sources(inputs, max_row_bytes)
            for batch in source.batches(("text",))
            for row in (*batch.rows, *batch.broken)
        ]

    return read


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with the real tokenizer and real samples."""
    repository = Path(__file__).resolve().parents[3]
    folder = Path(os.environ.get("BC2_SHARED", repository.parent / "shared"))
    if not (folder / "baichuan2" / "tokenizer.model").is_file():
        pytest.skip(f"no real tokenizer and samples at {folder} (set BC2_SHARED)")
    return folder
