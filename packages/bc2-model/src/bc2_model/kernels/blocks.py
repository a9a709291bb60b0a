"""Rows in blocks, for work that is faster or smaller that way."""

from __future__ import annotations

import torch

_WEIGHT_ROWS = 4096
_CACHED_ELEMENTS = 2**18


def weight_blocks(rows: int) -> list[slice]:
    """Returns the rows of an output weight in blocks: no temporary is then as large as it."""
    return _blocks(rows, _WEIGHT_ROWS)


def cache_blocks(rows: int, columns: int, device: torch.device) -> list[slice]:
    """Returns the rows of (rows, columns) in blocks, for several operations one after the other.

    On a CPU a block, 1 MiB in float32, is still in the cache when the next operation reads it,
    which makes norms and activations up to twice as fast. Elsewhere there is one block, as every
    operation is a launch.
    """
    if device.type != "cpu":
        return [slice(0, rows)]
    return _blocks(rows, max(1, _CACHED_ELEMENTS // columns))


def _blocks(rows: int, size: int) -> list[slice]:
    return [slice(start, min(start + size, rows)) for start in range(0, rows, size)]
