"""Writes a distributed checkpoint of megatron-core, without megatron-core or a process group."""

from __future__ import annotations

import io
import pickle
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
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

from bc2_ckpt.archive import save_tensor
from bc2_ckpt.blocks import megatron_blocks
from bc2_ckpt.errors import MismatchError
from bc2_ckpt.files import write_json
from bc2_ckpt.formats.protocol import CheckpointReader, TensorInfo
from bc2_ckpt.formats.sidecars import write_sidecars
from bc2_ckpt.formats.torch_dist.keys import box, extra_state_keys, stored_key, stored_shape
from bc2_ckpt.formats.torch_dist.metadata import METADATA
from bc2_ckpt.formats.torch_dist.vetting import COMMON
from bc2_ckpt.hashing import HashedFile
from bc2_ckpt.layout import ParameterLayout

_DATA = "__0_0.distcp"
_BACKENDS = {
    "sharded_backend": "torch_dist",
    "sharded_backend_version": 1,
    "common_backend": "torch",
    "common_backend_version": 1,
}


def write(reader: CheckpointReader, directory: Path) -> dict[str, str]:
    """Fills an empty directory; the vocabulary keeps its true rows.

    Every Hugging Face tensor becomes chunks of some rows, so that a rank that loads its part reads
    no more than it must. megatron-core fills the rows that tensor parallelism pads with zeros,
    because its embedding and output layer allow for another number of rows.

    Returns:
        The SHA-256 of the data file.

    Raises:
        MismatchError: Layers differ in dtype, but are stored in one tensor.
    """
    layout = ParameterLayout(reader.config)
    infos = reader.tensors()
    dtypes = _stored_dtypes(layout, infos)
    with HashedFile(directory / _DATA) as file:
        pieces = _Pieces(file)
        for param in layout.params:
            key = stored_key(param)
            shape = stored_shape(param, reader.config)
            for block, name in enumerate(param.hf):
                for rows, tensor in megatron_blocks(reader, name, param):
                    offsets, sizes = box(param, block, rows)
                    pieces.add(key, shape, dtypes[key], offsets, tensor.reshape(sizes))
        for key in extra_state_keys(reader.config):
            pieces.add_nothing(key)
        digests = {_DATA: file.sha256}
    with open(directory / METADATA, "wb") as file:
        pickle.dump(pieces.metadata, file)
    torch.save({"checkpoint_version": 3.0, "iteration": 0}, directory / COMMON)
    write_sidecars(reader, directory)
    write_json(directory / "metadata.json", _BACKENDS)
    return digests


def _stored_dtypes(
    layout: ParameterLayout, infos: Mapping[str, TensorInfo]
) -> dict[str, torch.dtype]:
    """Returns the dtype of every stored tensor by its key."""
    dtypes: dict[str, torch.dtype] = {}
    for param in layout.params:
        key = stored_key(param)
        for name in param.hf:
            dtype = infos[name].dtype
            if dtypes.setdefault(key, dtype) != dtype:
                raise MismatchError(
                    f"layers differ in dtype, {dtypes[key]} and {dtype}, but {key!r} stores them "
                    "in one tensor",
                    "convert to one dtype with --dtype",
                )
    return dtypes


@dataclass
class _Pieces:
    """The data file being written, and the metadata that says what lies where in it."""

    file: HashedFile
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
        """Appends one box of a tensor."""
        stored = self.metadata.state_dict_metadata.setdefault(
            key, TensorStorageMetadata(TensorProperties(dtype=dtype), torch.Size(shape), [])
        )
        assert isinstance(stored, TensorStorageMetadata)
        stored.chunks.append(ChunkStorageMetadata(torch.Size(offsets), tensor.shape))
        with self._piece(MetadataIndex(key, offsets)):
            save_tensor(tensor, self.file)

    def add_nothing(self, key: str) -> None:
        """Appends an object without content, as megatron-core saves it."""
        self.metadata.state_dict_metadata[key] = BytesStorageMetadata()
        with self._piece(MetadataIndex(key)):
            self.file.write(_NOTHING)

    @contextmanager
    def _piece(self, index: MetadataIndex) -> Iterator[None]:
        """Remembers what the block appends to the file."""
        start = self.file.tell()
        yield
        self.metadata.storage_data[index] = _StorageInfo(_DATA, start, self.file.tell() - start)


def _saved(value: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


_NOTHING = _saved([None])
