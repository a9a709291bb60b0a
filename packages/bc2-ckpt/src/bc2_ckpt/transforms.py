"""How a tensor's rows are arranged in Hugging Face and in Megatron, and how tensors are sharded.

Every function here is pure: it returns views or new tensors and changes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from bc2_ckpt.errors import MismatchError


class Transform(Protocol):
    """One arrangement of rows, in both directions: ``to_hf(to_megatron(x))`` equals x."""

    def to_megatron(self, tensor: Tensor) -> Tensor:
        """Turns a whole Hugging Face tensor into Megatron's arrangement."""
        ...

    def to_hf(self, tensor: Tensor) -> Tensor:
        """Turns a whole tensor in Megatron's arrangement back."""
        ...


@dataclass(frozen=True)
class Identity:
    """Both sides agree."""

    def to_megatron(self, tensor: Tensor) -> Tensor:
        """Returns the tensor itself."""
        return tensor

    def to_hf(self, tensor: Tensor) -> Tensor:
        """Returns the tensor itself."""
        return tensor


@dataclass(frozen=True)
class PackedQKV:
    """W_pack stacks [Q; K; V]; Megatron interleaves them head by head: q0 k0 v0 q1 k1 v1 ...

    Rotary positions need no further permutation: both sides rotate halves.

    Attributes:
        heads: Attention heads of the whole model.
    """

    heads: int

    def to_megatron(self, tensor: Tensor) -> Tensor:
        """(3 * heads * head_dim, h), thirds by projection, to the same shape by head."""
        parts = tensor.reshape(3, self.heads, -1, tensor.shape[1])
        return parts.transpose(0, 1).reshape(tensor.shape)

    def to_hf(self, tensor: Tensor) -> Tensor:
        """(3 * heads * head_dim, h), grouped by head, to the same shape by projection."""
        parts = tensor.reshape(self.heads, 3, -1, tensor.shape[1])
        return parts.transpose(0, 1).reshape(tensor.shape)


@dataclass(frozen=True)
class PaddedVocab:
    """Rows of the vocabulary, with rows of zeros behind them that only fill up the last rank.

    Attributes:
        rows: True rows.
        padded_rows: Rows with the padding, at least as many.
    """

    rows: int
    padded_rows: int

    def to_megatron(self, tensor: Tensor) -> Tensor:
        """(rows, h) to (padded_rows, h)."""
        if self.padded_rows == self.rows:
            return tensor
        return torch.cat([tensor, tensor.new_zeros(self.padded_rows - self.rows, tensor.shape[1])])

    def to_hf(self, tensor: Tensor) -> Tensor:
        """(padded_rows, h) to (rows, h)."""
        return tensor[: self.rows]


def split(tensor: Tensor, axis: int | None, size: int) -> list[Tensor]:
    """Returns the shards of all tensor-parallel ranks, in rank order.

    Args:
        tensor: A whole tensor in Megatron's arrangement.
        axis: The axis that is cut into equal parts; None where every rank holds the whole.
        size: Tensor-parallel size, a divisor of that axis.
    """
    if axis is None:
        return [tensor] * size
    return list(tensor.chunk(size, axis))


def join(shards: Sequence[Tensor], axis: int | None) -> Tensor:
    """Returns the whole tensor of all ranks' shards; the inverse of `split`.

    Raises:
        MismatchError: Ranks that should hold copies of one tensor hold different ones.
    """
    if axis is not None:
        return torch.cat(tuple(shards), axis)
    for rank, shard in enumerate(shards):
        if not torch.equal(shard, shards[0]):
            raise MismatchError(f"tensor-parallel ranks 0 and {rank} hold different copies")
    return shards[0]
