"""How a legacy checkpoint is laid out; needs no torch."""

from __future__ import annotations

from dataclasses import dataclass

from bc2_ckpt.config import ModelConfig
from bc2_data.vocab import padded_vocab_size

NAMES = ("ascendspeed", "ascendspeed-unmerged", "modellink", "mcore")
"""What the parameters may be called, see `bc2_ckpt.formats.megatron_legacy.names`."""


@dataclass(frozen=True, kw_only=True)
class LegacyOptions:
    """The parallel layout and the names of a legacy checkpoint.

    Attributes:
        tp: Tensor-parallel size.
        pp: Pipeline-parallel size.
        vpp: Model chunks of every pipeline rank; 1 is a plain pipeline.
        vocab_divisor: Every rank's rows of the vocabulary are padded to a multiple of it
            (``--make-vocab-size-divisible-by``).
        names: One of `NAMES`.
    """

    tp: int = 1
    pp: int = 1
    vpp: int = 1
    vocab_divisor: int = 128
    names: str = NAMES[0]

    def padded_vocab_size(self, config: ModelConfig) -> int:
        """Returns the rows of the embedding and the output layer of all ranks together."""
        return padded_vocab_size(config.vocab_size, self.vocab_divisor, self.tp)


ONE_RANK = LegacyOptions()
"""Neither tensor nor pipeline parallelism."""
