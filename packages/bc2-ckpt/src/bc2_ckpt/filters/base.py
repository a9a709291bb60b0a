"""What every filter starts from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import Tensor

from bc2_ckpt.config import ModelConfig
from bc2_ckpt.formats.protocol import CheckpointReader, TensorInfo


class Filter:
    """A reader that hands out what another one does; a subclass changes some of it.

    Args:
        reader: The other one.
    """

    def __init__(self, reader: CheckpointReader) -> None:
        self._reader = reader

    @property
    def format(self) -> str:
        """The format's name."""
        return self._reader.format

    @property
    def source(self) -> Path:
        """The directory that holds the tensors."""
        return self._reader.source

    @property
    def config(self) -> ModelConfig:
        """The model."""
        return self._reader.config

    def tensors(self) -> Mapping[str, TensorInfo]:
        """Returns every tensor by its Hugging Face name, in the order of the model."""
        return self._reader.tensors()

    def read(self, name: str, rows: slice | None = None) -> Tensor:
        """Returns one tensor or rows of it, in Hugging Face's arrangement."""
        return self._reader.read(name, rows)

    def notes(self) -> Sequence[str]:
        """Returns what a user should know of the checkpoint."""
        return self._reader.notes()

    def origin(self) -> Mapping[str, int]:
        """Returns what is known of how it was written."""
        return self._reader.origin()

    def beside(self, name: str) -> Path | None:
        """Returns a small file that belongs to the checkpoint."""
        return self._reader.beside(name)
