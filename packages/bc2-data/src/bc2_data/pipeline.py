"""Tokenises files into Megatron datasets with a manifest, all of it or nothing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from bc2_data import __version__
from bc2_data.atomic import new_files, refuse_existing
from bc2_data.checksum import sha256
from bc2_data.datasets import dataset_prefixes, manifest_path
from bc2_data.encoding import Encoded, Finding, LengthLimit, encode_batch
from bc2_data.errors import DataError
from bc2_data.handlers import HandlerOptions, make_handler
from bc2_data.handlers.base import Handler, Kind
from bc2_data.indexed import bin_path, idx_path
from bc2_data.manifest import InputFile, Manifest, Tally, TokenizerUse, output_files
from bc2_data.outputs import DatasetWriters
from bc2_data.sources import Source, open_sources, place
from bc2_data.special_tokens import Policy
from bc2_data.throughput import Throughput
from bc2_data.tokenizer import Tokenizer, load_tokenizer
from bc2_data.vocab import IGNORE_INDEX

# A file whose first rows are all unusable is the wrong file, not a file with bad rows.
_PATIENCE_ROWS = 100


@dataclass(frozen=True, kw_only=True)
class TokenizeConfig:
    """What to tokenise, and how.

    Attributes:
        inputs: Files and folders, in order.
        tokenizer: Directory with tokenizer.model, or the file.
        output_prefix: Path that the names of all outputs begin with.
        handler: Format of the rows, one of `bc2_data.handlers.HANDLERS`.
        handler_options: What was said about the format.
        limit: Concerning long documents; None for no limit.
        special_tokens: What to do with special tokens that stand literally in a text.
        log_interval: A line on stderr for every so many documents; None for none.
        overwrite: Whether existing outputs may be replaced.
    """

    inputs: Sequence[Path]
    tokenizer: Path
    output_prefix: Path
    handler: str = "text"
    handler_options: HandlerOptions = field(default_factory=HandlerOptions)
    limit: LengthLimit | None = None
    special_tokens: Policy = "escape"
    log_interval: int | None = None
    overwrite: bool = False


def tokenize(config: TokenizeConfig) -> Manifest:
    """Writes the datasets of all inputs and their manifest.

    The outputs appear at the end, the manifest last; on an error nothing does.

    Raises:
        DataError: An input cannot be used, or an output exists already.
    """
    sources = open_sources(config.inputs)
    tokenizer = load_tokenizer(config.tokenizer, config.special_tokens)
    handler = make_handler(config.handler, config.handler_options, tokenizer.special)
    prefixes = dataset_prefixes(config.output_prefix, handler.kind)
    files = [path for prefix in prefixes.values() for path in (bin_path(prefix), idx_path(prefix))]
    manifest_file = manifest_path(config.output_prefix)
    refuse_existing(*files, manifest_file, overwrite=config.overwrite)

    summary = _Summary(handler.kind)
    total_bytes = sum(source.path.stat().st_size for source in sources)
    with new_files(*files, manifest_file) as (*partials, manifest_partial):
        pairs = dict(zip(prefixes, zip(partials[::2], partials[1::2], strict=True), strict=True))
        with (
            Throughput(total_bytes, config.log_interval) as throughput,
            DatasetWriters(handler.kind, pairs) as writers,
        ):
            for source in sources:
                summary.open(source)
                for size, encoded in _encode_source(source, handler, tokenizer, config.limit):
                    writers.add(encoded.documents)
                    tokens = summary.add(source, encoded)
                    throughput.advance(size=size, documents=len(encoded.documents), tokens=tokens)
        if not summary.documents:
            raise DataError(
                f"no document is left of {summary.rows:,} rows ({summary.losses() or 'no rows'})",
                "look at the rows, --handler and --max-length",
            )
        manifest = Manifest(
            bc2_data=__version__,
            kind=handler.kind,
            options=_options(config),
            inputs=summary.inputs(),
            tokenizer=_tokenizer_use(tokenizer),
            outputs=output_files(zip(partials, (file.name for file in files), strict=True)),
            documents=summary.documents,
            tokens=summary.tokens,
            trained_tokens=summary.trained_tokens,
            dropped=summary.dropped,
            truncated=summary.truncated,
        )
        manifest_partial.write_text(manifest.to_json(), encoding="utf-8")
    return manifest


def _encode_source(
    source: Source, handler: Handler, tokenizer: Tokenizer, limit: LengthLimit | None
) -> Iterator[tuple[int, Encoded]]:
    """Yields what became of each batch of a file, with the bytes of the file it took."""
    rows = 0
    unusable: list[Finding] = []
    for batch in source.batches(handler.columns):
        encoded = encode_batch(batch, source, handler, tokenizer, limit)
        yield batch.size, encoded
        if len(unusable) == rows:  # no usable row so far
            unusable += [finding for finding in encoded.dropped if finding.reason == "bad_row"]
        rows += len(batch)
        if len(unusable) == rows >= _PATIENCE_ROWS:
            raise _wrong_file(source, unusable)
    if rows and len(unusable) == rows:
        raise _wrong_file(source, unusable)


def _wrong_file(source: Source, unusable: list[Finding]) -> DataError:
    first = unusable[0]
    return DataError(
        f"{place(source, first.number)}: {first.why}, and none of the first {len(unusable):,} "
        f"{source.unit}s is usable",
        first.hint or f"is {source.path.name} really {source.format} data for this --handler?",
    )


class _Summary:
    """Adds up what became of all rows."""

    def __init__(self, kind: Kind) -> None:
        self.documents = 0
        self.tokens = 0
        self.trained_tokens: int | None = 0 if kind == "instruction" else None
        self.dropped: dict[str, Tally] = {}
        self.truncated: dict[str, Tally] = {}
        self._rows: list[tuple[Source, int]] = []

    @property
    def rows(self) -> int:
        return sum(rows for _, rows in self._rows)

    def open(self, source: Source) -> None:
        """Begins a file; the same file may come twice."""
        self._rows.append((source, 0))

    def add(self, source: Source, encoded: Encoded) -> int:
        """Adds one batch of the file opened last and returns its number of tokens."""
        _, rows = self._rows[-1]
        self._rows[-1] = (source, rows + len(encoded.documents) + len(encoded.dropped))
        for tallies, findings in (
            (self.dropped, encoded.dropped),
            (self.truncated, encoded.truncated),
        ):
            for finding in findings:
                tally = tallies.setdefault(finding.reason, Tally())
                tally.add(f"{place(source, finding.number)}: {finding.why}")
        tokens = sum(len(document.ids) for document in encoded.documents)
        self.documents += len(encoded.documents)
        self.tokens += tokens
        if self.trained_tokens is not None:
            self.trained_tokens += sum(
                int(np.count_nonzero(document.labels[1:] != IGNORE_INDEX))
                for document in encoded.documents
            )
        return tokens

    def losses(self) -> str:
        """Returns the dropped rows by reason, as in ``no_text: 3, bad_row: 1``."""
        return ", ".join(f"{reason}: {tally.count:,}" for reason, tally in self.dropped.items())

    def inputs(self) -> list[InputFile]:
        """Describes the files; reads each once more for its checksum."""
        return [
            InputFile(
                path=str(source.path),
                size=source.path.stat().st_size,
                sha256=sha256(source.path),
                rows=rows,
            )
            for source, rows in self._rows
        ]


def _options(config: TokenizeConfig) -> dict[str, Any]:
    """Returns what was asked for and changes the output, by option."""
    options = config.handler_options
    asked = {
        "handler": config.handler,
        "text_key": options.text_key,
        "template": options.template,
        "append_eos": options.append_eos,
        "max_length": config.limit.tokens if config.limit else None,
        "overlong": config.limit.overlong if config.limit else None,
    }
    return {name: value for name, value in asked.items() if value is not None}


def _tokenizer_use(tokenizer: Tokenizer) -> TokenizerUse:
    return TokenizerUse(
        path=str(tokenizer.path),
        sha256=tokenizer.sha256,
        vocab_size=tokenizer.vocab_size,
        engine=tokenizer.engine,
        special_tokens=tokenizer.policy,
        special_literals=dict(sorted(tokenizer.special_literals.items())),
    )
