"""The files of a run, and how they come of the columns of its shards."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bc2_data.checksum import DigestWriter
from bc2_data.datasets import (
    ATTENTION_MASK,
    INPUT_IDS,
    LABELS,
    TEXT,
    dataset_prefixes,
    manifest_path,
)
from bc2_data.handlers.base import Kind
from bc2_data.indexed import bin_path, idx_path, write_index
from bc2_data.manifest import OutputFile, written_file
from bc2_data.shards import columns
from bc2_data.shards.joining import JoinedColumn

_CHUNK = 1 << 18
_COLUMNS = {TEXT: columns.IDS, INPUT_IDS: columns.IDS, LABELS: columns.LABELS}


def output_paths(prefix: Path, kind: Kind) -> list[Path]:
    """Returns all files of a run; its mark, the manifest, is the last."""
    datasets = dataset_prefixes(prefix, kind).values()
    files = [path for dataset in datasets for path in (bin_path(dataset), idx_path(dataset))]
    return [*files, manifest_path(prefix)]


def joined_paths(prefix: Path, kind: Kind) -> dict[str, Path]:
    """Returns where each column of all shards goes: the ids and labels are datasets' tokens."""
    paths = {columns.LENGTHS: prefix.with_name("lengths")}
    for key, dataset in dataset_prefixes(prefix, kind).items():
        if key in _COLUMNS:
            paths[_COLUMNS[key]] = bin_path(dataset)
    return paths


def finish_datasets(
    prefix: Path, kind: Kind, joined: Mapping[str, JoinedColumn]
) -> list[OutputFile]:
    """Writes what the datasets at a prefix lack beside their joined columns.

    These are their indices and, of instruction data, the attention mask, which is 1 everywhere.

    Returns:
        All files of the datasets.
    """
    lengths = _Lengths(joined[columns.LENGTHS].path)
    files = []
    for key, dataset in dataset_prefixes(prefix, kind).items():
        if key == ATTENTION_MASK:
            files.append(_write_ones(bin_path(dataset), joined[columns.IDS].size // 4))
        else:
            column = joined[_COLUMNS[key]]
            files.append(OutputFile(name=column.path.name, size=column.size, sha256=column.sha256))
        with DigestWriter(idx_path(dataset)) as file:
            write_index(file.write, lengths)
            files.append(written_file(file))
    return files


@dataclass(frozen=True)
class _Lengths:
    """The lengths of all documents, read anew each time."""

    path: Path

    def __iter__(self) -> Iterator[NDArray[np.int32]]:
        with open(self.path, "rb") as file:
            while len(chunk := np.fromfile(file, "<i4", _CHUNK)):
                yield chunk


def _write_ones(path: Path, tokens: int) -> OutputFile:
    ones = np.ones(_CHUNK, dtype="<i4")
    with DigestWriter(path) as file:
        for first in range(0, tokens, _CHUNK):
            file.write(ones[: tokens - first].data)
        return written_file(file)
