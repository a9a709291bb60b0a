"""What a worker does: encodes one shard, or takes the checksum of one input.

A task is a small value that travels to any process and yields events there. Workers on other
machines need the folder and the inputs under the same paths.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from bc2_data.encoding import Finding, LengthLimit, encode_batch
from bc2_data.engines import EngineChoice
from bc2_data.errors import DataError
from bc2_data.handlers import HandlerOptions, make_handler
from bc2_data.shards.columns import ShardWriter
from bc2_data.shards.plan import Shard
from bc2_data.shards.report import Progress, ShardReport
from bc2_data.sources import Source
from bc2_data.sources.location import Location
from bc2_data.special_tokens import Policy
from bc2_data.tokenizer import Tokenizer, load_tokenizer

# A file whose first rows are all unusable is the wrong file, not a file with bad rows.
_PATIENCE_ROWS = 100


@dataclass(frozen=True)
class InputChecksum:
    """The SHA-256 of an input.

    Attributes:
        input: Its index in the plan.
        sha256: 64 hexadecimal digits.
    """

    input: int
    sha256: str


Event = Progress | ShardReport | InputChecksum


@dataclass(frozen=True, kw_only=True)
class Encoder:
    """How rows are encoded.

    Attributes:
        tokenizer: Directory with tokenizer.model, or the file.
        special_tokens: What to do with special tokens that stand literally in a text.
        engine: What encodes.
        handler: Format of the rows.
        handler_options: What was said about the format.
        limit: Concerning long documents.
    """

    tokenizer: Path
    special_tokens: Policy
    engine: EngineChoice
    handler: str
    handler_options: HandlerOptions
    limit: LengthLimit


@dataclass(frozen=True)
class EncodeShard:
    """Writes the columns of a shard into a folder, and its report when they are whole."""

    encoder: Encoder
    shard: Shard
    folder: Path

    def __str__(self) -> str:
        return f"shard {self.shard.index} ({self.shard.source.file})"

    def __iter__(self) -> Iterator[Event]:
        """Does the work; yields how it goes and, at the end, the report.

        Raises:
            DataError: The rows cannot be used, or the user wants to stop at what was found.
        """
        tokenizer = shared_tokenizer(
            self.encoder.tokenizer, self.encoder.special_tokens, self.encoder.engine
        )
        handler = make_handler(
            self.encoder.handler, self.encoder.handler_options, tokenizer.special
        )
        source = self.shard.source
        report = ShardReport(index=self.shard.index)
        literals_before = Counter(tokenizer.special_literals)
        unusable: list[Finding] = []
        with ShardWriter(self.folder, self.shard.index, handler.kind) as writer:
            for batch in source.batches(handler.columns):
                encoded = encode_batch(batch, source, handler, tokenizer, self.encoder.limit)
                if self.shard.begins_source and len(unusable) == report.rows:  # none is usable yet
                    unusable += [row for row in encoded.dropped if row.reason == "bad_row"]
                writer.add(encoded.documents)
                yield report.add(batch.size, encoded)
                if report.rows >= _PATIENCE_ROWS:
                    _refuse_wrong_file(source, unusable, report.rows)
            _refuse_wrong_file(source, unusable, report.rows)
            report.columns = writer.finish()
        report.special_literals = dict(Counter(tokenizer.special_literals) - literals_before)
        report.save(self.folder)
        yield report


@dataclass(frozen=True)
class HashInput:
    """Takes the checksum of an input."""

    input: int
    location: Location

    def __str__(self) -> str:
        return f"the checksum of {self.location}"

    def __iter__(self) -> Iterator[Event]:
        """Does the work."""
        yield InputChecksum(self.input, self.location.sha256())


@lru_cache(maxsize=1)
def shared_tokenizer(path: Path, special_tokens: Policy, engine: EngineChoice) -> Tokenizer:
    """Loads the tokenizer that all shards of a job share, once a process."""
    return load_tokenizer(path, special_tokens, engine)


def _refuse_wrong_file(source: Source, unusable: list[Finding], rows: int) -> None:
    if not rows or len(unusable) != rows:
        return
    first = unusable[0]
    raise DataError(
        f"{source.place(first.number)}: {first.why}, and none of the first {rows:,} "
        f"{source.unit}s is usable",
        first.hint or f"is {source.file} really {source.format} data for this --handler?",
    )
