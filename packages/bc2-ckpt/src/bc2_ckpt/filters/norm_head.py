"""``--fold-norm-head``: an output layer for runtimes that know no NormHead.

Baichuan2 divides every row of the output weight by its length before it computes logits
(``NormHead`` in the official modeling_baichuan.py). A runtime with a plain output layer computes
the same logits from rows that have been divided already.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from bc2_ckpt.config import ModelConfig
from bc2_ckpt.errors import CkptError
from bc2_ckpt.filters.base import Filter
from bc2_ckpt.filters.rounding import rounded
from bc2_ckpt.formats.protocol import CheckpointReader, TensorInfo

HEAD = "lm_head.weight"


class FoldedNormHead(Filter):
    """The same model with a plain output layer.

    Args:
        reader: The source.
        dtype: The dtype of the folded weight, so that it is rounded once; None for the source's.

    Raises:
        CkptError: The model has no NormHead.
    """

    def __init__(self, reader: CheckpointReader, dtype: torch.dtype | None = None) -> None:
        super().__init__(reader)
        if not reader.config.norm_head:
            raise CkptError(
                f"{reader.source} has no NormHead that could be folded: its config says "
                "norm_head false, or its vocabulary is Baichuan 1's",
                "leave --fold-norm-head out",
            )
        self._dtype = dtype or reader.tensors()[HEAD].dtype

    @property
    def config(self) -> ModelConfig:
        """The model, whose `norm_head` is false."""
        return replace(self._reader.config, norm_head=False)

    def tensors(self) -> Mapping[str, TensorInfo]:
        """Returns every tensor; the folded one may have another dtype."""
        infos = dict(self._reader.tensors())
        infos[HEAD] = replace(infos[HEAD], dtype=self._dtype)
        return infos

    def read(self, name: str, rows: slice | None = None) -> Tensor:
        """Returns one tensor or rows of it; those of the output weight have length 1."""
        tensor = self._reader.read(name, rows)
        return rounded(unit_rows(tensor), self._dtype, name) if name == HEAD else tensor


def unit_rows(weight: Tensor) -> Tensor:
    """Returns the rows of a weight, each divided by its Euclidean length.

    Args:
        weight: (rows, h).

    Returns:
        The same shape, in float32 or, where the weight has it, float64.
    """
    wide = weight.to(torch.promote_types(weight.dtype, torch.float32))
    return torch.nn.functional.normalize(wide)
