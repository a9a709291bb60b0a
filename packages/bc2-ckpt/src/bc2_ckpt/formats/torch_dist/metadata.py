"""Reads ``.metadata``, a pickle, without carrying out anything that it asks for.

The classes that torch and megatron-core pickle into it are replaced by one inert record; any other
global is refused. What comes out is plain: which pieces of which tensor lie where.
"""

from __future__ import annotations

import io
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import torch

from bc2_ckpt.errors import DamagedFileError, UnsafeFileError
from bc2_ckpt.files import refuse_placeholder

METADATA = ".metadata"

_T = TypeVar("_T")

_CHECKPOINT = "torch.distributed.checkpoint"
_RECORDS = {
    f"{_CHECKPOINT}.metadata": (
        "BytesStorageMetadata",
        "ChunkStorageMetadata",
        "Metadata",
        "MetadataIndex",
        "StorageMeta",
        "TensorProperties",
        "TensorStorageMetadata",
        "_MEM_FORMAT_ENCODING",
    ),
    f"{_CHECKPOINT}.filesystem": ("_StorageInfo",),
    f"{_CHECKPOINT}.planner": ("SavePlan", "TensorWriteData", "WriteItem", "WriteItemType"),
    "megatron.core.dist_checkpointing.strategies.torch": ("MCoreMetadata", "MCoreSavePlan"),
    "torch.serialization": ("_get_layout",),
    "pathlib": ("PosixPath",),
}


@dataclass(frozen=True)
class Extent:
    """A range of bytes in a file beside ``.metadata``."""

    file: str
    start: int
    length: int


@dataclass(frozen=True)
class Chunk:
    """A box of a tensor and the bytes in which torch.save wrote it."""

    offsets: tuple[int, ...]
    sizes: tuple[int, ...]
    extent: Extent


@dataclass(frozen=True)
class StoredTensor:
    """A tensor and the boxes that make it up."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    chunks: tuple[Chunk, ...]


@dataclass(frozen=True)
class StoredIndex:
    """Everything that a distributed checkpoint holds, by key."""

    tensors: dict[str, StoredTensor]
    objects: dict[str, Extent]


def read_index(directory: Path) -> StoredIndex:
    """Reads the ``.metadata`` of a distributed checkpoint and checks that its files are whole.

    Raises:
        UnsafeFileError: The pickle asks for anything but the records of such a file.
        DamagedFileError: It is damaged, or a file that it names is missing or cut short.
    """
    path = directory / METADATA
    refuse_placeholder(path)
    try:
        metadata = _Unpickler(io.BytesIO(path.read_bytes())).load()
        index = _parse(metadata)
    except UnsafeFileError as error:
        raise UnsafeFileError(f"{path} {error.message}", error.hint) from error
    # A damaged or hostile pickle can raise anything on its way.
    except Exception as error:
        raise DamagedFileError(
            f"{path} cannot be read: it is cut short or damaged", "copy the checkpoint again"
        ) from error
    _check_files(directory, index)
    return index


class _Record:
    """Stands in for every class of the pickle: keeps its state and does nothing."""

    state: Any = None  # what a pickle that gives none leaves

    def __init__(self, *args: object) -> None:
        """Takes whatever the class itself would have been called with."""

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if name in _RECORDS.get(module, ()):
            return _Record
        if module == "torch":
            if name == "Size":
                return tuple
            if isinstance(dtype := getattr(torch, name, None), torch.dtype):
                return dtype
        raise UnsafeFileError(
            f"asks for {module}.{name}, which is no data; nothing of it was carried out",
            "do not use this checkpoint unless you know who made it",
        )

    def persistent_load(self, pid: Any) -> NoReturn:
        raise UnsafeFileError("refers to something outside itself")


def _parse(metadata: _Record) -> StoredIndex:
    extents = {
        (index.state["fqn"], index.state.get("offset")): _extent(info.state)
        for index, info in metadata.state["storage_data"].items()
    }
    tensors, objects = {}, {}
    for key, stored in metadata.state["state_dict_metadata"].items():
        if stored.state is None:
            objects[_only(str, key)] = extents[key, None]
            continue
        boxes = [(chunk.state["offsets"], chunk.state["sizes"]) for chunk in stored.state["chunks"]]
        chunks = tuple(
            Chunk(_numbers(offsets), _numbers(sizes), extents[key, offsets])
            for offsets, sizes in boxes
        )
        dtype = _only(torch.dtype, stored.state["properties"].state[0])
        tensors[_only(str, key)] = StoredTensor(_numbers(stored.state["size"]), dtype, chunks)
    return StoredIndex(tensors, objects)


def _extent(state: dict[str, Any]) -> Extent:
    start, length = _numbers((state["offset"], state["length"]))
    return Extent(_only(str, state["relative_path"]), start, length)


def _numbers(value: Any) -> tuple[int, ...]:
    numbers = tuple(_only(int, number) for number in value)
    if any(number < 0 for number in numbers):
        raise ValueError(f"{numbers} holds a negative number")
    return numbers


def _only(kind: type[_T], value: Any) -> _T:
    """Returns a value of the type that a whole file has there."""
    if not isinstance(value, kind):
        raise TypeError(f"{value!r} is no {kind.__name__}")
    return value


def _check_files(directory: Path, index: StoredIndex) -> None:
    ends: dict[str, int] = {}
    chunks = [chunk.extent for tensor in index.tensors.values() for chunk in tensor.chunks]
    for extent in (*chunks, *index.objects.values()):
        ends[extent.file] = max(ends.get(extent.file, 0), extent.start + extent.length)
    for name, end in ends.items():
        path = directory / name
        if path.name != name:
            raise DamagedFileError(f"{directory / METADATA} names {name!r}, no file beside it")
        refuse_placeholder(path)
        size = path.stat().st_size
        if size < end:
            raise DamagedFileError(
                f"{path} is cut short: {size:,} of at least {end:,} bytes",
                "copy the checkpoint again",
            )
