"""One document cut into stretches that are trained alike, and its tokens as readable text."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby, pairwise
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from bc2_data.datasets import ATTENTION_MASK, INPUT_IDS, LABELS
from bc2_data.errors import DataError
from bc2_data.indexed import IndexedDataset
from bc2_data.tokenizer import Tokenizer
from bc2_data.vocab import IGNORE_INDEX

# Escape sequences in the data must not reach a terminal, nor may text run backwards.
_UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")

Target = Literal["nothing", "itself", "other"]
_TARGETS: tuple[Target, ...] = ("nothing", "itself", "other")


@dataclass(frozen=True)
class Stretch:
    """Consecutive tokens of one conversation that are trained alike.

    Attributes:
        segment: Number of the conversation in its row, from 1; 0 for padding.
        target: What the positions before these tokens are trained to predict: nothing, these
            tokens, or the one that `label` names.
        label: The label of the first token.
        ids: (tokens,) the tokens.
    """

    segment: int
    target: Target
    label: int
    ids: NDArray[Any]


@dataclass(frozen=True)
class DocumentView:
    """One document.

    Attributes:
        number: Its place among the documents, from 0.
        tokens: How many it has.
        stretches: In order. Pretraining data, which trains everything, is one stretch.
        labelled: Whether it has labels.
    """

    number: int
    tokens: int
    stretches: list[Stretch]
    labelled: bool

    def conversations(self) -> Iterator[tuple[str, list[Stretch]]]:
        """Yields each conversation with a heading, which is empty where there is but one."""
        packed = any(stretch.segment != 1 for stretch in self.stretches)
        for segment, group in groupby(self.stretches, lambda stretch: stretch.segment):
            stretches = list(group)
            name = f"conversation {segment}" if segment else "padding"
            tokens = sum(len(stretch.ids) for stretch in stretches)
            yield f"{name}: {tokens:,} tokens" if packed else "", stretches


def view_document(datasets: Mapping[str, IndexedDataset], number: int) -> DocumentView:
    """Returns one document of a run's datasets, or of one dataset.

    The first token of a conversation is shown as not predicted, whatever its label: nothing stands
    before it.

    Raises:
        DataError: There is no such document.
    """
    dataset = datasets.get(INPUT_IDS, next(iter(datasets.values())))
    ids = _document(dataset, number)
    if LABELS not in datasets:
        everything = Stretch(1, "itself", IGNORE_INDEX, ids)
        return DocumentView(number, len(ids), [everything] if len(ids) else [], labelled=False)
    labels = _document(datasets[LABELS], number)
    segments = _document(datasets[ATTENTION_MASK], number)
    predicted = (labels != IGNORE_INDEX) & (segments > 0)
    predicted[0:1] = False
    predicted[1:] &= segments[1:] == segments[:-1]
    kinds = np.where(predicted, np.where(labels == ids, 1, 2), 0)
    changes = (
        (np.diff(kinds) != 0)
        | (np.diff(segments) != 0)
        | ((kinds[1:] == 2) & (np.diff(labels) != 0))
    )
    borders = [0, *(np.flatnonzero(changes) + 1).tolist(), len(ids)]
    stretches = [
        Stretch(int(segments[start]), _TARGETS[kinds[start]], int(labels[start]), ids[start:end])
        for start, end in pairwise(borders)
        if end > start
    ]
    return DocumentView(number, len(ids), stretches, labelled=True)


def readable(ids: NDArray[Any], tokenizer: Tokenizer | None) -> str:
    r"""Returns the text of tokens, control tokens included, or ids where there is no tokenizer.

    Control characters other than newline and tab are spelled out, as in ``\x1b``.
    """
    if tokenizer is None:
        return " ".join(map(str, ids.tolist()))
    names = tokenizer.control
    shown = ""
    start = 0
    for position in np.flatnonzero(np.isin(ids, list(names))).tolist():
        shown += tokenizer.decode(ids[start:position]) + names[int(ids[position])]
        start = position + 1
    shown += tokenizer.decode(ids[start:])
    return _UNSAFE.sub(lambda match: ascii(match.group())[1:-1], shown)


def _document(dataset: IndexedDataset, number: int) -> NDArray[Any]:
    if not 0 <= number < dataset.num_documents:
        raise DataError(
            f"{dataset.prefix.name} has no document {number}",
            f"documents run from 0 to {dataset.num_documents - 1}",
        )
    first, end = dataset.document_indices[number : number + 2]
    return np.concatenate(
        [np.empty(0, dataset.dtype), *(dataset[sequence] for sequence in range(first, end))]
    )
