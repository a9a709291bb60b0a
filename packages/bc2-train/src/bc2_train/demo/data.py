"""What the demonstration trains on: a file, its format, and what tokenising makes of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from bc2_train.errors import TrainError

# The first field that a row has decides; Alpaca's `text` is what AscendSpeed's README trains on.
_HANDLERS = {"text": "text", "chat": "moss", "instruction": "alpaca"}


@dataclass(frozen=True)
class TrainingData:
    """One file of rows.

    Attributes:
        path: The file.
        handler: The name that ``bc2-data tokenize --handler`` knows its format by.
    """

    path: Path
    handler: str

    @property
    def kind(self) -> str:
        """``pretrain`` or ``instruction``, as ``data.kind`` takes it."""
        return "pretrain" if self.handler == "text" else "instruction"

    def options(self, seq_length: int) -> list[str]:
        """Returns the options of ``bc2-data tokenize`` that fit the kind of data.

        Args:
            seq_length: Predictions of a sample, for which one token more is needed.
        """
        if self.kind == "pretrain":
            return ["--append-eos"]
        return ["--max-length", str(seq_length + 1), "--overlong", "truncate"]

    def prefix(self, tokens: Path) -> Path:
        """Returns ``data.prefix`` of what was tokenised into a folder under the file's name."""
        ending = "_text_document" if self.kind == "pretrain" else ""
        return tokens / f"{self.path.stem}{ending}"


def look_at(path: Path) -> TrainingData:
    """Finds out the format of a file from its first row.

    Raises:
        Bc2Error: The file cannot be read, or its rows are of no known format.
    """
    from bc2_data.sources import open_sources

    for source in open_sources([path]):
        for batch in source.batches(list(_HANDLERS)):
            for row in batch.rows:
                return TrainingData(
                    path, _handler(row.fields, f"{path}, {source.unit} {row.number}")
                )
    raise TrainError(f"{path} holds no readable row", "bc2-data tokenize --help shows the formats")


def _handler(row: Mapping[str, object], where: str) -> str:
    for name, handler in _HANDLERS.items():
        if row.get(name) is not None:
            return handler
    raise TrainError(
        f"{where} has none of the fields {', '.join(_HANDLERS)}",
        "give rows of text, or conversations in Alpaca's or MOSS's format",
    )
