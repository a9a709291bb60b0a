"""What is known about datasets, as lines for a terminal or a log."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from bc2_data.datasets import manifest_path, open_datasets
from bc2_data.indexed import IndexedDataset
from bc2_data.inspection.lengths import length_statistics
from bc2_data.manifest import Manifest, Tally, read_manifest


def describe(prefix: Path) -> Iterator[str]:
    """Yields lines about the datasets at a prefix and their manifest.

    Raises:
        DataError: Nothing stands there, or it is damaged.
    """
    datasets = open_datasets(prefix)
    yield from describe_datasets(datasets)
    lengths = next(iter(datasets.values())).lengths
    if len(lengths):
        statistics = length_statistics(lengths)
        yield statistics.summary
        yield from statistics.bars()
    yield from describe_source(prefix)


def describe_datasets(datasets: Mapping[str, IndexedDataset]) -> Iterator[str]:
    """Yields a line for each dataset."""
    for dataset in datasets.values():
        yield (
            f"{dataset.prefix.name}: {dataset.num_documents:,} documents, "
            f"{dataset.num_tokens:,} tokens, {dataset.dtype}"
        )


def describe_source(prefix: Path) -> Iterator[str]:
    """Yields lines about the manifest of the datasets at a prefix, or that there is none."""
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
    if manifest.part is not None:
        yield f"rank {manifest.part.rank} of the {manifest.part.world_size} parts of a job"
    yield (
        f"tokenizer {tokenizer.path}: {tokenizer.vocab_size:,} pieces, "
        f"sha256 {tokenizer.sha256[:16]}..., engine {tokenizer.engine}"
    )
    if manifest.trained_tokens is not None:
        share = manifest.trained_tokens / max(manifest.tokens, 1)  # a part may be empty
        yield f"trained: {manifest.trained_tokens:,} of {manifest.tokens:,} tokens ({share:.1%})"
    yield from _packing(manifest)
    for literal, count in tokenizer.special_literals.items():
        yield f"special token {literal} in the text: {count:,} ({tokenizer.special_tokens})"
    yield from _tallies("dropped", manifest.dropped)
    yield from _tallies("truncated", manifest.truncated)


def _packing(manifest: Manifest) -> Iterator[str]:
    packing = manifest.packing
    if packing is None:
        return
    rows, conversations = manifest.documents, packing.conversations
    yield (
        f"packed: {conversations:,} conversations in {rows:,} rows of up to "
        f"{packing.capacity:,} tokens, {manifest.tokens / (rows * packing.capacity):.2%} full"
    )
    yield (
        f"  a padded row for each would be "
        f"{manifest.tokens / (conversations * packing.capacity):.2%} full: "
        f"packing saves {1 - rows / conversations:.1%} of the rows"
    )


def _tallies(what: str, tallies: Mapping[str, Tally]) -> Iterator[str]:
    for reason, tally in tallies.items():
        yield f"{what} {tally.count:,} rows ({reason}), such as {tally.examples[0]}"
