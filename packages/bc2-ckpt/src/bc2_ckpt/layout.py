"""Which Hugging Face tensors make up which Megatron parameter, and how it is sharded.

`_rows` is the one table; everything else follows from it. Sources: the official modelling code of
Baichuan2 for the Hugging Face names, the state dict of megatron-core 0.16's GPTModel with its local
layer spec for the Megatron names, AscendSpeed's ``convert_weights_from_huggingface.py`` for the
arrangement of the rows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from bc2_ckpt.config import ModelConfig
from bc2_ckpt.errors import MismatchError
from bc2_ckpt.transforms import (
    Identity,
    PackedQKV,
    PaddedVocab,
    Transform,
    gather,
    join,
    split,
)
from bc2_data.errors import nearest

Read = Callable[[str], Tensor]
"""Returns the tensor of a Hugging Face name."""


@dataclass(frozen=True)
class Param:
    """One Megatron parameter and where it comes from.

    Several Hugging Face tensors are stacked along axis 0, and each is sharded by itself: a rank of
    a gated MLP holds [gate_r; up_r], not a piece of [gate; up].

    Attributes:
        hf: Hugging Face names, in the order in which they are stacked.
        shape: The shape of each of these tensors.
        local_name: The name in GPTModel's state dict, within the layer where it belongs to one.
        transform: How the rows are arranged.
        tp: The axis that tensor parallelism cuts; None where every rank holds the whole.
        layer: The layer in the whole model, counted from 0; None outside the layers.
    """

    hf: tuple[str, ...]
    shape: tuple[int, ...]
    local_name: str
    transform: Transform
    tp: int | None
    layer: int | None = None

    @property
    def megatron(self) -> str:
        """The name in GPTModel's state dict, with the layer's number in the whole model."""
        if self.layer is None:
            return self.local_name
        return f"decoder.layers.{self.layer}.{self.local_name}"

    @property
    def megatron_shape(self) -> tuple[int, ...]:
        """The shape of the whole parameter, without vocabulary padding."""
        return (len(self.hf) * self.shape[0], *self.shape[1:])

    @property
    def padded_rows(self) -> int:
        """Rows of each of the tensors in Megatron, vocabulary padding included."""
        if isinstance(self.transform, PaddedVocab):
            return self.transform.padded_rows
        return self.shape[0]

    def shard_shape(self, tp_size: int) -> tuple[int, ...]:
        """Returns the shape of one rank's shard of one of the tensors."""
        shape = [self.padded_rows, *self.shape[1:]]
        if self.tp is not None:
            shape[self.tp] //= tp_size
        return tuple(shape)

    def of_layer(self, layer: int) -> Param:
        """Returns this entry of the table, whose names are those within a layer, for one layer."""
        return replace(
            self,
            hf=tuple(f"model.layers.{layer}.{name}" for name in self.hf),
            layer=layer,
        )

    def shard(self, tensors: Sequence[Tensor], tp_rank: int, tp_size: int) -> Tensor:
        """Returns one rank's shard of the Hugging Face tensors, given in the order of `hf`."""
        blocks = [split(self.transform.to_megatron(x), self.tp, tp_size)[tp_rank] for x in tensors]
        return blocks[0] if len(blocks) == 1 else torch.cat(blocks)

    def hf_rows(self, rows: slice, read: Callable[[slice], Tensor]) -> Tensor:
        """Returns rows of one Hugging Face tensor.

        Args:
            rows: ``slice(start, stop)`` of it.
            read: Returns rows of the same tensor in Megatron's arrangement.
        """
        return gather(self.transform.megatron_rows(rows, self.shape[0]), read)

    def megatron_rows(self, rows: slice, tensor: Tensor) -> Tensor:
        """Returns rows of one of the tensors in Megatron's arrangement, of the whole tensor."""
        return gather(self.transform.hf_rows(rows, len(tensor)), tensor.__getitem__)

    def tensors(self, shards: Sequence[Tensor]) -> list[Tensor]:
        """Returns the Hugging Face tensors of all ranks' shards; the inverse of `shard`."""
        blocks = zip(*(shard.chunk(len(self.hf)) for shard in shards), strict=True)
        return [self.transform.to_hf(join(block, self.tp)) for block in blocks]


