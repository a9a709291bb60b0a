"""A dozen lines of numpy, written from the description of the format, read what bc2-data writes."""

from __future__ import annotations

from pathlib import Path

import numpy as np


def read(prefix: Path) -> tuple[list[list[int]], list[int]]:
    """Returns the sequences, and the first sequence of each document with the end behind them."""
    index = Path(f"{prefix}.idx").read_bytes()
    assert index[:9] == b"MMIDIDX\0\0"
    assert int.from_bytes(index[9:17], "little") == 1
    assert index[17] == 4  # int32
    sequences, bounds = np.frombuffer(index, "<u8", 2, 18).tolist()
    lengths = np.frombuffer(index, "<i4", sequences, 34)
    places = np.frombuffer(index, "<i8", sequences, 34 + 4 * sequences)
    documents = np.frombuffer(index, "<i8", bounds, 34 + 12 * sequences)
    assert len(index) == 34 + 12 * sequences + 8 * bounds
    tokens = np.fromfile(f"{prefix}.bin", "<i4")
    starts = places // 4
    rows = [tokens[s : s + n].tolist() for s, n in zip(starts, lengths, strict=True)]
    return rows, documents.tolist()


def test_every_document_is_there(pretraining_data: Path, documents: list[list[int]]) -> None:
    rows, bounds = read(pretraining_data)
    assert len(documents) > 30
    assert rows == documents
    assert bounds == list(range(len(documents) + 1))
    assert Path(f"{pretraining_data}.bin").stat().st_size == 4 * sum(map(len, documents))
