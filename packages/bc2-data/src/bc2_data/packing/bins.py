"""Best-fit decreasing: which items share a row of limited capacity.

The longest item first, each into the row that it leaves the least room in. Rows are kept by the
room they have left, so an item costs one binary search among at most `capacity` different rooms,
however many rows there are.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import defaultdict
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Rows:
    """Which items stand in which row.

    Attributes:
        items: int64 (items,), item numbers, row after row. Within a row they ascend, and rows are
            in the order of their first items, so that reading them stays close to reading in order.
        starts: int64 (rows + 1,), where each row begins in `items`, and their number at the end.
    """

    items: NDArray[np.int64]
    starts: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.starts) - 1


def best_fit_decreasing(lengths: NDArray[np.integer], capacity: int) -> Rows:
    """Puts items into few rows; equal arguments give equal rows.

    Args:
        lengths: (items,) length of each item, from 1 to `capacity`.
        capacity: The most that the lengths in a row may add up to.

    Raises:
        ValueError: A length is out of range.
    """
    if len(lengths) and not 1 <= lengths.min() <= lengths.max() <= capacity:
        raise ValueError(
            f"lengths from {lengths.min()} to {lengths.max()} do not fit rows of {capacity}"
        )
    return _in_order(_assign(lengths, capacity))


def _assign(lengths: NDArray[np.integer], capacity: int) -> NDArray[np.int64]:
    """Returns the row of each item; rows are numbered as they are opened."""
    longest_first = np.argsort(-lengths.astype(np.int64), kind="stable")
    row_of: NDArray[np.int64] = np.empty(len(lengths), np.int64)
    rooms: list[int] = []  # what the open rows have left, each value once, ascending
    rows_with: defaultdict[int, list[int]] = defaultdict(list)  # open rows by what they have left
    opened = 0
    for item, length in zip(longest_first.tolist(), lengths[longest_first].tolist(), strict=True):
        place = bisect_left(rooms, length)
        if place == len(rooms):
            row, left = opened, capacity
            opened += 1
        else:
            left = rooms[place]
            row = rows_with[left].pop()
            if not rows_with[left]:
                del rooms[place]
        left -= length
        row_of[item] = row
        if left:
            if not rows_with[left]:
                insort(rooms, left)
            rows_with[left].append(row)
    return row_of


def _in_order(row_of: NDArray[np.int64]) -> Rows:
    """Groups the items by row, the rows in the order of their first items."""
    items = np.argsort(row_of, kind="stable")
    counts = np.bincount(row_of)
    firsts = items[np.cumsum(counts) - counts]
    order = np.argsort(firsts)
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    starts: NDArray[np.int64] = np.zeros(len(counts) + 1, np.int64)
    np.cumsum(counts[order], out=starts[1:])
    return Rows(np.argsort(rank[row_of], kind="stable"), starts)
