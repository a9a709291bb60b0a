"""Reads datasets from end to end and checks that ids, labels and segments can be what they claim.

Labels: the position before a token is trained to predict nothing (-100), the token itself, or,
where a turn of the user begins, EOS, which ends the answer before. So a label that is none of the
first two is EOS. Segments: 1, 2, 3 ... in each row, 0 for padding at its end.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bc2_data.datasets import ATTENTION_MASK, INPUT_IDS, LABELS
from bc2_data.indexed import IndexedDataset, spans
from bc2_data.vocab import IGNORE_INDEX

_BATCH_TOKENS = 1 << 20


@dataclass
class Rule:
    """Something that holds for every token.

    Attributes:
        claim: What holds.
        fault: What the tokens are for which it does not, in the plural.
        count: Tokens found for which it does not.
        first: Where the first of them is, and its value.
    """

    claim: str
    fault: str
    count: int = 0
    first: str = ""


@dataclass(kw_only=True)
class Content:
    """What was read.

    Attributes:
        rules: What was checked, with what was found.
        trained_tokens: Predictions that are trained.
        conversations: Segments of all rows.
    """

    rules: list[Rule]
    trained_tokens: int = 0
    conversations: int = 0


def read_content(
    datasets: Mapping[str, IndexedDataset], vocab_size: int | None, eos: int | None
) -> Content:
    """Reads all tokens of a run's datasets, or of one dataset, in constant memory.

    Args:
        datasets: Datasets with equal indices, by key.
        vocab_size: Ids are below it; None where that is unknown.
        eos: The label at a user's turn; None to take the first that is neither -100 nor its token.
    """
    return _Reader(datasets, vocab_size, eos).read()


class _Reader:
    def __init__(
        self, datasets: Mapping[str, IndexedDataset], vocab_size: int | None, eos: int | None
    ) -> None:
        self._datasets = datasets
        self._ids = datasets.get(INPUT_IDS, next(iter(datasets.values())))
        self._starts = np.cumsum(self._ids.lengths, dtype=np.int64) - self._ids.lengths
        self._vocab_size = vocab_size
        self._eos = eos
        self._vocabulary = (
            Rule("no id is negative", "negative ids")
            if vocab_size is None
            else Rule(
                f"every id is in the vocabulary of {vocab_size:,}",
                f"ids outside the vocabulary of {vocab_size:,}",
            )
        )
        self._alignment = Rule(
            "every label is -100, its token, or the EOS that ends the turn before",
            "labels that are neither -100 nor their token nor EOS",
        )
        self._numbering = Rule(
            "segments are numbered 1, 2, 3 ... in every row, with 0 for padding at its end",
            "segment ids out of order",
        )
        rules = [self._vocabulary]
        if LABELS in datasets:
            rules += [self._alignment, self._numbering]
        self._content = Content(rules=rules)

    def read(self) -> Content:
        for first, end in spans(self._ids.lengths, _BATCH_TOKENS):
            self._read_rows(first, end)
            for dataset in self._datasets.values():
                dataset.release()
        return self._content

    def _read_rows(self, first: int, end: int) -> None:
        """Checks some rows; `place` is where their tokens are among all tokens."""
        begin = int(self._starts[first])
        place = slice(begin, int(self._starts[end - 1]) + int(self._ids.lengths[end - 1]))
        ids = self._ids.tokens[place]
        outside = ids < 0
        if self._vocab_size is not None:
            outside |= ids >= self._vocab_size
        self._judge(self._vocabulary, outside, ids, begin)
        if LABELS not in self._datasets:
            return
        labels = self._datasets[LABELS].tokens[place]
        segments = self._datasets[ATTENTION_MASK].tokens[place]
        opens_row = np.zeros(len(ids), np.bool_)
        filled = self._ids.lengths[first:end] > 0
        opens_row[self._starts[first:end][filled] - begin] = True
        self._check_labels(ids, labels, begin)
        self._check_segments(segments, opens_row, begin)
        self._count(labels, segments, opens_row)

    def _check_labels(self, ids: NDArray[Any], labels: NDArray[Any], begin: int) -> None:
        foreign = (labels != IGNORE_INDEX) & (labels != ids)
        if self._eos is None and foreign.any():
            self._eos = int(labels[foreign.argmax()])
        self._judge(self._alignment, foreign & (labels != self._eos), labels, begin)

    def _check_segments(
        self, segments: NDArray[Any], opens_row: NDArray[np.bool_], begin: int
    ) -> None:
        before = _before(segments)
        goes_on = (segments == before) | (segments == before + 1) | (segments == 0)
        right = np.where(before > 0, goes_on, segments == 0)
        self._judge(self._numbering, ~np.where(opens_row, segments == 1, right), segments, begin)

    def _count(
        self, labels: NDArray[Any], segments: NDArray[Any], opens_row: NDArray[np.bool_]
    ) -> None:
        inside = segments > 0
        opens = opens_row | (segments != _before(segments))
        self._content.conversations += int(np.count_nonzero(inside & opens))
        trained = inside & ~opens & (labels != IGNORE_INDEX)
        self._content.trained_tokens += int(np.count_nonzero(trained))

    def _judge(
        self, rule: Rule, wrong: NDArray[np.bool_], values: NDArray[Any], begin: int
    ) -> None:
        """Adds the tokens for which a rule does not hold; they begin at token `begin` of all."""
        count = int(np.count_nonzero(wrong))
        if count and not rule.count:
            place = int(wrong.argmax())
            row = int(np.searchsorted(self._starts, begin + place, side="right")) - 1
            token = begin + place - int(self._starts[row])
            rule.first = f"document {row}, token {token}: {values[place]}"
        rule.count += count


def _before(segments: NDArray[Any]) -> NDArray[Any]:
    """Returns the segment of the token before each token, 0 before the first."""
    return np.concatenate([np.zeros(1, segments.dtype), segments[:-1]])
