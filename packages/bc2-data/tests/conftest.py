"""Fixtures: a tiny tokenizer, the command line, and the real data where it is at hand."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from bc2_data import train_tokenizer
from bc2_data.cli import main
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
WriteRows = Callable[[str, Iterable[Any]], Path]


@pytest.fixture(scope="session")
def corpus() -> tuple[str, ...]:
    return CORPUS


@pytest.fixture(scope="session")
def tokenizer_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tokenizer of 640 pieces that behaves as Baichuan2's does."""
    directory = tmp_path_factory.mktemp("tokenizer")
    train_tokenizer(CORPUS, directory, vocab_size=640)
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


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with the real tokenizer and real samples."""
    repository = Path(__file__).resolve().parents[3]
    folder = Path(os.environ.get("BC2_SHARED", repository.parent / "shared"))
    if not (folder / "baichuan2" / "tokenizer.model").is_file():
        pytest.skip(f"no real tokenizer and samples at {folder} (set BC2_SHARED)")
    return folder
