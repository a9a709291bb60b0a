"""Whether a model can be cut for a parallel layout."""

from __future__ import annotations

from bc2_ckpt.config import ModelConfig
from bc2_ckpt.errors import MismatchError
from bc2_ckpt.layout import ParameterLayout


def check_parallel(config: ModelConfig, tp: int, pp: int, vpp: int, padded_vocab_size: int) -> None:
    """Raises where a model cannot be cut for a parallel layout.

    Args:
        config: The model.
        tp: Tensor-parallel size.
        pp: Pipeline-parallel size.
        vpp: Model chunks per pipeline rank.
        padded_vocab_size: Rows of the embedding with their padding.

    Raises:
        MismatchError: Names what is not divisible, and the sizes that are.
    """
    ParameterLayout(config, tp, padded_vocab_size)
    if vpp > 1 and pp == 1:
        raise MismatchError(
            f"{vpp} model chunks per pipeline rank need a pipeline, but its size is 1",
            "give --pp too, or leave --vpp out",
        )
    if config.num_layers % (pp * vpp):
        chunks = f"{pp} pipeline ranks" + (f" of {vpp} chunks" if vpp > 1 else "")
        fitting = [n for n in range(1, config.num_layers + 1) if config.num_layers % n == 0]
        raise MismatchError(
            f"{config.num_layers} layers cannot be spread evenly over {chunks}",
            f"--pp times --vpp can be one of {', '.join(map(str, fitting))}",
        )
