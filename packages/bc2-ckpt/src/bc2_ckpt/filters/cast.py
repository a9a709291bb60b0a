"""``--dtype``: a checkpoint in another dtype."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from bc2_ckpt.filters.base import Filter
from bc2_ckpt.filters.rounding import rounded
from bc2_ckpt.formats.protocol import CheckpointReader, TensorInfo


class Cast(Filter):
    """Every tensor, or every matrix, in one dtype.

    Args:
        reader: The source.
        dtype: The dtype of everything that is read; a finite element that it cannot hold raises
            `bc2_ckpt.filters.rounding.OverflowsError`.
        matrices_only: Whether the weights of the norms stay as they are.
    """

    def __init__(
        self, reader: CheckpointReader, dtype: torch.dtype, matrices_only: bool = False
    ) -> None:
        super().__init__(reader)
        self._tensors = {
            name: info if matrices_only and len(info.shape) == 1 else replace(info, dtype=dtype)
            for name, info in reader.tensors().items()
        }

    def tensors(self) -> Mapping[str, TensorInfo]:
        """Returns every tensor, with the dtype that it is read in."""
        return self._tensors

    def read(self, name: str, rows: slice | None = None) -> Tensor:
        """Returns one tensor or rows of it, rounded to nearest even."""
        return rounded(self._reader.read(name, rows), self._tensors[name].dtype, name)
