"""Attention over a sequence that is split among ranks.

The sequence is cut into two chunks a rank, and rank r holds chunks r and 2n - 1 - r: with a causal
mask every rank then has the same work (the zigzag layout of megatron-core and of Llama 3, "The
Llama 3 Herd of Models", 2024, section 3.3.2). Keys and values are gathered whole; each of the two
query chunks attends to the keys before its own end, which puts it at the end of what it sees: the
alignment that `bc2_model.kernels.attention` takes for granted.
"""

from __future__ import annotations

from typing import Any

import torch
from megatron.core.tensor_parallel.mappings import gather_from_sequence_parallel_region

from bc2_model import kernels


def local_part(whole: torch.Tensor, dim: int, rank: int, size: int) -> torch.Tensor:
    """Returns the two chunks of a rank.

    Args:
        whole: Its dimension `dim` is the whole sequence, a multiple of 2 * size long.
        dim: The sequence dimension.
        rank: Context-parallel rank.
        size: Context-parallel size.
    """
    chunks = whole.chunk(2 * size, dim)
    return torch.cat([chunks[rank], chunks[2 * size - 1 - rank]], dim)


def gather(local: torch.Tensor, group: Any) -> torch.Tensor:
    """Returns the whole sequence in order, of local parts (seq / size, ...); differentiable.

    Args:
        local: This rank's two chunks along dimension 0.
        group: The context-parallel group.
    """
    size = group.size()
    gathered = gather_from_sequence_parallel_region(local, group=group)
    chunks = gathered.chunk(2 * size)
    # Rank r contributed chunks r and 2n - 1 - r, at places 2r and 2r + 1.
    early, late = chunks[0::2], chunks[1::2]
    return torch.cat([*early, *reversed(late)])


def attention(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    group: Any,
    *,
    alibi_slopes: torch.Tensor | None,
    segment_ids: torch.Tensor | None,
    scale: float | None,
) -> torch.Tensor:
    """Causal attention of this rank's queries over the whole sequence.

    Args:
        q: (seq / size, batch, heads, head_dim), this rank's two chunks.
        k: As q.
        v: As q.
        group: The context-parallel group.
        alibi_slopes: float32 (heads,), or None.
        segment_ids: (batch, seq) ids of the whole sequence, or None.
        scale: Factor of the scores.

    Returns:
        (batch, heads, seq / size, head_dim).
    """
    size, rank = group.size(), group.rank()
    length = q.shape[0] // 2
    keys, values = (gather(x, group).permute(1, 2, 0, 3) for x in (k, v))
    parts = []
    chunks = (rank, 2 * size - 1 - rank)
    for chunk, part in zip(chunks, q.permute(1, 2, 0, 3).chunk(2, 2), strict=True):
        end = (chunk + 1) * length
        parts.append(
            kernels.attention(
                part,
                keys[:, :, :end],
                values[:, :, :end],
                alibi_slopes=alibi_slopes,
                segment_ids=None if segment_ids is None else segment_ids[:, :end],
                scale=scale,
            )
        )
    return torch.cat(parts, dim=2)
