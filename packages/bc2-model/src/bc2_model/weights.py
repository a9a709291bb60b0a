"""Where a model's initial parameters come from: a checkpoint, or a random draw."""

from __future__ import annotations

import hashlib
from typing import Protocol

import torch

from bc2_ckpt.config import ModelConfig
from bc2_ckpt.layout import ParameterLayout


class WeightSource(Protocol):
    """Whole tensors by their Hugging Face names; a `bc2_ckpt` checkpoint reader is one."""

    def read(self, name: str) -> torch.Tensor:
        """Returns a tensor of the whole model."""
        ...


class RandomWeights:
    """Freshly drawn parameters, each from a seed of its own.

    Since a tensor depends on its name and the seed alone, every parallel layout starts from the
    same model. Matrices are normal with standard deviation `initializer_range`, norm weights one,
    as in ``_init_weights`` of the official modeling_baichuan.py.

    Args:
        config: The model.
        seed: Another seed gives another model.
    """

    def __init__(self, config: ModelConfig, seed: int) -> None:
        self._std = config.initializer_range
        self._seed = seed
        self._shapes = ParameterLayout(config).hf_shapes()

    def read(self, name: str) -> torch.Tensor:
        """Returns a float32 tensor."""
        shape = self._shapes[name]
        if len(shape) == 1:
            return torch.ones(shape)
        digest = hashlib.sha256(f"{self._seed}/{name}".encode()).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)
        return torch.empty(shape).normal_(std=self._std, generator=generator)
