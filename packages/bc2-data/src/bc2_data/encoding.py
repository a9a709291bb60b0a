"""From a batch of rows to documents of ids and labels: the work of one worker.

Nothing here keeps state between batches, so batches can be encoded anywhere and in any order.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from bc2_data.errors import DataError
from bc2_data.handlers.base import Handler, Sample, Text, Unusable
from bc2_data.sources import Batch, Row, Source, place
from bc2_data.special_tokens import SpecialTokenError
from bc2_data.tokenizer import Tokenizer
from bc2_data.vocab import IGNORE_INDEX

Overlong = Literal["drop", "truncate", "error"]
OVERLONG: tuple[Overlong, ...] = get_args(Overlong)


@dataclass(frozen=True, kw_only=True)
class LengthLimit:
    """What happens to documents of more than so many tokens.

    Attributes:
        tokens: The most tokens that a document may have, EOS included.
        overlong: ``drop`` leaves the document out, ``truncate`` keeps its first tokens, ``error``
            stops.
    """

    tokens: int
    overlong: Overlong

    def __post_init__(self) -> None:
        if self.tokens < 2:
            raise DataError(
                f"--max-length {self.tokens} leaves nothing to predict", "give at least 2 tokens"
            )


class Document(NamedTuple):
    """One document.

    Attributes:
        ids: int32 (tokens,).
        labels: int32 (tokens,), unshifted, -100 where nothing is trained.
    """

    ids: NDArray[np.int32]
    labels: NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class Finding:
    """A row that was dropped or shortened.

    Attributes:
        reason: The count that it adds to.
        number: The row's number in its file.
        why: What was found.
        hint: What the user may do about it.
    """

    reason: str
    number: int
    why: str
    hint: str = ""


@dataclass(slots=True)
class Encoded:
    """What became of one batch.

    Attributes:
        documents: In the order of their rows.
        dropped: Rows that gave no document.
        truncated: Rows whose document lost its end.
    """

    documents: list[Document] = field(default_factory=list)
    dropped: list[Finding] = field(default_factory=list)
    truncated: list[Finding] = field(default_factory=list)


def encode_batch(
    batch: Batch, source: Source, handler: Handler, tokenizer: Tokenizer, limit: LengthLimit | None
) -> Encoded:
    """Encodes some consecutive rows of one file.

    Args:
        batch: The rows.
        source: The file they are from, for errors.
        handler: Makes samples of rows.
        tokenizer: Encodes texts.
        limit: Concerning long documents; None for no limit.

    Raises:
        DataError: A literal special token, or an overlong document, where the user wants to stop.
    """
    encoded = Encoded()
    encoded.dropped += [Finding("bad_row", row.number, row.why) for row in batch.broken]
    samples: list[tuple[Row, Sample]] = []
    for row in batch.rows:
        try:
            samples.append((row, handler.render(row.fields)))
        except Unusable as unusable:
            finding = Finding(unusable.reason, row.number, unusable.why, unusable.hint)
            encoded.dropped.append(finding)
    texts = _encode_texts(samples, source, tokenizer)
    for row, sample in samples:
        _add(_assemble(sample, texts), row.number, source, limit, encoded)
    encoded.dropped.sort(key=lambda finding: finding.number)
    return encoded


def _encode_texts(
    samples: list[tuple[Row, Sample]], source: Source, tokenizer: Tokenizer
) -> Iterator[NDArray[np.int32]]:
    """Encodes all texts of a batch in one call, in the order in which the samples hold them."""
    texts = [
        (row.number, part.text)
        for row, sample in samples
        for part in sample
        if isinstance(part, Text)
    ]
    try:
        return iter(tokenizer.encode([text for _, text in texts]))
    except SpecialTokenError as error:
        number, _ = texts[error.index]
        raise DataError(f"{place(source, number)}: {error.message}", error.hint) from error


def _assemble(sample: Sample, texts: Iterator[NDArray[np.int32]]) -> Document:
    ids: list[NDArray[np.int32]] = []
    labels: list[NDArray[np.int32]] = []
    for part in sample:
        if isinstance(part, Text):
            tokens = next(texts)
            ids.append(tokens)
            labels.append(tokens if part.trained else np.full_like(tokens, IGNORE_INDEX))
        else:
            ids.append(np.array([part.id], dtype=np.int32))
            labels.append(np.array([part.label], dtype=np.int32))
    if len(ids) == 1:
        return Document(ids[0], labels[0])
    return Document(np.concatenate(ids), np.concatenate(labels))


def _add(
    document: Document, number: int, source: Source, limit: LengthLimit | None, encoded: Encoded
) -> None:
    length = len(document.ids)
    if limit is not None and length > limit.tokens:
        why = f"{length:,} tokens, --max-length is {limit.tokens:,}"
        if limit.overlong == "error":
            raise DataError(
                f"{place(source, number)}: {why}", "choose --overlong drop or --overlong truncate"
            )
        if limit.overlong == "drop":
            encoded.dropped.append(Finding("too_long", number, why))
            return
        document = Document(document.ids[: limit.tokens], document.labels[: limit.tokens])
        # The first label is never a target. An answer that begins beyond the limit leaves none.
        if (document.labels[1:] == IGNORE_INDEX).all():
            encoded.dropped.append(Finding("nothing_trained", number, why))
            return
        encoded.truncated.append(Finding("too_long", number, why))
    encoded.documents.append(document)
