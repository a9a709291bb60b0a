"""How a tensor's rows are arranged in Hugging Face and in Megatron, and how tensors are sharded.

Every function here is pure: it returns views or new tensors and changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch
from torch import Tensor

from bc2_ckpt.errors import MismatchError


class Transform(Protocol):
    """One arrangement of rows, in both directions: ``to_hf(to_megatron(x))`` equals x.

    Attributes:
        keeps_order: Whether Hugging Face's rows come first in Megatron, in the same order.
    """

    keeps_order: ClassVar[bool]

    def to_megatron(self, tensor: Tensor) -> Tensor:
        """Turns a whole Hugging Face tensor into Megatron's arrangement."""
        ...

    def to_hf(self, tensor: Tensor) -> Tensor:
        """Turns a whole tensor in Megatron's arrangement back."""
        ...

    def megatron_rows(self, rows: slice, length: int) -> Iterator[slice]:
        """Yields where Megatron has some of Hugging Face's rows, run by run.

        Args:
            rows: ``slice(start, stop)`` of the Hugging Face tensor.
            length: Its number of rows.
        """
        ...

    def hf_rows(self, rows: slice, length: int) -> Iterator[slice]:
        """Yields where Hugging Face has some of Megatron's true rows, run by run.

        Args:
            rows: ``slice(start, stop)`` of the tensor in Megatron's arrangement.
            length: Rows of the Hugging Face tensor.
        """
        ...


@dataclass(frozen=True)
class Identity:
    """Both sides agree."""

    keeps_order: ClassVar[bool] = True

    def to_megatron(self, tensor: Tensor) -> Tensor:
        """Returns the tensor itself."""
        return tensor

    def to_hf(self, tensor: Tensor) -> Tensor:
        """Returns the tensor itself."""
        return tensor

    def megatron_rows(self, rows: slice, length: int) -> Iterator[slice]:
        """Yields the rows themselves."""
        yield rows

    hf_rows = megatron_rows


@dataclass(frozen=True)
class PackedQKV:
    """W_pack stacks [Q; K; V]; Megatron interleaves them head by head: q0 k0 v0 q1 k1 v1 ...

    Rotary positions need no further permutation: both sides rotate halves.

    Attributes:
        heads: Attention heads of the whole model.
    """

    keeps_order: ClassVar[bool] = False
    heads: int

    def to_megatron(self, tensor: Tensor) -> Tensor:
        """(3 * heads * head_dim, h), thirds by projection, to the same shape by head."""
        parts = tensor.reshape(3, self.heads, -1, tensor.shape[1])
        return parts.transpose(0, 1).reshape(tensor.shape)

    def to_hf(self, tensor: Tensor) -> Tensor:
        """(3 * heads * head_dim, h), grouped by head, to the same shape by projection."""
        parts = tensor.reshape(self.heads, 3, -1, tensor.shape[1])
        return parts.transpose(0, 1).reshape(tensor.shape)

    def megatron_rows(self, rows: slice, length: int) -> Iterator[slice]:
        """Yields one run for every head of a projection that the rows touch."""
        return _transposed(rows, length, 3, self.heads)

    def hf_rows(self, rows: slice, length: int) -> Iterator[slice]:
        """Yields one run for every projection of a head that the rows touch."""
        return _transposed(rows, length, self.heads, 3)


@dataclass(frozen=True)
class PaddedVocab:
    """Rows of the vocabulary, with rows of zeros behind them that only fill up the last rank.

    Attributes:
        rows: True rows.
        padded_rows: Rows with the padding, at least as many.
    """

    keeps_order: ClassVar[bool] = True
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

    def megatron_rows(self, rows: slice, length: int) -> Iterator[slice]:
        """Yields the rows themselves: the padding is behind them."""
        yield rows

    hf_rows = megatron_rows


def _transposed(rows: slice, length: int, outer: int, inner: int) -> Iterator[slice]:
    """Yields where rows go when (outer, inner, n) groups of rows become (inner, outer, n)."""
    size = length // (outer * inner)
    start = rows.start
    while start < rows.stop:
        group, within = divmod(start, size)
        i, j = divmod(group, inner)
        stop = min(rows.stop, start - within + size)
        first = (j * outer + i) * size + within
        yield slice(first, first + stop - start)
        start = stop


def gather(runs: Iterable[slice], read: Callable[[slice], Tensor]) -> Tensor:
    """Returns runs of rows, as `Transform` yields them, one behind the other."""
    parts = [read(run) for run in runs]
    return parts[0] if len(parts) == 1 else torch.cat(parts)


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


def split_rows(
    part: Tensor, start: int, rows: int, axis: int | None, size: int
) -> Iterator[tuple[int, Tensor]]:
    """Yields tensor-parallel ranks and what they get of some rows of a whole tensor.

    A rank that gets all of its parts, of ascending rows, one behind the other, has its shard.

    Args:
        part: The rows, in Megatron's arrangement.
        start: The first of them.
        rows: How many the whole tensor has.
        axis: As for `split`.
        size: As for `split`.
    """
    if axis == 0:
        share = rows // size
        for rank in range(start // share, (start + len(part) - 1) // share + 1):
            yield rank, part[max(0, rank * share - start) : (rank + 1) * share - start]
    else:
        yield from enumerate(split(part, axis, size))


def join(shards: Sequence[Tensor], axis: int | None) -> Tensor:
    """Returns the whole tensor of all ranks' shards; the inverse of `split`.

    Raises:
        MismatchError: Ranks that should hold copies of one tensor hold different ones.
    """
    rows = sum(map(len, shards)) if axis == 0 else len(shards[0])
    return join_rows(shards, slice(0, rows), axis)


def join_rows(shards: Sequence[Tensor], rows: slice, axis: int | None) -> Tensor:
    """Returns ``slice(start, stop)`` of the rows of the whole tensor, as `join` returns all.

    Raises:
        MismatchError: Ranks that should hold copies of one tensor hold different ones.
    """
    parts = shard_rows(shards, rows, axis)
    if axis is not None:
        return parts[0] if len(parts) == 1 else torch.cat(parts, axis)
    for rank, part in enumerate(parts):
        if not torch.equal(_bits(part), _bits(parts[0])):
            raise MismatchError(f"tensor-parallel ranks 0 and {rank} hold different copies")
    return parts[0]


def shard_rows(shards: Sequence[Tensor], rows: slice, axis: int | None) -> list[Tensor]:
    """Returns what of all ranks' shards `join_rows` puts together, as views."""
    if axis != 0:
        return [shard[rows] for shard in shards]
    share = len(shards[0])
    ranks = range(rows.start // share, (rows.stop - 1) // share + 1)
    return [
        shards[rank][max(0, rows.start - rank * share) : rows.stop - rank * share] for rank in ranks
    ]


def _bits(tensor: Tensor) -> Tensor:
    """The bytes of a tensor, which are alike even where its elements are no numbers."""
    return tensor.contiguous().view(torch.uint8)
