"""Which tensors a GGUF file has, and from which rows of which Hugging Face tensors they come."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from bc2_ckpt.blocks import row_blocks
from bc2_ckpt.config import ModelConfig
from bc2_ckpt.formats.protocol import CheckpointReader, TensorInfo

_MODEL = {
    "model.embed_tokens.weight": "token_embd.weight",
    "model.norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight",
}
_LAYER = {
    "input_layernorm.weight": "attn_norm.weight",
    "self_attn.o_proj.weight": "attn_output.weight",
    "post_attention_layernorm.weight": "ffn_norm.weight",
    "mlp.gate_proj.weight": "ffn_gate.weight",
    "mlp.up_proj.weight": "ffn_up.weight",
    "mlp.down_proj.weight": "ffn_down.weight",
}
_PACKED = "self_attn.W_pack.weight"
_UNPACKED = ("attn_q.weight", "attn_k.weight", "attn_v.weight")
"""What W_pack stacks, in its order."""


@dataclass(frozen=True)
class GgufTensor:
    """One tensor of the file.

    Attributes:
        name: Its name in llama.cpp.
        hf: The Hugging Face tensor that it is, or is a part of.
        rows: Which rows of that one, ``slice(start, stop)``.
        turned: Rows of a head, where rotary positions turn them: halves become pairs. 0 where the
            rows stay as they are.
    """

    name: str
    hf: str
    rows: slice
    turned: int = 0

    def info(self, reader: CheckpointReader) -> TensorInfo:
        """Returns its shape, rows first, and its dtype in the file.

        What has one axis, the weight of a norm, is float32 always: llama.cpp multiplies with no
        other dtype there.
        """
        source = reader.tensors()[self.hf]
        shape = (self.rows.stop - self.rows.start, *source.shape[1:])
        return TensorInfo(shape, source.dtype if len(shape) > 1 else torch.float32)

    def blocks(self, reader: CheckpointReader) -> Iterator[Tensor]:
        """Reads it from its first row to its last, in blocks of whole heads where they matter."""
        info = reader.tensors()[self.hf]
        unit = self.turned or 1
        row_bytes = info.num_bytes // info.shape[0]
        for block in row_blocks((self.rows.stop - self.rows.start) // unit, unit * row_bytes):
            first = self.rows.start + unit * block.start
            part = reader.read(self.hf, slice(first, self.rows.start + unit * block.stop))
            yield halves_to_pairs(part, self.turned) if self.turned else part


def gguf_tensors(reader: CheckpointReader) -> Iterator[GgufTensor]:
    """Yields every tensor of a model, in the order of the reader's."""
    for hf, info in reader.tensors().items():
        name, layer = _names(hf)
        if name == _PACKED:
            for i, projection in enumerate(_UNPACKED):
                yield _projection(reader.config, hf, f"{layer}{projection}", i)
        else:
            names = _LAYER if layer else _MODEL
            yield GgufTensor(f"{layer}{names[name]}", hf, slice(0, info.shape[0]))


def halves_to_pairs(rows: Tensor, head_dim: int) -> Tensor:
    """Returns rows of queries or keys in the order in which llama.cpp turns them.

    Hugging Face turns row j of a head with row j + head_dim / 2, llama.cpp row 2j with row 2j + 1.
    Source: ``_reverse_hf_permute`` in its conversion/baichuan.py.

    Args:
        rows: (heads * head_dim, h), any number of whole heads.
        head_dim: Rows of a head, an even number.
    """
    halves = rows.view(-1, 2, head_dim // 2, rows.shape[1])
    return halves.transpose(1, 2).reshape(rows.shape)


def _names(hf: str) -> tuple[str, str]:
    """Returns a tensor's name within its layer and the prefix of that layer, "" outside of them."""
    if not hf.startswith("model.layers."):
        return hf, ""
    layer, name = hf.removeprefix("model.layers.").split(".", 1)
    return name, f"blk.{layer}."


def _projection(config: ModelConfig, hf: str, name: str, index: int) -> GgufTensor:
    """Returns the queries (0), keys (1) or values (2) of a W_pack."""
    first = index * config.hidden_size
    is_turned = config.position_embedding == "rotary" and index < 2
    rows = slice(first, first + config.hidden_size)
    return GgufTensor(name, hf, rows, config.head_dim if is_turned else 0)
