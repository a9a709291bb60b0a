"""Baichuan and Baichuan2 for transformers, on `bc2_model.kernels`.

Parameters have the names and shapes of the official checkpoints. Source of the semantics: the
official ``modeling_baichuan.py`` of Baichuan2-7B-Base and Baichuan2-13B-Base.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.cache_utils import Cache, DynamicCache
from transformers.generation import GenerationMixin
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import BaseModelOutputWithPast, CausalLMOutputWithPast
from transformers.utils import can_return_tuple

from bc2_model import kernels
from bc2_model.errors import ModelError
from bc2_model.hf.configuration import BaichuanConfig
from bc2_model.hf.head import OutputHead, mean_loss

RotaryTables = tuple[Tensor, Tensor]


class BaichuanRMSNorm(nn.Module):
    """Root-mean-square norm with a learned scale."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, hidden: Tensor) -> Tensor:
        """Normalises hidden (..., size) over its last dimension."""
        return kernels.rms_norm(hidden, self.weight, self.eps)


class BaichuanMLP(nn.Module):
    """The gated feed-forward layer: down(silu(gate(x)) * up(x))."""

    def __init__(self, config: BaichuanConfig) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.up_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size, bias=False)

    def forward(self, hidden: Tensor) -> Tensor:
        """Maps hidden (..., hidden_size) to the same shape."""
        return self.down_proj(kernels.swiglu(self.gate_proj(hidden), self.up_proj(hidden)))


class BaichuanAttention(nn.Module):
    """Causal self-attention with rotary (7B) or ALiBi (13B) positions."""

    def __init__(self, config: BaichuanConfig, layer_idx: int) -> None:
        super().__init__()
        self.layer_idx = layer_idx
        self.num_heads = config.num_attention_heads
        self.head_dim = config.hidden_size // config.num_attention_heads
        self.W_pack = nn.Linear(config.hidden_size, 3 * config.hidden_size, bias=False)
        self.o_proj = nn.Linear(config.hidden_size, config.hidden_size, bias=False)

    def forward(
        self,
        hidden: Tensor,
        segment_ids: Tensor | None,
        rotary: RotaryTables | None,
        slopes: Tensor | None,
        past_key_values: Cache | None,
    ) -> Tensor:
        """Attends from the new tokens to the cached ones and to themselves.

        Args:
            hidden: (batch, seq, hidden_size).
            segment_ids: (batch, cached + seq) int, 0 = padding; None where all attend to all.
            rotary: Cosines and sines of the new tokens, (batch or 1, seq, head_dim).
            slopes: (heads,) ALiBi slopes.
            past_key_values: The cache, which the new keys and values are added to.
        """
        batch, length, _ = hidden.shape
        packed = self.W_pack(hidden).view(batch, length, 3, self.num_heads, self.head_dim)
        query, key, value = packed.permute(2, 0, 3, 1, 4)
        if rotary is not None:
            query, key = kernels.rotary(query, *rotary), kernels.rotary(key, *rotary)
        if past_key_values is not None:
            key, value = past_key_values.update(key, value, self.layer_idx)
        mixed = kernels.attention(query, key, value, alibi_slopes=slopes, segment_ids=segment_ids)
        return self.o_proj(mixed.transpose(1, 2).reshape(batch, length, -1))


class BaichuanDecoderLayer(GradientCheckpointingLayer):
    """Attention and feed-forward, each behind its norm and beside its residual."""

    def __init__(self, config: BaichuanConfig, layer_idx: int) -> None:
        super().__init__()
        self.self_attn = BaichuanAttention(config, layer_idx)
        self.mlp = BaichuanMLP(config)
        self.input_layernorm = BaichuanRMSNorm(config.hidden_size, config.rms_norm_eps)
        self.post_attention_layernorm = BaichuanRMSNorm(config.hidden_size, config.rms_norm_eps)

    def forward(
        self,
        hidden: Tensor,
        segment_ids: Tensor | None = None,
        rotary: RotaryTables | None = None,
        slopes: Tensor | None = None,
        past_key_values: Cache | None = None,
    ) -> Tensor:
        """Maps hidden (batch, seq, hidden_size) to the same shape; see BaichuanAttention."""
        hidden = hidden + self.self_attn(
            self.input_layernorm(hidden), segment_ids, rotary, slopes, past_key_values
        )
        return hidden + self.mlp(self.post_attention_layernorm(hidden))


class BaichuanPreTrainedModel(PreTrainedModel):
    """What transformers wants to know of every Baichuan model."""

    config_class = BaichuanConfig
    base_model_prefix = "model"
    supports_gradient_checkpointing = True
    _no_split_modules = ["BaichuanDecoderLayer"]  # noqa: RUF012 - transformers wants a list
    _skip_keys_device_placement = ["past_key_values"]  # noqa: RUF012


