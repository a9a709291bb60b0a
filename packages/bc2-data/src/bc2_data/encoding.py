"""From a batch of rows to documents of ids and labels.

Nothing here keeps state between batches, so batches can be encoded anywhere and in any order.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from bc2_data.assembly import Assembly
from bc2_data.documents import Documents
from bc2_data.errors import DataError, TextError
from bc2_data.handlers.base import Handler, Sample, Unusable
from bc2_data.sources import Batch, Source
from bc2_data.tokenizer import Tokenizer
from bc2_data.vocab import IGNORE_INDEX

Overlong = Literal["drop", "truncate", "error"]
OVERLONG: tuple[Overlong, ...] = get_args(Overlong)


@dataclass(frozen=True, kw_only=True)
class LengthLimit:
    """What happens to documents of more than so many tokens.

    Attributes:
        tokens: The most tokens that a document may have, EOS included; None for any number.
        overlong: ``drop`` leaves the document out, ``truncate`` keeps its first tokens, ``error``
            stops. A row of more bytes than its source holds in memory is dropped under
            ``truncate`` too: a part of a row is no row.
        name: What messages call it.
    """

    tokens: int | None = None
    overlong: Overlong = "drop"
    name: str = "--max-length"

    def __post_init__(self) -> None:
        if self.tokens is not None and self.tokens < 2:
            raise DataError(
                f"{self.name} {self.tokens} leaves nothing to predict", "give at least 2 tokens"
            )


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


@dataclass(frozen=True, slots=True)
class Encoded:
    """What became of one batch.

    Attributes:
        documents: In the order of their rows.
        dropped: Rows that gave no document, in order.
        truncated: Rows whose document lost its end, in order.
    """

    documents: Documents
    dropped: list[Finding]
    truncated: list[Finding]


def encode_batch(
    batch: Batch, source: Source, handler: Handler, tokenizer: Tokenizer, limit: LengthLimit
) -> Encoded:
    """Encodes some consecutive rows of one file.

    Args:
        batch: The rows.
        source: The file they are from, for errors.
        handler: Makes samples of rows.
        tokenizer: Encodes texts.
        limit: Concerning long documents.

    Raises:
        DataError: A literal special token, or an overlong row, where the user wants to stop; or a
            fast engine that differs from its reference.
    """
    dropped = [Finding(row.reason, row.number, row.why) for row in batch.broken]
    if limit.overlong == "error":
        _refuse_too_large(dropped, source)
    numbers: list[int] = []
    samples: list[Sample] = []
    for row in batch.rows:
        try:
            samples.append(handler.render(row.fields))
        except Unusable as unusable:
            dropped.append(Finding(unusable.reason, row.number, unusable.why, unusable.hint))
        else:
            numbers.append(row.number)
    assembly = Assembly(samples)
    try:
        ids, text_lengths = tokenizer.encode_flat(assembly.texts)
    except TextError as error:
        number = numbers[assembly.sample_of(error.index)]
        raise DataError(f"{source.place(number)}: {error.message}", error.hint) from error
    documents = assembly.documents(ids, text_lengths, labelled=handler.kind == "instruction")

    kept, too_long, truncated = _shortened(documents, numbers, source, limit)
    dropped += too_long
    if not kept.all() or truncated:
        documents = documents.cut(kept)
    dropped.sort(key=lambda finding: finding.number)
    return Encoded(documents, dropped, truncated)


def _refuse_too_large(broken: list[Finding], source: Source) -> None:
    for row in broken:
        if row.reason == "too_large":
            raise DataError(
                f"{source.place(row.number)}: {row.why}",
                "choose --overlong drop, or give a larger --max-row-bytes",
            )


def _shortened(
    documents: Documents, numbers: list[int], source: Source, limit: LengthLimit
) -> tuple[NDArray[np.int32], list[Finding], list[Finding]]:
    """Applies the limit.

    Returns:
        How many tokens are left of each document, and the findings about documents dropped and
        truncated.
    """
    dropped: list[Finding] = []
    truncated: list[Finding] = []
    lengths = documents.lengths.copy()
    for index in np.flatnonzero(lengths == 0).tolist():
        dropped.append(Finding("no_text", numbers[index], "no token comes of it"))
    if limit.tokens is None:
        return lengths, dropped, truncated
    for index in np.flatnonzero(lengths > limit.tokens).tolist():
        number = numbers[index]
        why = f"{lengths[index]:,} tokens, {limit.name} is {limit.tokens:,}"
        if limit.overlong == "error":
            raise DataError(
                f"{source.place(number)}: {why}", "choose --overlong drop or --overlong truncate"
            )
        if limit.overlong == "drop":
            dropped.append(Finding("too_long", number, why))
            lengths[index] = 0
        elif (documents[index].labels[1 : limit.tokens] == IGNORE_INDEX).all():
            # The answer begins beyond the limit; the first label is never a target.
            dropped.append(Finding("nothing_trained", number, why))
            lengths[index] = 0
        else:
            truncated.append(Finding("too_long", number, why))
            lengths[index] = limit.tokens
    return lengths, dropped, truncated
