"""Which tensors the file of a rank holds: what the reader expects and the writer writes."""

from __future__ import annotations

from dataclasses import dataclass

from bc2_ckpt.config import ModelConfig
from bc2_ckpt.formats.megatron_legacy.names import Names
from bc2_ckpt.layout import Param, ParameterLayout


@dataclass(frozen=True)
class LegacyTensor:
    """A tensor that the files of all tensor-parallel ranks of a pipeline rank hold.

    Attributes:
        name: See `Names` for its slashes.
        param: The parameter that it is, wholly or in part.
        blocks: Which of the parameter's Hugging Face tensors are stacked in it.
        pp_rank: The pipeline rank.
        chunk: The model chunk of that rank.
    """

    name: str
    param: Param
    blocks: range
    pp_rank: int
    chunk: int

    @property
    def flat_name(self) -> str:
        """The keys on the way to it, joined by dots."""
        return self.name.replace("/", ".")

    def shard_shape(self, tp_size: int) -> tuple[int, ...]:
        """Returns its shape in the file of one tensor-parallel rank."""
        rows, *columns = self.param.shard_shape(tp_size)
        return (len(self.blocks) * rows, *columns)


def legacy_tensors(
    layout: ParameterLayout, config: ModelConfig, names: Names, pp: int, vpp: int
) -> list[LegacyTensor]:
    """Returns all tensors, in the order of the model.

    Args:
        layout: The model's parameters, with the padding of the vocabulary.
        config: The model, whose layers `pp` times `vpp` divides.
        names: What the parameters are called.
        pp: Pipeline-parallel size.
        vpp: Model chunks of every pipeline rank.
    """
    tensors = []
    for param in layout.params:
        pp_rank, chunk, layer = _place(param, config.num_layers, pp, vpp)
        legacy_names = names.of(param, layer)
        share = len(param.hf) // len(legacy_names)
        for i, name in enumerate(legacy_names):
            blocks = range(i * share, (i + 1) * share)
            tensors.append(LegacyTensor(name, param, blocks, pp_rank, chunk))
    return tensors


def _place(param: Param, layers: int, pp: int, vpp: int) -> tuple[int, int, int | None]:
    """Returns a parameter's pipeline rank, its model chunk and its layer within the chunk.

    With 8 layers, 2 ranks and 2 chunks, rank 0 has layers 0, 1 and 4, 5; rank 1 has 2, 3 and 6, 7
    (``get_transformer_layer_offset`` of megatron-core).
    """
    if param.layer is not None:
        stage, layer = divmod(param.layer, layers // (pp * vpp))
        chunk, pp_rank = divmod(stage, pp)
        return pp_rank, chunk, layer
    if param.local_name.startswith("embedding."):
        return 0, 0, None
    return pp - 1, vpp - 1, None
