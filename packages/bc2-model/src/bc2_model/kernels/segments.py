"""Where the segments of a row of ids begin and end."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Run(NamedTuple):
    """Neighbouring positions with one id.

    Attributes:
        id: Their id; not 0.
        where: Their positions.
    """

    id: int
    where: range


def runs(ids: Tensor) -> list[Run]:
    """Returns the runs of equal ids in order, padding (id 0) left out.

    Args:
        ids: Integers (positions,).
    """
    values, lengths = torch.unique_consecutive(ids, return_counts=True)
    found = []
    start = 0
    for value, length in zip(values.tolist(), lengths.tolist(), strict=True):
        if value != 0:
            found.append(Run(value, range(start, start + length)))
        start += length
    return found
