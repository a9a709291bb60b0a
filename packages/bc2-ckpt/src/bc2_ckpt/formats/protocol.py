"""What a checkpoint of any format offers to the rest of bc2."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeGuard

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


def is_weight(value: object) -> TypeGuard[Tensor]:
    """Whether a loaded value has elements in its file: sparse and meta tensors have none there."""
    return (
        isinstance(value, Tensor)
        and value.dtype in DTYPES.values()
        and value.layout is torch.strided
        and value.device.type == "cpu"
    )


ORIGIN = {
    "iteration": "training iterations completed",
    "tp": "tensor-parallel size",
    "pp": "pipeline-parallel size",
    "vpp": "model chunks per pipeline rank",
}
"""What a checkpoint may tell of how it was written; one copy for every layout has no sizes."""


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

    @property
    def dtype_name(self) -> str:
        """The dtype's name in torch, such as ``bfloat16``."""
        return str(self.dtype).removeprefix("torch.")


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

    def read(self, name: str, rows: slice | None = None) -> Tensor:
        """Returns one tensor, in Hugging Face's arrangement and without vocabulary padding.

        It may be mapped from the file: clone it before changing it.

        Args:
            name: Its Hugging Face name.
            rows: ``slice(start, stop)`` of axis 0, within the tensor; None for all of it.
        """
        ...

    def notes(self) -> Sequence[str]:
        """Returns what a user should know of the checkpoint, such as what is left out of it."""
        ...

    def origin(self) -> Mapping[str, int]:
        """Returns what is known of how it was written, any of `ORIGIN`."""
        ...

    def beside(self, name: str) -> Path | None:
        """Returns a small file that belongs to the checkpoint, such as ``tokenizer.model``."""
        ...


Writer = Callable[[CheckpointReader, Path], Mapping[str, str]]
"""Fills an empty directory from any reader, in bounded memory.

It returns the SHA-256 of every large file that it wrote, by path relative to the directory
(`bc2_ckpt.hashing.HashedFile` computes it on the way).

It reads every tensor once, the rows of each in ascending order and without gaps, so that a reader
can count or hash what passes.
"""


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