class BaichuanModel(BaichuanPreTrainedModel):
    """Embedding, layers and last norm: token ids to hidden states."""

    def __init__(self, config: BaichuanConfig) -> None:
        super().__init__(config)
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size, config.pad_token_id)
        self.layers = nn.ModuleList(
            BaichuanDecoderLayer(config, index) for index in range(config.num_hidden_layers)
        )
        self.norm = BaichuanRMSNorm(config.hidden_size, config.rms_norm_eps)
        self.gradient_checkpointing = False
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: Tensor | None = None,
        use_cache: bool | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
    ) -> BaseModelOutputWithPast:
        """Runs the layers.

        Args:
            input_ids: (batch, seq) token ids; or give inputs_embeds.
            attention_mask: (batch, cached + seq): 0 = padding, 1 = token; or, without a cache, a
                document id from 1 upwards per token, which attention does not cross.
            position_ids: (batch or 1, seq) rotary positions; by default they count from the
                cache's length. Only differences matter, so padding needs no correction.
            past_key_values: A growing cache such as DynamicCache.
            inputs_embeds: (batch, seq, hidden_size), in place of input_ids.
            use_cache: Whether to fill and return a cache; by default as the config says, and not
                while training.
            output_attentions: Must not be true: attention weights are never made.
            output_hidden_states: Whether to return the input of every layer and the output of the
                last norm.

        Raises:
            ModelError: The inputs contradict each other, a cache of fixed size is given, or
                attention weights are asked for.
        """
        if output_attentions:
            raise ModelError(
                "output_attentions is not supported: the kernels never make the attention weights",
                "leave it out",
            )
        if (input_ids is None) == (inputs_embeds is None):
            raise ModelError("give either input_ids or inputs_embeds")
        hidden = self.embed_tokens(input_ids) if inputs_embeds is None else inputs_embeds
        if use_cache is None:
            use_cache = self.config.use_cache and not self.training
        if use_cache and past_key_values is None:
            past_key_values = DynamicCache(config=self.config)
        if past_key_values is not None and past_key_values.is_compileable:
            raise ModelError(
                "a cache of fixed size is not supported",
                "use transformers' default, a DynamicCache",
            )

        cached = 0 if past_key_values is None else past_key_values.get_seq_length()
        segment_ids = _segment_ids(attention_mask, cached, hidden)
        rotary, slopes = self._positions(position_ids, cached, hidden)
        states: list[Tensor] = []
        for layer in self.layers:
            if output_hidden_states:
                states.append(hidden)
            hidden = layer(
                hidden,
                segment_ids=segment_ids,
                rotary=rotary,
                slopes=slopes,
                past_key_values=past_key_values,
            )
        hidden = self.norm(hidden)
        return BaseModelOutputWithPast(
            last_hidden_state=hidden,
            past_key_values=past_key_values if use_cache else None,
            hidden_states=(*states, hidden) if output_hidden_states else None,
        )

    def _positions(
        self, position_ids: Tensor | None, cached: int, hidden: Tensor
    ) -> tuple[RotaryTables | None, Tensor | None]:
        """Returns the rotary tables of the new tokens, or the ALiBi slopes."""
        heads = self.config.num_attention_heads
        if self.config.position_embedding == "alibi":
            return None, kernels.alibi_slopes(heads).to(hidden.device)
        if position_ids is None:
            length = hidden.shape[1]
            position_ids = torch.arange(cached, cached + length, device=hidden.device)[None]
        head_dim = self.config.hidden_size // heads
        return kernels.rotary_tables(position_ids, head_dim, self.config.rope_theta), None


class BaichuanForCausalLM(BaichuanPreTrainedModel, GenerationMixin):
    """The language model: hidden states to logits, or to the loss."""

    accepts_loss_kwargs = True
    """Tells transformers' Trainer to give ``num_items_in_batch``."""

    def __init__(self, config: BaichuanConfig) -> None:
        super().__init__(config)
        self.model = BaichuanModel(config)
        self.lm_head = OutputHead(config)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        logits_to_keep: int = 0,
        num_items_in_batch: int | Tensor | None = None,
    ) -> CausalLMOutputWithPast:
        """Returns logits and, where labels are given, the loss.

        While it is trained on labels the model returns no logits: the loss does without them,
        which at Baichuan2's vocabulary saves most of the memory of a step.

        Args:
            input_ids: As in BaichuanModel, like all others not named here.
            attention_mask: See BaichuanModel.
            position_ids: See BaichuanModel.
            past_key_values: See BaichuanModel.
            inputs_embeds: See BaichuanModel.
            labels: (batch, seq) unshifted; the shift by one happens here, once. -100 is not
                trained.
            use_cache: See BaichuanModel.
            output_attentions: See BaichuanModel.
            output_hidden_states: See BaichuanModel.
            logits_to_keep: Only the logits of so many last positions are computed; 0 = all.
            num_items_in_batch: What the sum of the losses is divided by, in place of the number of
                trained predictions in this call.
        """
        outputs = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            use_cache=use_cache,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
        )
        hidden = outputs.last_hidden_state
        loss = logits = None
        if labels is not None:
            weight = self.config.z_loss_weight
            loss = mean_loss(self.lm_head, hidden, labels, weight, num_items_in_batch)
        if labels is None or not self.training:
            logits = self.lm_head(hidden[:, -logits_to_keep:])
        return CausalLMOutputWithPast(
            loss=loss,
            logits=logits,
            past_key_values=outputs.past_key_values,
            hidden_states=outputs.hidden_states,
        )


def _segment_ids(mask: Tensor | None, cached: int, hidden: Tensor) -> Tensor | None:
    """Returns (batch, cached + seq) segment ids of an attention mask, None where it masks nothing.

    Raises:
        ModelError: The mask has another shape, or document ids are used with a cache.
    """
    if mask is None:
        return None
    expected = (hidden.shape[0], cached + hidden.shape[1])
    if tuple(mask.shape) != expected:
        raise ModelError(f"attention_mask has shape {tuple(mask.shape)}, not {expected}")
    if bool((mask == 1).all()):
        return None
    if cached and bool((mask > 1).any()):
        raise ModelError("document ids in attention_mask and a cache do not go together")
    return mask.to(torch.int32)
