"""What worker groups run on data alone."""

from __future__ import annotations

from pathlib import Path

import torch

from bc2_train.data.pretrain import MegatronData, open_megatron_data
from bc2_train.ranks import DistributedRanks


def samples(data: MegatronData, caches: list[str]) -> list[list[int]]:
    """Returns the tokens of all samples, index files being in this rank's own cache."""
    ranks = DistributedRanks(torch.device("cpu"))
    dataset, _ = open_megatron_data(data, ranks, Path(caches[ranks.rank]), True)
    return [dataset[number].tokens.tolist() for number in range(data.samples)]
