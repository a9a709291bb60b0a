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
            query: (seq, batch, local heads, head_dim).
            key: As query.
            value: As query.
            attention_mask: (batch, seq) int segment ids, 0 = padding; None = one document.
            **_: attn_mask_type, attention_bias, packed_seq_params: not used.

        Returns:
            (seq, batch, local heads * head_dim).
        """
        q, k, v = (x.permute(1, 2, 0, 3) for x in (query, key, value))
        if self.rope_theta is not None:
            tables = _rotary_tables(q.shape[2], q.shape[3], self.rope_theta, q.device)
            cos, sin = tables if attention_mask is None else _restart(tables, attention_mask)
            q, k = kernels.rotary(q, cos, sin), kernels.rotary(k, cos, sin)
        if self.slopes is not None:
            self.slopes = self.slopes.to(q.device)
        out = kernels.attention(
            q, k, v, alibi_slopes=self.slopes, segment_ids=attention_mask, scale=self.scale
        )
        return out.permute(2, 0, 1, 3).flatten(2)


@functools.lru_cache(maxsize=4)
def _rotary_tables(
    length: int, head_dim: int, base: float, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns the cosines and sines of positions 0 ... length - 1, shared by all layers."""
    return kernels.rotary_tables(torch.arange(length, device=device), head_dim, base)


def _restart(
    tables: tuple[torch.Tensor, torch.Tensor], segment_ids: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns tables (batch, seq, head_dim) whose positions restart with each segment."""
    index = torch.arange(segment_ids.shape[1], device=segment_ids.device)
    begins = torch.ones_like(segment_ids, dtype=torch.bool)
    begins[:, 1:] = segment_ids[:, 1:] != segment_ids[:, :-1]
    first = torch.where(begins, index, 0).cummax(dim=1).values
    cos, sin = tables
    return cos[index - first], sin[index - first]
