"""The names that a run's datasets have on disk, and how to find them again.

``PREFIX_text_document`` holds pretraining data; the three ``PREFIX_packed_*_document`` hold
instruction data, the same documents in each. The names are Megatron's and AscendSpeed's.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from bc2_data.errors import DataError, nearest
from bc2_data.handlers.base import Kind
from bc2_data.indexed import IndexedDataset, idx_path

INPUT_IDS = "input_ids"
LABELS = "labels"
ATTENTION_MASK = "attention_mask"
TEXT = "text"

_SUFFIXES: dict[Kind, dict[str, str]] = {
    "pretrain": {TEXT: "_text_document"},
    "instruction": {key: f"_packed_{key}_document" for key in (INPUT_IDS, LABELS, ATTENTION_MASK)},
}


def dataset_prefixes(prefix: Path, kind: Kind) -> dict[str, Path]:
    """Returns the path, without ``.bin`` and ``.idx``, of each dataset of a run by its key."""
    return {key: _append(prefix, suffix) for key, suffix in _SUFFIXES[kind].items()}


def run_prefix(prefix: Path) -> Path:
    """Returns a run's prefix, from itself or from the path of one of its datasets."""
    for suffixes in _SUFFIXES.values():
        for suffix in suffixes.values():
            if prefix.name.endswith(suffix) and prefix.name != suffix:
                return prefix.with_name(prefix.name.removesuffix(suffix))
    return prefix


def manifest_path(prefix: Path) -> Path:
    """Returns the manifest's path, from a run's prefix or from the path of one of its datasets."""
    return _append(run_prefix(prefix), ".manifest.json")


def find_datasets(prefix: Path) -> dict[str, Path]:
    """Returns the path of each dataset that stands, or ought to stand, at a prefix, by its key.

    Args:
        prefix: ``PREFIX`` of a run, or the path of one dataset without ``.bin`` and ``.idx``.

    Raises:
        DataError: Nothing stands there.
    """
    if idx_path(prefix).is_file():
        return {TEXT: prefix}
    kinds: tuple[Kind, ...] = ("instruction", "pretrain")
    for kind in kinds:
        datasets = dataset_prefixes(prefix, kind)
        if any(idx_path(path).is_file() for path in datasets.values()):
            return datasets
    folder = prefix.parent
    known = [path.name.removesuffix(".idx") for path in folder.glob("*.idx")]
    raise DataError(
        f"no dataset at {prefix}",
        nearest(prefix.name, known) if known else f"{folder} holds no .idx file",
    )


def open_datasets(prefix: Path) -> dict[str, IndexedDataset]:
    """Opens what stands at a prefix: a run's datasets by key, or one dataset by itself.

    Args:
        prefix: ``PREFIX`` of a run, or the path of one dataset without ``.bin`` and ``.idx``.

    Raises:
        DataError: Nothing stands there, a dataset is damaged, or they do not hold the same rows.
    """
    datasets = {key: IndexedDataset(path) for key, path in find_datasets(prefix).items()}
    first, *others = datasets.values()
    for other in others:
        if not (
            np.array_equal(first.lengths, other.lengths)
            and np.array_equal(first.document_indices, other.document_indices)
        ):
            raise DataError(
                f"{other.prefix} and {first.prefix} do not hold the same rows",
                "they are of different runs: tokenise again with --overwrite",
            )
    return datasets


def _append(prefix: Path, suffix: str) -> Path:
    return prefix.with_name(prefix.name + suffix)
