"""The names that a run's datasets have on disk, and how to find them again.

``PREFIX_text_document`` holds pretraining data; the three ``PREFIX_packed_*_document`` hold
instruction data, the same documents in each. The names are Megatron's and AscendSpeed's.
"""

from __future__ import annotations

from pathlib import Path

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


def manifest_path(prefix: Path) -> Path:
    """Returns the manifest's path, from a run's prefix or from the path of one of its datasets."""
    for suffixes in _SUFFIXES.values():
        for suffix in suffixes.values():
            if prefix.name.endswith(suffix) and prefix.name != suffix:
                prefix = prefix.with_name(prefix.name.removesuffix(suffix))
    return _append(prefix, ".manifest.json")


def open_datasets(prefix: Path) -> dict[str, IndexedDataset]:
    """Opens what stands at a prefix: a run's datasets by key, or one dataset by itself.

    Args:
        prefix: ``PREFIX`` of a run, or the path of one dataset without ``.bin`` and ``.idx``.

    Raises:
        DataError: Nothing stands there, or a dataset is damaged.
    """
    if idx_path(prefix).is_file():
        return {TEXT: IndexedDataset(prefix)}
    kinds: tuple[Kind, ...] = ("instruction", "pretrain")
    for kind in kinds:
        datasets = dataset_prefixes(prefix, kind)
        if any(idx_path(path).is_file() for path in datasets.values()):
            return {key: IndexedDataset(path) for key, path in datasets.items()}
    folder = prefix.parent
    known = [path.name.removesuffix(".idx") for path in folder.glob("*.idx")]
    raise DataError(
        f"no dataset at {prefix}",
        nearest(prefix.name, known) if known else f"{folder} holds no .idx file",
    )


def _append(prefix: Path, suffix: str) -> Path:
    return prefix.with_name(prefix.name + suffix)
