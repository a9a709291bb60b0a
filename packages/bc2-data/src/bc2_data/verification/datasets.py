"""Are the datasets at a prefix whole, and what their manifest says?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from bc2_data.checks import Check
from bc2_data.checksum import sha256
from bc2_data.datasets import LABELS, find_datasets, manifest_path, open_datasets, run_prefix
from bc2_data.errors import DataError
from bc2_data.indexed import IndexedDataset, bin_path, idx_path
from bc2_data.manifest import Manifest, OutputFile, read_manifest
from bc2_data.tokenizer import Tokenizer
from bc2_data.verification.contents import read_content


class VerificationError(DataError):
    """Data is not what it claims to be."""

    exit_status = 1


def verify(prefix: Path, tokenizer: Tokenizer | None = None) -> Iterator[Check]:
    """Yields one check after the other; reads the files twice, in constant memory.

    Args:
        prefix: ``PREFIX`` of a run, or the path of one of its datasets.
        tokenizer: The data should be of this tokenizer; None to go by the manifest.

    Raises:
        DataError: No dataset stands at the prefix.
    """
    prefix = run_prefix(prefix)
    paths = find_datasets(prefix)
    manifest_file = manifest_path(prefix)
    manifest = None
    if not manifest_file.is_file():
        yield Check("skipped", f"checksums and counts: no manifest at {manifest_file}")
    else:
        try:
            manifest = read_manifest(manifest_file)
        except DataError as error:
            yield Check("failed", error.message)
    if manifest is not None:
        files = [file for path in paths.values() for file in (bin_path(path), idx_path(path))]
        yield from _files(files, manifest, manifest_file)
        if tokenizer is not None:
            yield _same_tokenizer(manifest, tokenizer)
    try:
        datasets = open_datasets(prefix)
    except DataError as error:
        yield Check("failed", error.message)
        return
    yield Check("ok", "the indices are whole, equal, and fit the tokens")
    yield from _contents(datasets, manifest, tokenizer)


def _files(files: list[Path], manifest: Manifest, manifest_file: Path) -> Iterator[Check]:
    """Compares the files with what the manifest says of them."""
    known = {file.name: file for file in manifest.outputs}
    wrong = [why for path in files for why in _wrong_file(path, known.get(path.name))]
    if wrong:
        yield from (Check("failed", why) for why in wrong)
    else:
        yield Check("ok", f"{len(files)} files have the sizes and SHA-256 of {manifest_file.name}")


def _wrong_file(path: Path, known: OutputFile | None) -> Iterator[str]:
    if not path.is_file():
        yield f"{path} does not exist"
    elif known is None:
        yield f"{path} is not in the manifest"
    elif path.stat().st_size != known.size:
        yield f"{path} has {path.stat().st_size:,} bytes, the manifest says {known.size:,}"
    elif (digest := sha256(path)) != known.sha256:
        yield f"{path} has SHA-256 {digest[:16]}..., the manifest says {known.sha256[:16]}..."


def _same_tokenizer(manifest: Manifest, tokenizer: Tokenizer) -> Check:
    if tokenizer.sha256 == manifest.tokenizer.sha256:
        return Check("ok", f"the data was made with {tokenizer.path}")
    return Check(
        "failed",
        f"the data was made with a tokenizer of SHA-256 {manifest.tokenizer.sha256[:16]}..., "
        f"{tokenizer.path} has {tokenizer.sha256[:16]}...",
    )


def _contents(
    datasets: Mapping[str, IndexedDataset], manifest: Manifest | None, tokenizer: Tokenizer | None
) -> Iterator[Check]:
    """Checks ids, labels and segments, and compares their counts with the manifest's."""
    vocab_size = None
    if tokenizer is not None:
        vocab_size = tokenizer.vocab_size
    elif manifest is not None:
        vocab_size = manifest.tokenizer.vocab_size
    else:
        yield Check("skipped", "ids against the vocabulary: give --tokenizer")
    content = read_content(datasets, vocab_size, tokenizer.special.eos if tokenizer else None)
    for rule in content.rules:
        if rule.count:
            yield Check("failed", f"{rule.count:,} {rule.fault}, first {rule.first}")
        else:
            yield Check("ok", rule.claim)
    if manifest is None:
        return
    dataset = next(iter(datasets.values()))
    counts = {
        "documents": (dataset.num_documents, manifest.documents),
        "tokens": (dataset.num_tokens, manifest.tokens),
    }
    if LABELS in datasets:
        conversations = manifest.packing.conversations if manifest.packing else manifest.documents
        counts["trained tokens"] = (content.trained_tokens, manifest.trained_tokens or 0)
        counts["conversations"] = (content.conversations, conversations)
    yield from _counts(counts)
    if manifest.packing is not None:
        yield _row_lengths(dataset, manifest.packing.capacity)


def _counts(counts: Mapping[str, tuple[int, int]]) -> Iterator[Check]:
    wrong = {what: pair for what, pair in counts.items() if pair[0] != pair[1]}
    for what, (found, said) in wrong.items():
        yield Check("failed", f"{found:,} {what}, the manifest says {said:,}")
    if not wrong:
        yield Check("ok", f"{', '.join(counts)} are as many as the manifest says")


def _row_lengths(dataset: IndexedDataset, capacity: int) -> Check:
    long = np.flatnonzero(dataset.lengths > capacity)
    if not len(long):
        return Check("ok", f"no row has more than {capacity:,} tokens")
    return Check(
        "failed", f"{len(long):,} rows of more than {capacity:,} tokens, first document {long[0]}"
    )
