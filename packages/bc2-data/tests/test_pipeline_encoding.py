"""Documents in flat arrays, against lists put together one by one."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import accumulate, pairwise
from typing import Any, ClassVar

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from bc2_data.assembly import Assembly
from bc2_data.documents import Documents
from bc2_data.encoding import LengthLimit, encode_batch
from bc2_data.handlers.base import Kind, Sample, Text, Token
from bc2_data.sources import Batch, Row
from bc2_data.sources.jsonl import JsonLinesSource
from bc2_data.sources.location import Location
from bc2_data.sources.stored import StoredFile
from bc2_data.tokenizer import Tokenizer

TOKENS = st.builds(Token, id=st.integers(0, 99), label=st.sampled_from([-100, 2, 7]))
TEXTS = st.builds(Text, text=st.text("ab", max_size=5), trained=st.booleans())
SAMPLES = st.lists(st.lists(st.one_of(TOKENS, TEXTS), max_size=6), max_size=6)


def ids_of(text: str) -> list[int]:
    return [ord(character) for character in text]


def one_by_one(sample: Sample) -> tuple[list[int], list[int]]:
    ids: list[int] = []
    labels: list[int] = []
    for part in sample:
        if isinstance(part, Token):
            ids.append(part.id)
            labels.append(part.label)
        else:
            ids += ids_of(part.text)
            labels += ids_of(part.text) if part.trained else [-100] * len(part.text)
    return ids, labels


def assemble(samples: list[Sample], labelled: bool = True) -> Documents:
    assembly = Assembly(samples)
    ids = np.array(ids_of("".join(assembly.texts)), dtype=np.int32)
    lengths = np.array([len(text) for text in assembly.texts], dtype=np.int64)
    return assembly.documents(ids, lengths, labelled=labelled)


@given(samples=SAMPLES)
def test_all_samples_at_once_are_what_each_is(samples: list[Sample]) -> None:
    documents = assemble(samples)
    assert documents.ids.dtype == documents.lengths.dtype == np.int32
    assert [(ids.tolist(), labels.tolist()) for ids, labels in documents] == [
        one_by_one(sample) for sample in samples
    ]
    unlabelled = assemble(samples, labelled=False)
    assert unlabelled.labels is None
    np.testing.assert_array_equal(unlabelled.ids, documents.ids)


@given(samples=SAMPLES)
def test_a_text_belongs_to_its_sample(samples: list[Sample]) -> None:
    owners = [
        number for number, sample in enumerate(samples) for part in sample if isinstance(part, Text)
    ]
    assembly = Assembly(samples)
    assert [assembly.sample_of(text) for text in range(len(assembly.texts))] == owners


@given(
    samples=st.lists(st.lists(st.one_of(TOKENS, TEXTS), min_size=1, max_size=6), max_size=6),
    lengths=st.lists(st.integers(0, 9), min_size=6, max_size=6),
)
def test_cut_and_count(samples: list[Sample], lengths: list[int]) -> None:
    documents = assemble(samples)
    kept = np.minimum(documents.lengths, np.array(lengths[: len(samples)], dtype=np.int32))
    cut = documents.cut(kept)
    each = [
        (ids[:length], labels[:length])
        for (ids, labels), length in zip(map(one_by_one, samples), kept.tolist(), strict=True)
        if length
    ]
    assert [(ids.tolist(), labels.tolist()) for ids, labels in cut] == each
    assert cut.count_trained() == sum(label != -100 for _, labels in each for label in labels[1:])
    unlabelled = Documents(cut.ids, None, cut.lengths)
    assert unlabelled.count_trained() == sum(len(ids) - 1 for ids, _ in each)


def test_documents_are_a_sequence() -> None:
    documents = assemble([[Text(text, trained=True)] for text in ("ab", "b", "aaa")])
    ends = list(accumulate((2, 1, 3), initial=0))
    spans = [documents.ids[start:end].tolist() for start, end in pairwise(ends)]
    assert [document.ids.tolist() for document in documents] == spans
    assert documents[-1].ids.tolist() == spans[-1]
    assert [document.ids.tolist() for document in documents[1:]] == spans[1:]
    assert len(documents) == 3


class EmptyHandler:
    """A handler of another package that now and then makes nothing of a row."""

    kind: ClassVar[Kind] = "instruction"
    columns: ClassVar[tuple[str, ...]] = ("text",)

    def render(self, fields: Mapping[str, Any]) -> Sample:
        return [Text(fields["text"], trained=True)] if fields["text"] is not None else []


def test_a_row_that_comes_to_nothing_is_counted(tokenizer: Tokenizer) -> None:
    texts = ["a", "", "b", None, "c"]
    batch = Batch(rows=[Row(number, {"text": text}) for number, text in enumerate(texts, start=1)])
    source = JsonLinesSource(StoredFile(Location("data.jsonl")))
    encoded = encode_batch(batch, source, EmptyHandler(), tokenizer, LengthLimit())
    assert [(row.number, row.reason) for row in encoded.dropped] == [(2, "no_text"), (4, "no_text")]
    assert [tokenizer.decode(document.ids) for document in encoded.documents] == ["a", "b", "c"]
