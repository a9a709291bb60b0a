"""Under which key, and where in it, megatron-core stores a parameter.

The layers of a kind are stacked in one tensor with a leading layer axis. Source: the default
``sharded_state_dict`` of megatron-core 0.16's GPTModel with its local layer spec.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from bc2_ckpt.config import ModelConfig
from bc2_ckpt.layout import Param

PREFIXES = ("", "module.", "model.")
"""What may stand before every key: nothing, a DistributedDataParallel wrapper, or a trainer's."""

MODEL_ROOTS = ("embedding", "decoder", "output_layer")
"""What the keys of the model begin with; those of the optimizer and of the trainer do not."""

_LAYER = re.compile(r"decoder\.layers\.(\d+)\.(.+)")
_FUSED_NORMS = {
    "input_layernorm.weight": "self_attention.linear_qkv.layer_norm_weight",
    "pre_mlp_layernorm.weight": "mlp.linear_fc1.layer_norm_weight",
}
"""The norms are stored as parts of the linear layer behind them, where Transformer Engine has them
(``sharded_state_dict_keys_map`` of the local layer spec)."""


@dataclass(frozen=True)
class Place:
    """Where a parameter lies.

    Attributes:
        key: The key of the stored tensor, without prefix.
        layer: The index on its leading axis; None where it has no such axis.
    """

    key: str
    layer: int | None


def place(param: Param) -> Place:
    """Returns where a parameter lies in a distributed checkpoint."""
    match = _LAYER.fullmatch(param.megatron)
    if match is None:
        return Place(param.megatron, None)
    layer, name = match.groups()
    return Place(f"decoder.layers.{_FUSED_NORMS.get(name, name)}", int(layer))


def stored_shape(param: Param, config: ModelConfig) -> tuple[int, ...]:
    """Returns the shape of the tensor that holds a parameter, without vocabulary padding."""
    if place(param).layer is None:
        return param.megatron_shape
    return (config.num_layers, *param.megatron_shape)


def box(param: Param, block: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Returns offsets and sizes of one Hugging Face tensor within the stored tensor."""
    layer = place(param).layer
    offsets = (block * param.shape[0], *(0 for _ in param.shape[1:]))
    if layer is None:
        return offsets, param.shape
    return (layer, *offsets), (1, *param.shape)


def extra_state_keys(param: Param, config: ModelConfig) -> tuple[str, ...]:
    """Returns the keys of the empty objects that megatron-core expects beside a parameter.

    Every tensor-parallel linear layer of the decoder has an ``_extra_state``; without it, loading
    at the default strictness fails.
    """
    where = place(param)
    if where.layer is None or param.tp is None:
        return ()
    module = where.key.removesuffix(".weight")
    return (f"{module}._extra_state/shard_{where.layer}_{config.num_layers}",)
