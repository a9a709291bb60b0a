"""Writes a distributed checkpoint of megatron-core, without megatron-core or a process group."""

from __future__ import annotations

import io
import pickle
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor
from torch.distributed.checkpoint.filesystem import CURRENT_DCP_VERSION, _StorageInfo
from torch.distributed.checkpoint.metadata import (
    BytesStorageMetadata,
    ChunkStorageMetadata,
    Metadata,
    MetadataIndex,
    TensorProperties,
    TensorStorageMetadata,
)

from bc2_ckpt.errors import MismatchError
from bc2_ckpt.files import write_json
from bc2_ckpt.formats.protocol import CheckpointReader
from bc2_ckpt.formats.sidecars import write_sidecars
from bc2_ckpt.formats.torch_dist.keys import box, extra_state_keys, place, stored_shape
from bc2_ckpt.formats.torch_dist.metadata import METADATA
from bc2_ckpt.formats.torch_dist.vetting import COMMON
from bc2_ckpt.layout import ParameterLayout

_DATA = "__0_0.distcp"
_BACKENDS = {
    "sharded_backend": "torch_dist",
    "sharded_backend_version": 1,
    "common_backend": "torch",
    "common_backend_version": 1,
}


def write(reader: CheckpointReader, directory: Path) -> None:
    """Fills an empty directory; the vocabulary keeps its true rows.

    Every Hugging Face tensor becomes one chunk, so that a rank that loads its part reads no more
    than it must. megatron-core fills the rows that tensor parallelism pads with zeros, because its
    embedding and output layer allow for another number of rows.
    """
    layout = ParameterLayout(reader.config)
    infos = reader.tensors()
    with open(directory / _DATA, "wb") as file:
        pieces = _Pieces(file)
        for param in layout.params:
            where = place(param)
            shape = stored_shape(param, reader.config)
            for block, name in enumerate(param.hf):
                tensor = param.transform.to_megatron(reader.read(name))
                tensor = tensor if where.layer is None else tensor[None]
                offsets, _ = box(param, block)
                pieces.add(where.key, shape, infos[name].dtype, offsets, tensor)
            for key in extra_state_keys(param, reader.config):
                pieces.add_nothing(key)
    with open(directory / METADATA, "wb") as file:
        pickle.dump(pieces.metadata, file)
    torch.save({"checkpoint_version": 3.0, "iteration": 0}, directory / COMMON)
    write_sidecars(reader, directory)
    write_json(directory / "metadata.json", _BACKENDS)


@dataclass
class _Pieces:
    """The data file being written, and the metadata that says what lies where in it."""

    file: io.BufferedWriter
    metadata: Metadata = field(
        default_factory=lambda: Metadata({}, storage_data={}, version=CURRENT_DCP_VERSION)
    )

    def add(
        self,
        key: str,
        shape: tuple[int, ...],
        dtype: torch.dtype,
        offsets: tuple[int, ...],
        tensor: Tensor,
    ) -> None:
        """Appends one box of a tensor.

        Raises:
            MismatchError: Another box of it has another dtype.
        """
        stored = self.metadata.state_dict_metadata.setdefault(
            key, TensorStorageMetadata(TensorProperties(dtype=dtype), torch.Size(shape), [])
        )
        assert isinstance(stored, TensorStorageMetadata)
        if stored.properties.dtype != dtype:
            raise MismatchError(
                f"layers differ in dtype, {stored.properties.dtype} and {dtype}, but {key!r} "
                "stores them in one tensor",
                "convert the source to one dtype first",
            )
        stored.chunks.append(ChunkStorageMetadata(torch.Size(offsets), tensor.shape))
        tensor = tensor.contiguous()
        if tensor.untyped_storage().nbytes() != tensor.nbytes:
            # torch.save writes the whole storage that a view belongs to.
            tensor = tensor.clone()
        self._append(MetadataIndex(key, offsets), tensor)

    def add_nothing(self, key: str) -> None:
        """Appends an object without content, as megatron-core saves it."""
        self.metadata.state_dict_metadata[key] = BytesStorageMetadata()
        self._append(MetadataIndex(key), [None])

    def _append(self, index: MetadataIndex, value: object) -> None:
        start = self.file.tell()
        torch.save(value, self.file)
        length = self.file.tell() - start
        self.metadata.storage_data[index] = _StorageInfo(_DATA, start, length)