class ParameterLayout:
    """All parameters of one model under one tensor-parallel size.

    Attributes:
        params: Every parameter, in the order of the model.
    """

    def __init__(
        self, config: ModelConfig, tp_size: int = 1, padded_vocab_size: int | None = None
    ) -> None:
        """Lays the table out over the layers.

        Args:
            config: The model.
            tp_size: Tensor-parallel size.
            padded_vocab_size: Rows of the embedding and the output layer in Megatron, a multiple
                of `tp_size`; None for the true vocabulary.

        Raises:
            MismatchError: The model cannot be cut into `tp_size` equal parts.
        """
        padded = config.vocab_size if padded_vocab_size is None else padded_vocab_size
        _check_divisible(config, tp_size, padded)
        self._tp_size = tp_size
        embedding, layer, head = _rows(config, padded)
        layers = [row.of_layer(i) for i in range(config.num_layers) for row in layer]
        self.params: tuple[Param, ...] = (*embedding, *layers, *head)
        self._by_megatron = {param.megatron: param for param in self.params}

    def param(self, megatron_name: str) -> Param:
        """Returns the parameter of a Megatron name.

        Raises:
            MismatchError: There is none; names the nearest.
        """
        if megatron_name not in self._by_megatron:
            raise MismatchError(
                f"no parameter {megatron_name!r} in this model",
                nearest(megatron_name, self._by_megatron),
            )
        return self._by_megatron[megatron_name]

    def hf_shapes(self) -> dict[str, tuple[int, ...]]:
        """Returns every Hugging Face name and its shape, in the order of the model."""
        return {name: param.shape for param in self.params for name in param.hf}

    def hf_names(self, megatron_name: str) -> tuple[str, ...]:
        """Returns the Hugging Face tensors that a Megatron parameter is made of."""
        return self.param(megatron_name).hf

    def megatron_shard(self, megatron_name: str, read: Read, tp_rank: int) -> Tensor:
        """Returns one rank's shard of a Megatron parameter.

        Args:
            megatron_name: Such as ``decoder.layers.0.self_attention.linear_qkv.weight``, with the
                layer's number in the whole model, not in its pipeline stage.
            read: Returns the tensor of a Hugging Face name.
            tp_rank: Tensor-parallel rank.

        Returns:
            A tensor in the dtype of the source; vocabulary padding is zero. It may share memory
            with what `read` returned.
        """
        param = self.param(megatron_name)
        return param.shard([read(name) for name in param.hf], tp_rank, self._tp_size)

    def hf_tensors(self, megatron_name: str, shards: Sequence[Tensor]) -> dict[str, Tensor]:
        """Returns the Hugging Face tensors of a Megatron parameter's shards.

        Args:
            megatron_name: As for `megatron_shard`, whose inverse this is.
            shards: One per tensor-parallel rank, in rank order.

        Raises:
            MismatchError: Ranks that should hold copies of one tensor hold different ones.
        """
        param = self.param(megatron_name)
        return dict(zip(param.hf, param.tensors(shards), strict=True))


def _rows(config: ModelConfig, padded_vocab_size: int) -> tuple[tuple[Param, ...], ...]:
    """The table: what stands before the layers, in each layer, and after them."""
    h, f, v = config.hidden_size, config.intermediate_size, config.vocab_size
    vocab = PaddedVocab(v, padded_vocab_size)
    same = Identity()
    qkv = PackedQKV(config.num_heads)
    gate, up = "mlp.gate_proj.weight", "mlp.up_proj.weight"
    embedding = (
        Param(("model.embed_tokens.weight",), (v, h), "embedding.word_embeddings.weight", vocab, 0),
    )
    layer = (
        Param(("input_layernorm.weight",), (h,), "input_layernorm.weight", same, None),
        Param(("self_attn.W_pack.weight",), (3 * h, h), "self_attention.linear_qkv.weight", qkv, 0),
        Param(("self_attn.o_proj.weight",), (h, h), "self_attention.linear_proj.weight", same, 1),
        Param(("post_attention_layernorm.weight",), (h,), "pre_mlp_layernorm.weight", same, None),
        Param((gate, up), (f, h), "mlp.linear_fc1.weight", same, 0),
        Param(("mlp.down_proj.weight",), (h, f), "mlp.linear_fc2.weight", same, 1),
    )
    head = (
        Param(("model.norm.weight",), (h,), "decoder.final_layernorm.weight", same, None),
        Param(("lm_head.weight",), (v, h), "output_layer.weight", vocab, 0),
    )
    return embedding, layer, head


def _check_divisible(config: ModelConfig, tp_size: int, padded_vocab_size: int) -> None:
    if padded_vocab_size < config.vocab_size:
        raise MismatchError(
            f"padded vocabulary {padded_vocab_size} is smaller than the true {config.vocab_size}"
        )
    for what, amount in (
        ("attention heads", config.num_heads),
        ("intermediate size", config.intermediate_size),
        ("padded vocabulary", padded_vocab_size),
    ):
        if amount % tp_size:
            raise MismatchError(
                f"tensor-parallel size {tp_size} does not divide the {what}, {amount}",
                "choose a size that divides the heads and the intermediate size, and pad the "
                "vocabulary to a multiple of it",
            )
