"""Writes packed rows: conversations gathered from the source, and the numbers of their tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bc2_data.datasets import INPUT_IDS, LABELS
from bc2_data.documents import Documents
from bc2_data.indexed import IndexedDataset, IndexedWriter, spans
from bc2_data.manifest import OutputFile, written_file
from bc2_data.progress import progress_bar

_BATCH_TOKENS = 1 << 20

Datasets = Mapping[str, IndexedDataset]


def write_rows(
    source: Datasets,
    order: NDArray[np.int64],
    lengths: NDArray[np.int64],
    starts: NDArray[np.int64],
    files: Sequence[Path],
) -> tuple[int, list[OutputFile]]:
    """Writes rows.

    Args:
        source: Ids and labels of unpacked conversations.
        order: int64 (conversations,), their numbers in the source, row after row.
        lengths: int64 (conversations,), how many tokens to take of each, in the same order.
        starts: int64 (rows + 1,), where each row begins in `order`, and its length at the end.
        files: The .bin and the .idx of ids, labels and attention mask.

    Returns:
        How many predictions are trained in the rows, and what was written, in the order of `files`.
    """
    row_lengths = np.add.reduceat(lengths, starts[:-1])
    trained = 0
    with ExitStack() as stack:
        bar = stack.enter_context(progress_bar(int(lengths.sum()), "tokens", "packing"))
        ids_writer, labels_writer, mask_writer = writers = [
            stack.enter_context(IndexedWriter(*pair))
            for pair in zip(files[::2], files[1::2], strict=True)
        ]
        for first, end in spans(row_lengths, _BATCH_TOKENS):
            some = slice(starts[first], starts[end])
            ids = source[INPUT_IDS].gather(order[some], lengths[some])
            labels = source[LABELS].gather(order[some], lengths[some])
            segments = _segment_ids(lengths[some], starts[first : end + 1] - starts[first])
            ids_writer.add_flat(ids, row_lengths[first:end])
            labels_writer.add_flat(labels, row_lengths[first:end])
            mask_writer.add_flat(segments, row_lengths[first:end])
            trained += Documents(ids, labels, lengths[some].astype(np.int32)).count_trained()
            bar.update(len(ids))
    return trained, [written_file(file) for writer in writers for file in writer.files]


def _segment_ids(lengths: NDArray[np.int64], starts: NDArray[np.int64]) -> NDArray[np.int32]:
    """Numbers the conversations of each row from 1, and repeats the number for each token.

    Args:
        lengths: int64 (conversations,), tokens in each.
        starts: int64 (rows + 1,), where each row begins in `lengths`.
    """
    numbers = np.arange(1, len(lengths) + 1) - np.repeat(starts[:-1], np.diff(starts))
    return np.repeat(numbers.astype(np.int32), lengths)
