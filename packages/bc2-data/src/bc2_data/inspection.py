"""What ``bc2-data inspect`` shows of a dataset."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bc2_data.datasets import INPUT_IDS, LABELS, manifest_path, open_datasets
from bc2_data.errors import DataError
from bc2_data.indexed import IndexedDataset
from bc2_data.manifest import Manifest, Tally, read_manifest
from bc2_data.tokenizer import Tokenizer
from bc2_data.vocab import IGNORE_INDEX


def describe(prefix: Path) -> Iterator[str]:
    """Yields lines about the datasets at a prefix and their manifest.

    Raises:
        DataError: Nothing stands there, or it is damaged.
    """
    for dataset in open_datasets(prefix).values():
        yield (
            f"{dataset.prefix.name}: {dataset.num_documents:,} documents, "
            f"{dataset.num_tokens:,} tokens, {dataset.dtype}"
        )
        yield from _lengths(dataset.lengths)
    manifest_file = manifest_path(prefix)
    if manifest_file.is_file():
        yield from describe_manifest(read_manifest(manifest_file))
    else:
        yield f"no manifest at {manifest_file}"


def describe_manifest(manifest: Manifest) -> Iterator[str]:
    """Yields lines about what was made of what."""
    rows = sum(file.rows for file in manifest.inputs)
    options = " ".join(f"{name}={value}" for name, value in manifest.options.items())
    tokenizer = manifest.tokenizer
    files = "1 file" if len(manifest.inputs) == 1 else f"{len(manifest.inputs)} files"
    yield f"made of {rows:,} rows in {files}: {options}"
    yield (
        f"tokenizer {tokenizer.path}: {tokenizer.vocab_size:,} pieces, "
        f"sha256 {tokenizer.sha256[:16]}..., engine {tokenizer.engine}"
    )
    if manifest.trained_tokens is not None:
        share = manifest.trained_tokens / manifest.tokens
        yield f"trained: {manifest.trained_tokens:,} of {manifest.tokens:,} tokens ({share:.1%})"
    for literal, count in tokenizer.special_literals.items():
        yield f"special token {literal} in the text: {count:,} ({tokenizer.special_tokens})"
    yield from _tallies("dropped", manifest.dropped)
    yield from _tallies("truncated", manifest.truncated)


def show_document(prefix: Path, index: int, tokenizer: Tokenizer | None) -> Iterator[str]:
    """Yields lines that show one document, and of instruction data what is trained in it.

    Args:
        prefix: ``PREFIX`` of a run, or the path of one dataset.
        index: The document, from 0.
        tokenizer: Turns ids into text; None shows ids.

    Raises:
        DataError: There is no such document, or the tokenizer is another one than the data's.
    """
    datasets = open_datasets(prefix)
    dataset = datasets.get(INPUT_IDS, next(iter(datasets.values())))
    ids = _document(dataset, index)
    yield f"document {index} of {dataset.num_documents:,}: {len(ids):,} tokens"
    if LABELS not in datasets:
        yield _shown(ids, tokenizer)
        return
    yield "what the text before it is trained to predict: - nothing, = the text itself, or a token"
    labels = _document(datasets[LABELS], index)
    for start, end in _runs(ids, labels):
        mark = _mark(ids[start], labels[start], tokenizer)
        yield f"{mark:>6} | {_shown(ids[start:end], tokenizer)}"


def _lengths(lengths: NDArray[np.int32]) -> Iterator[str]:
    if len(lengths):
        low, median, high, top = np.percentile(lengths, [0, 50, 99, 100])
        yield (
            f"  tokens a sequence: min {low:,.0f}, median {median:,.0f}, "
            f"mean {lengths.mean():,.1f}, 99 % {high:,.0f}, max {top:,.0f}"
        )


def _tallies(what: str, tallies: Mapping[str, Tally]) -> Iterator[str]:
    for reason, tally in tallies.items():
        yield f"{what} {tally.count:,} rows ({reason}), such as {tally.examples[0]}"


def _document(dataset: IndexedDataset, index: int) -> NDArray[Any]:
    if not 0 <= index < dataset.num_documents:
        raise DataError(
            f"{dataset.prefix.name} has no document {index}",
            f"documents run from 0 to {dataset.num_documents - 1}",
        )
    first, end = dataset.document_indices[index : index + 2]
    return np.concatenate([dataset[sequence] for sequence in range(first, end)])


def _runs(ids: NDArray[Any], labels: NDArray[Any]) -> Iterator[tuple[int, int]]:
    """Yields start and end of the longest stretches whose labels are of one sort."""
    sort = np.where(labels == IGNORE_INDEX, 0, np.where(labels == ids, 1, 2))
    borders = np.flatnonzero(np.diff(sort)) + 1
    yield from pairwise([0, *borders.tolist(), len(ids)])


def _mark(token: int, label: int, tokenizer: Tokenizer | None) -> str:
    if label == IGNORE_INDEX:
        return "-"
    return "=" if label == token else _shown(np.array([label]), tokenizer)


def _shown(ids: NDArray[Any], tokenizer: Tokenizer | None) -> str:
    """Returns text, control tokens included, or ids where there is no tokenizer."""
    if tokenizer is None:
        return " ".join(map(str, ids))
    special = tokenizer.special
    names = {special.bos: "<s>", special.eos: "</s>", special.pad: "<unk>"}
    control = np.flatnonzero(np.isin(ids, list(names))).tolist()
    shown = ""
    start = 0
    for position in control:
        shown += tokenizer.decode(ids[start:position]) + names[int(ids[position])]
        start = position + 1
    return shown + tokenizer.decode(ids[start:])
