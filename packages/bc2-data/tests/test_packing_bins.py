from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from bc2_data.packing import Rows, best_fit_decreasing

CAPACITY = 50
LENGTHS = st.lists(st.integers(1, CAPACITY), max_size=200).map(np.array)


def sums(lengths: NDArray[np.int64], rows: Rows) -> list[int]:
    return [
        int(lengths[rows.items[start:end]].sum())
        for start, end in zip(rows.starts[:-1], rows.starts[1:], strict=True)
    ]


def straight_line(lengths: list[int], capacity: int) -> list[int]:
    """Best-fit decreasing as a textbook has it; returns what the rows hold."""
    filled: list[int] = []
    for length in sorted(lengths, reverse=True):
        fitting = [row for row, held in enumerate(filled) if held + length <= capacity]
        if fitting:
            filled[max(fitting, key=lambda row: filled[row])] += length
        else:
            filled.append(length)
    return filled


@given(lengths=LENGTHS)
def test_every_item_stands_in_one_row_that_holds_it(lengths: NDArray[np.int64]) -> None:
    lengths = lengths.astype(np.int64)
    rows = best_fit_decreasing(lengths, CAPACITY)
    assert sorted(rows.items.tolist()) == list(range(len(lengths)))
    assert (rows.starts[0], rows.starts[-1]) == (0, len(lengths))
    held = sums(lengths, rows)
    assert len(held) == len(rows)
    assert max(held, default=0) <= CAPACITY
    assert all(held)  # no row is empty
    # No two rows could be one.
    assert len(held) < 2 or sum(sorted(held)[:2]) > CAPACITY


@given(lengths=LENGTHS)
def test_it_is_best_fit_decreasing(lengths: NDArray[np.int64]) -> None:
    lengths = lengths.astype(np.int64)
    held = sums(lengths, best_fit_decreasing(lengths, CAPACITY))
    assert sorted(held) == sorted(straight_line(lengths.tolist(), CAPACITY))


@given(lengths=LENGTHS)
def test_rows_and_items_keep_the_order_of_the_source(lengths: NDArray[np.int64]) -> None:
    rows = best_fit_decreasing(lengths.astype(np.int64), CAPACITY)
    items = [
        rows.items[start:end].tolist()
        for start, end in zip(rows.starts[:-1], rows.starts[1:], strict=True)
    ]
    assert all(row == sorted(row) for row in items)
    assert [row[0] for row in items] == sorted(row[0] for row in items)


@pytest.mark.parametrize("lengths", [[0], [CAPACITY + 1], [3, -1, 4]])
def test_lengths_out_of_range_are_refused(lengths: list[int]) -> None:
    with pytest.raises(ValueError, match="do not fit rows of 50"):
        best_fit_decreasing(np.array(lengths), CAPACITY)


def test_a_hundred_thousand_documents_fill_their_rows_in_under_a_second() -> None:
    generator = np.random.default_rng(0)
    drawn = generator.lognormal(mean=5.5, sigma=1.2, size=100_000)
    lengths = np.clip(drawn, 1, 4097).astype(np.int64)
    start = time.process_time()
    rows = best_fit_decreasing(lengths, 4097)
    seconds = time.process_time() - start
    assert seconds < 1
    assert lengths.sum() / (len(rows) * 4097) > 0.999
