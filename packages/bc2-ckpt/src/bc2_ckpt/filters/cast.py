"""``--dtype``: the whole checkpoint in another dtype."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from bc2_ckpt.filters.base import Filter
from bc2_ckpt.filters.rounding import rounded
from bc2_ckpt.formats.protocol import CheckpointReader, TensorInfo


class Cast(Filter):
    """Every tensor in one dtype.

    Args:
        reader: The source.
        dtype: The dtype of everything that is read; a finite element that it cannot hold raises
            `bc2_ckpt.filters.rounding.OverflowsError`.
    """

    def __init__(self, reader: CheckpointReader, dtype: torch.dtype) -> None:
        super().__init__(reader)
        self._dtype = dtype

    def tensors(self) -> Mapping[str, TensorInfo]:
        """Returns every tensor, all of one dtype."""
        return {
            name: replace(info, dtype=self._dtype) for name, info in self._reader.tensors().items()
        }

    def read(self, name: str, rows: slice | None = None) -> Tensor:
        """Returns one tensor or rows of it, rounded to nearest even."""
        return rounded(self._reader.read(name, rows), self._dtype, name)
