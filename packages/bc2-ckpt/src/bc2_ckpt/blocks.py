"""Tensors in blocks of rows, so that memory does not grow with the largest tensor."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from bc2_ckpt.formats.protocol import CheckpointReader
from bc2_ckpt.layout import Param

MAX_BYTES = 32 * 2**20
"""The size of a block: a row of any model is far smaller, a disk asks for no more."""


def row_blocks(rows: int, row_bytes: int, max_bytes: int | None = None) -> Iterator[slice]:
    """Cuts a tensor's rows into blocks.

    Args:
        rows: Size of axis 0.
        row_bytes: Bytes of one row.
        max_bytes: The largest block, `MAX_BYTES` if None; a larger row is a block by itself.

    Yields:
        Slices of axis 0, in order, which together are all rows.
    """
    step = max(1, (max_bytes or MAX_BYTES) // row_bytes)
    for start in range(0, rows, step):
        yield slice(start, min(start + step, rows))


def read_blocks(reader: CheckpointReader, name: str) -> Iterator[Tensor]:
    """Reads one tensor from its first row to its last, block by block."""
    info = reader.tensors()[name]
    rows = info.shape[0]
    for block in row_blocks(rows, info.num_bytes // rows):
        yield reader.read(name, block)


def megatron_blocks(
    reader: CheckpointReader, name: str, param: Param
) -> Iterator[tuple[slice, Tensor]]:
    """Reads one of a parameter's Hugging Face tensors in the order of Megatron's rows.

    Where Megatron has the rows in another order, the tensor is in memory as a whole; that is so
    for the attention's projections, but not for the vocabulary, which is far larger.

    Yields:
        ``slice(start, stop)`` of axis 0 and these rows.
    """
    if param.transform.keeps_order:
        start = 0
        for block in read_blocks(reader, name):
            yield slice(start, start + len(block)), block
            start += len(block)
        return
    tensor = reader.read(name)
    for rows in row_blocks(len(tensor), tensor[0].nbytes):
        yield rows, param.megatron_rows(rows, tensor)


def raw_bytes(tensor: Tensor) -> memoryview:
    """Returns the bytes of a tensor's elements in row-major order, a view where it lies so."""
    data: memoryview = tensor.contiguous().view(-1).view(torch.uint8).numpy().data
    return data
