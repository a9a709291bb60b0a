"""What a checkpoint of any format offers to the rest of bc2."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from bc2_ckpt.config import ModelConfig
from bc2_ckpt.errors import MismatchError
from bc2_data.errors import nearest

DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
}
"""The dtypes that weights may have, under their names in safetensors."""


@dataclass(frozen=True)
class TensorInfo:
    """What is known of a tensor before it is read.

    Attributes:
        shape: Its shape, without vocabulary padding.
        dtype: One of the values of `DTYPES`.
    """

    shape: tuple[int, ...]
    dtype: torch.dtype

    @property
    def num_elements(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def num_bytes(self) -> int:
        """Size in bytes."""
        return self.num_elements * self.dtype.itemsize


class CheckpointReader(Protocol):
    """A checkpoint whose tensors match its config; opening one checks names and shapes."""

    @property
    def format(self) -> str:
        """The format's name, one of `bc2_ckpt.formats.FORMATS`."""
        ...

    @property
    def source(self) -> Path:
        """The directory that holds the tensors."""
        ...

    @property
    def config(self) -> ModelConfig:
        """The model."""
        ...

    def tensors(self) -> Mapping[str, TensorInfo]:
        """Returns every tensor by its Hugging Face name, in the order of the model."""
        ...

    def read(self, name: str) -> Tensor:
        """Returns one tensor, in Hugging Face's arrangement and without vocabulary padding.

        It may be mapped from the file: clone it before changing it.
        """
        ...

    def beside(self, name: str) -> Path | None:
        """Returns a small file that belongs to the checkpoint, such as ``tokenizer.model``."""
        ...


Writer = Callable[[CheckpointReader, Path], None]
"""Fills an empty directory from any reader, one tensor in memory at a time."""


def check_tensors(
    where: Path,
    found: Mapping[str, tuple[int, ...]],
    expected: Mapping[str, tuple[int, ...]],
) -> None:
    """Raises where names or shapes of a checkpoint are not those that its config asks for.

    Args:
        where: The checkpoint, for errors.
        found: Shapes by name.
        expected: The same of the config.

    Raises:
        MismatchError: Names the first tensor that is surplus, missing or of another shape.
    """
    missing = [name for name in expected if name not in found]
    surplus = [name for name in found if name not in expected]
    if surplus:
        raise MismatchError(
            f"{where} holds {_count(surplus)} that this model does not have: {surplus[0]!r}",
            nearest(surplus[0], missing or expected),
        )
    if missing:
        raise MismatchError(
            f"{where} lacks {_count(missing)} that this model has: {missing[0]!r}",
            "a shard may be missing, or config.json is of a larger model",
        )
    for name, shape in expected.items():
        if found[name] != shape:
            raise MismatchError(
                f"{where}: {name!r} has shape {found[name]}, but the config asks for {shape}",
                "give the config that belongs to these weights with --config",
            )


def _count(names: list[str]) -> str:
    return "a tensor" if len(names) == 1 else f"{len(names)} tensors"
