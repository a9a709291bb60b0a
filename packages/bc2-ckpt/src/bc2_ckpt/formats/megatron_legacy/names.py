"""What the parameters are called in legacy checkpoints: one table for each family of names.

Sources: AscendSpeed's ``tools/ckpt_convert/llama/convert_weights_from_huggingface.py`` with and
without ``--merge-mlp``; the legacy GPTModel of ModelLink, which took Megatron-LM's later names; the
state dict of megatron-core's GPTModel with its local layer spec.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from bc2_ckpt.formats.megatron_legacy.options import NAMES
from bc2_ckpt.layout import Param


@dataclass(frozen=True)
class Names:
    """One family of names.

    A slash leads from a dictionary into a dictionary within it; dots are part of a key.

    Attributes:
        layers: What stands before a layer's number, which counts from 0 in every model chunk.
        table: Legacy names by `Param.local_name`: one for the whole parameter, or one for each of
            the Hugging Face tensors that are stacked in it.
    """

    layers: str
    table: Mapping[str, tuple[str, ...]]

    def of(self, param: Param, layer: int | None) -> tuple[str, ...]:
        """Returns the names of a parameter, whose layer is the given one of its model chunk."""
        names = self.table[param.local_name]
        return names if layer is None else tuple(f"{self.layers}{layer}.{name}" for name in names)


_Table = Mapping[str, tuple[str, ...]]

_ASCENDSPEED: _Table = {
    "embedding.word_embeddings.weight": ("language_model/embedding/word_embeddings/weight",),
    "input_layernorm.weight": ("input_layernorm.weight",),
    "self_attention.linear_qkv.weight": ("self_attention.query_key_value.weight",),
    "self_attention.linear_proj.weight": ("self_attention.dense.weight",),
    "pre_mlp_layernorm.weight": ("post_attention_layernorm.weight",),
    "mlp.linear_fc1.weight": ("mlp.proj.weight",),
    "mlp.linear_fc2.weight": ("mlp.dense_4h_to_h.weight",),
    "decoder.final_layernorm.weight": ("language_model/encoder/final_layernorm.weight",),
    "output_layer.weight": ("language_model/output_layer/weight",),
}
_UNMERGED: _Table = {"mlp.linear_fc1.weight": ("mlp.gate_proj.weight", "mlp.dense_h_to_4h.weight")}
_MODELLINK: _Table = {
    "input_layernorm.weight": ("input_norm.weight",),
    "pre_mlp_layernorm.weight": ("post_attention_norm.weight",),
    "mlp.linear_fc1.weight": ("mlp.dense_h_to_4h.weight",),
    "decoder.final_layernorm.weight": ("language_model/encoder/final_norm.weight",),
}
_ENCODER = "language_model/encoder/layers."

FAMILIES = dict(
    zip(
        NAMES,
        (
            Names(_ENCODER, _ASCENDSPEED),
            Names(_ENCODER, {**_ASCENDSPEED, **_UNMERGED}),
            Names(_ENCODER, {**_ASCENDSPEED, **_MODELLINK}),
            Names("decoder.layers.", {name: (name,) for name in _ASCENDSPEED}),
        ),
        strict=True,
    )
)
"""The tables by their names."""
