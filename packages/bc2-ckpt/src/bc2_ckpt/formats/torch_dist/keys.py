"""Under which key, and where in it, megatron-core stores a parameter.

The layers of a kind are stacked in one tensor with a leading layer axis. Source: the default
``sharded_state_dict`` of megatron-core 0.16's GPTModel with its local layer spec.
"""

from __future__ import annotations

from collections.abc import Iterator

from bc2_ckpt.config import ModelConfig
from bc2_ckpt.layout import Param

PREFIXES = ("", "module.", "model.")
"""What may stand before every key: nothing, a DistributedDataParallel wrapper, or a trainer's."""

MODEL_ROOTS = ("embedding", "decoder", "output_layer")
"""What the keys of the model begin with; those of the optimizer and of the trainer do not."""

_FUSED_NORMS = {
    "input_layernorm.weight": "self_attention.linear_qkv.layer_norm_weight",
    "pre_mlp_layernorm.weight": "mlp.linear_fc1.layer_norm_weight",
}
"""The norms are stored as parts of the linear layer behind them, where Transformer Engine has them
(``sharded_state_dict_keys_map`` of the local layer spec)."""

_STATEFUL_MODULES = (
    "self_attention.linear_qkv",
    "self_attention.linear_proj",
    "mlp.linear_fc1",
    "mlp.linear_fc2",
    "self_attention.core_attention",
)
"""Of a layer; the last one, and the final norm, with Transformer Engine alone."""


def stored_key(param: Param) -> str:
    """Returns the key of the tensor that holds a parameter, without prefix."""
    if param.layer is None:
        return param.local_name
    return f"decoder.layers.{_FUSED_NORMS.get(param.local_name, param.local_name)}"


def stored_shape(param: Param, config: ModelConfig) -> tuple[int, ...]:
    """Returns the shape of the tensor that holds a parameter, without vocabulary padding."""
    if param.layer is None:
        return param.megatron_shape
    return (config.num_layers, *param.megatron_shape)


def box(
    param: Param, block: int, rows: slice | None = None
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Returns offsets and sizes, within the stored tensor, of rows of one of a parameter's blocks.

    Args:
        param: The parameter.
        block: Which of the Hugging Face tensors that are stacked in it.
        rows: ``slice(start, stop)`` of it in Megatron's arrangement; None for all.
    """
    rows = rows or slice(0, param.shape[0])
    offsets = (block * param.shape[0] + rows.start, *(0 for _ in param.shape[1:]))
    sizes = (rows.stop - rows.start, *param.shape[1:])
    if param.layer is None:
        return offsets, sizes
    return (param.layer, *offsets), (1, *sizes)


def extra_state_keys(config: ModelConfig) -> Iterator[str]:
    """Yields the keys of the empty objects that megatron-core expects beside the parameters.

    A module that may hold more than parameters has an ``_extra_state``; where one is missing,
    loading at the default strictness fails, and one that no module asks for does no harm.
    """
    for module in _STATEFUL_MODULES:
        for layer in range(config.num_layers):
            yield f"decoder.layers.{module}._extra_state/shard_{layer}_{config.num_layers}"
    yield "decoder.final_layernorm._extra_state/shard_0_1"
