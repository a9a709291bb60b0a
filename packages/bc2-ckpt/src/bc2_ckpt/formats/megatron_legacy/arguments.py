"""The model's dimensions from the arguments that a training run saved."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import Any

from bc2_ckpt.config import BAICHUAN1_VOCAB_SIZE, ModelConfig, PositionEmbedding
from bc2_ckpt.errors import CkptError
from bc2_ckpt.foreign import Foreign
from bc2_data.vocab import VOCAB_SIZE, padded_vocab_size

_POSITIONS: dict[object, PositionEmbedding] = {
    "rope": "rotary",
    "alibi": "alibi",
    1: "rotary",  # AscendSpeed's PositionEmbeddingType.rope and .alibi
    3: "alibi",
}
_HINT = "say which model it is: --config baichuan2-7b, baichuan2-13b or a directory"


def config_from_args(args: Namespace, path: Path) -> ModelConfig:
    """Returns the model that a run trained.

    Args:
        args: AscendSpeed's, ModelLink's or Megatron-LM's arguments.
        path: Where they stand, for errors.

    Raises:
        CkptError: A dimension is missing, or the model is no Baichuan.
    """
    values: dict[str, Any] = {}
    for field, name in (
        ("hidden_size", "hidden_size"),
        ("intermediate_size", "ffn_hidden_size"),
        ("num_layers", "num_layers"),
        ("num_heads", "num_attention_heads"),
    ):
        values[field] = getattr(args, name, None)
        if type(values[field]) is not int:
            raise CkptError(f"{path}: its arguments have no {name}", _HINT)
    for field, kind, names in (
        ("max_sequence_length", int, ("max_position_embeddings", "seq_length")),
        ("rms_norm_eps", float, ("norm_epsilon", "layernorm_epsilon")),
        ("initializer_range", float, ("init_method_std",)),
        ("rope_theta", float, ("rotary_base",)),
        ("z_loss_weight", float, ("z_loss_weight",)),
    ):
        found: list[Any] = [getattr(args, name, None) for name in names]
        numbers = [kind(value) for value in found if type(value) in (int, float)]
        if numbers:
            values[field] = numbers[0]
    vocab_size = _vocab_size(args, path)
    return ModelConfig(
        vocab_size=vocab_size,
        position_embedding=_position_embedding(args, path),
        norm_head=bool(getattr(args, "lm_norm_weight", vocab_size != BAICHUAN1_VOCAB_SIZE)),
        **values,
    )


def _position_embedding(args: Namespace, path: Path) -> PositionEmbedding:
    kind = getattr(args, "position_embedding_type", None)
    if isinstance(kind, Foreign):
        kind = kind.args[-1] if kind.args else None
    if not isinstance(kind, str | int) or kind not in _POSITIONS:
        raise CkptError(f"{path}: position_embedding_type is {kind!r}, not rope or alibi", _HINT)
    return _POSITIONS[kind]


def _vocab_size(args: Namespace, path: Path) -> int:
    """Returns the vocabulary, known to be Baichuan's, that pads to the size that is told."""
    padded = getattr(args, "padded_vocab_size", None)
    divisor = getattr(args, "make_vocab_size_divisible_by", None)
    tp = getattr(args, "tensor_model_parallel_size", None)
    if type(divisor) is int and type(tp) is int:
        for size in (VOCAB_SIZE, BAICHUAN1_VOCAB_SIZE):
            if padded_vocab_size(size, divisor, tp) == padded:
                return size
    raise CkptError(
        f"{path}: its arguments tell a padded vocabulary of {padded}, but not how many of these "
        "rows are true",
        _HINT,
    )
