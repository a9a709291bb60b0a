"""Core attention for megatron-core layers, on `bc2_model.kernels.attention`.

Both position embeddings live here: ALiBi because it is part of the attention itself, rotary because
its positions restart with each packed document, which megatron-core's own tables cannot express.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import torch
from megatron.core.transformer.module import MegatronModule

from bc2_model import kernels
from bc2_model.megatron import context_parallel

if TYPE_CHECKING:
    from bc2_model.megatron.transformer import Baichuan2TransformerConfig


class CoreAttention(MegatronModule):
    """Causal attention with ALiBi or rotary positions, inside documents only.

    It stands in the place of megatron-core's DotProductAttention and has its signature.

    Args:
        config: The model under its parallel layout.
        softmax_scale: Factor of the scores; 1 / sqrt(head_dim) where None.
        pg_collection: The process groups of this rank.
        **_: layer_number, attn_mask_type, attention_type, cp_comm_type: not needed.
    """

    def __init__(
        self,
        config: Baichuan2TransformerConfig,
        *,
        softmax_scale: float | None,
        pg_collection: Any,
        **_: Any,
    ) -> None:
        super().__init__(config)
        model = config.model
        assert model is not None
        self.scale = softmax_scale
        self.cp_group = pg_collection.cp
        self.rope_theta = model.rope_theta if model.position_embedding == "rotary" else None
        self.slopes: torch.Tensor | None = None
        if model.position_embedding == "alibi":
            # Sliced from the whole model's table: the slopes of 5 heads are no part of those of 40.
            # A plain attribute: as a buffer it would be cast to bfloat16 with the model.
            heads = model.num_heads // pg_collection.tp.size()
            first = pg_collection.tp.rank() * heads
            self.slopes = kernels.alibi_slopes(model.num_heads)[first : first + heads]

    def forward(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attention_mask: torch.Tensor | None,
        **_: Any,
    ) -> torch.Tensor:
        """Attends.

        Args:
            query: (seq, batch, local heads, head_dim); under context parallelism this rank's part
                of seq, see `context_parallel`.
            key: As query.
            value: As query.
            attention_mask: (batch, seq) int segment ids of the whole sequence, 0 = padding; None =
                one document.
            **_: attn_mask_type, attention_bias, packed_seq_params: not used.

        Returns:
            (seq, batch, local heads * head_dim).
        """
        if self.rope_theta is not None:
            cos, sin = self._angles(query, attention_mask)
            query, key = (_rotate(x, cos, sin) for x in (query, key))
        if self.slopes is not None:
            self.slopes = self.slopes.to(query.device)
        if self.cp_group.size() > 1:
            out = context_parallel.attention(
                query,
                key,
                value,
                self.cp_group,
                alibi_slopes=self.slopes,
                segment_ids=attention_mask,
                scale=self.scale,
            )
        else:
            q, k, v = (x.permute(1, 2, 0, 3) for x in (query, key, value))
            out = kernels.attention(
                q, k, v, alibi_slopes=self.slopes, segment_ids=attention_mask, scale=self.scale
            )
        return out.permute(2, 0, 1, 3).flatten(2)

    def _angles(
        self, query: torch.Tensor, segment_ids: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns cosines and sines (batch or 1, seq, head_dim) of this rank's positions."""
        assert self.rope_theta is not None
        rank, size = self.cp_group.rank(), self.cp_group.size()
        tables = _rotary_tables(
            query.shape[0] * size, query.shape[3], self.rope_theta, query.device
        )
        if segment_ids is None:
            cos, sin = (table[None] for table in tables)
        else:
            positions = _positions(segment_ids)
            cos, sin = (table[positions] for table in tables)
        if size == 1:
            return cos, sin
        cos, sin = (context_parallel.local_part(x, 1, rank, size) for x in (cos, sin))
        return cos, sin


def _rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Rotates x (seq, batch, heads, head_dim) by its positions."""
    return kernels.rotary(x.permute(1, 2, 0, 3), cos, sin).permute(2, 0, 1, 3)


@functools.lru_cache(maxsize=4)
def _rotary_tables(
    length: int, head_dim: int, base: float, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns the cosines and sines of positions 0 ... length - 1, shared by all layers."""
    return kernels.rotary_tables(torch.arange(length, device=device), head_dim, base)


def _positions(segment_ids: torch.Tensor) -> torch.Tensor:
    """Returns positions (batch, seq) that restart with each segment."""
    index = torch.arange(segment_ids.shape[1], device=segment_ids.device)
    begins = torch.ones_like(segment_ids, dtype=torch.bool)
    begins[:, 1:] = segment_ids[:, 1:] != segment_ids[:, :-1]
    return index - torch.where(begins, index, 0).cummax(dim=1).values
