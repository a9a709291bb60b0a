"""Several datasets side by side: what share each has, and how to train on all of them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from bc2_data.datasets import TEXT, open_datasets
from bc2_data.indexed import IndexedDataset


def compare(prefixes: Sequence[Path]) -> Iterator[str]:
    """Yields a table of datasets, with the share of all tokens that each holds.

    For pretraining data there follow the keys of a bc2-train recipe that blends them by these
    shares, so that a run goes through all of the data at one pace.

    Args:
        prefixes: For each, ``PREFIX`` of a run, or the path of one dataset.

    Raises:
        DataError: Nothing stands at a prefix, or it is damaged.
    """
    opened = [open_datasets(prefix) for prefix in prefixes]
    datasets = [next(iter(run.values())) for run in opened]
    total = max(sum(dataset.num_tokens for dataset in datasets), 1)
    width = max(len(str(prefix)) for prefix in prefixes)
    yield f"{'prefix':<{width}}  {'documents':>14}  {'tokens':>18}  {'share':>8}"
    for prefix, dataset in zip(prefixes, datasets, strict=True):
        yield (
            f"{prefix!s:<{width}}  {dataset.num_documents:>14,}  {dataset.num_tokens:>18,}  "
            f"{dataset.num_tokens / total:>8.4f}"
        )
    if all(run.keys() == {TEXT} for run in opened):
        yield from _recipe(datasets, total)


def _recipe(datasets: Sequence[IndexedDataset], total: int) -> Iterator[str]:
    first, *others = datasets
    yield ""
    yield "# in a recipe of bc2-train"
    yield "data:"
    yield f"  prefix: {_quoted(first)}"
    yield f"  prefix_weight: {first.num_tokens / total:.6f}"
    yield "  blend:"
    for dataset in others:
        yield f"    {_quoted(dataset)}: {dataset.num_tokens / total:.6f}"


def _quoted(dataset: IndexedDataset) -> str:
    return json.dumps(str(dataset.prefix), ensure_ascii=False)  # which is YAML too
