"""Archives as torch.save writes them, streamed: no tensor has to be in memory as a whole.

An archive is a zip file of uncompressed members: ``data.pkl``, a pickle that says which tensors
there are, ``data/N``, the elements of the Nth, and a version. Sources: ``_save`` in
torch/serialization.py and caffe2/serialize/inline_container.cc of PyTorch, whose alignment and data
descriptors (checksums behind the members, so that the file is written front to back) are kept. The
checksums are right: ``zipfile.ZipFile.testzip`` finds a damaged member.
"""

from __future__ import annotations

import io
import pickle
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from types import TracebackType
from typing import IO, Any, Protocol, Self

import torch
from torch import Tensor
from torch._utils import _rebuild_tensor_v2

from bc2_ckpt.blocks import raw_bytes

_ROOT = "archive"
_VERSION = b"3\n"
_PICKLE_PROTOCOL = 2
_ALIGNMENT = 64
"""Elements begin at a multiple of this, so that they can be used where they are mapped."""

_LOCAL_HEADER_BYTES = 30
_ZIP64_FIELD_BYTES = 20
_FIELD_HEADER = struct.Struct("<2sH")
_PADDING = b"FB"

_STORAGES = {
    torch.float64: torch.DoubleStorage,
    torch.float32: torch.FloatStorage,
    torch.float16: torch.HalfStorage,
    torch.bfloat16: torch.BFloat16Storage,
}


class Output(Protocol):
    """A file that is written from its beginning to its end."""

    def write(self, data: bytes | memoryview, /) -> int:
        """Appends bytes."""
        ...

    def tell(self) -> int:
        """Returns the number of bytes written."""
        ...


@dataclass(frozen=True, eq=False)
class PendingTensor:
    """A tensor whose elements follow; every object stands for another tensor.

    Attributes:
        shape: Its shape.
        dtype: A floating-point dtype.
    """

    shape: tuple[int, ...]
    dtype: torch.dtype

    @property
    def num_elements(self) -> int:
        """Number of elements."""
        return torch.Size(self.shape).numel()

    @property
    def num_bytes(self) -> int:
        """Size of the elements."""
        return self.num_elements * self.dtype.itemsize


Fill = Callable[[Tensor], None]
"""Appends elements, in row-major order, to the tensor that is being filled."""


class Archive:
    """An archive being written; used as a context manager.

    Args:
        file: It goes behind what the file holds already.
        content: What torch.load is to return: plain values, with a `PendingTensor` in the place of
            every tensor.
    """

    def __init__(self, file: Output, content: object) -> None:
        self._sink = _Sink(file)
        self._zip = zipfile.ZipFile(self._sink, "w")
        self._keys: dict[PendingTensor, str] = {}
        for name, data in (("data.pkl", self._pickle(content)), ("byteorder", b"little")):
            self._zip.writestr(self._member(name, len(data)), data)
        self._unfilled = set(self._keys)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is not None:
            with suppress(OSError, ValueError):  # what is written no longer matters
                self._zip.close()
            return
        if self._unfilled:
            raise ValueError(f"never filled: {self._unfilled}")
        self._zip.writestr(self._member("version", len(_VERSION)), _VERSION)
        self._zip.close()

    @contextmanager
    def fill(self, tensor: PendingTensor) -> Iterator[Fill]:
        """Yields what takes the elements of one tensor; one tensor at a time.

        Raises:
            ValueError: Not as many elements came as the tensor has, or they come a second time.
        """
        if tensor not in self._unfilled:
            raise ValueError(f"no tensor that is to be filled: {tensor}")
        member = self._member(f"data/{self._keys[tensor]}", tensor.num_bytes)
        written = 0
        with self._zip.open(member, "w", force_zip64=_is_large(tensor.num_bytes)) as stream:

            def fill(part: Tensor) -> None:
                nonlocal written
                if part.dtype != tensor.dtype:
                    raise ValueError(f"{part.dtype} for {tensor}")
                written += stream.write(raw_bytes(part))

            yield fill
        if written != tensor.num_bytes:
            raise ValueError(f"{written} bytes for {tensor}")
        self._unfilled.remove(tensor)

    def _pickle(self, content: object) -> bytes:
        buffer = io.BytesIO()
        _Pickler(buffer, self._keys).dump(content)
        return buffer.getvalue()

    def _member(self, name: str, size: int) -> zipfile.ZipInfo:
        """Describes a member that comes next, padded so that its bytes are aligned."""
        info = zipfile.ZipInfo(f"{_ROOT}/{name}")
        header = _LOCAL_HEADER_BYTES + len(info.filename) + _FIELD_HEADER.size
        if _is_large(size):
            header += _ZIP64_FIELD_BYTES
        padding = -(self._sink.tell() + header) % _ALIGNMENT
        info.extra = _FIELD_HEADER.pack(_PADDING, padding) + b"Z" * padding
        return info


def save_tensor(tensor: Tensor, file: Output) -> None:
    """Appends what ``torch.save(tensor, file)`` would, without a copy of the tensor.

    Args:
        tensor: It may be a view into a larger storage, of which nothing else is written.
        file: It goes behind what the file holds already.
    """
    pending = PendingTensor(tuple(tensor.shape), tensor.dtype)
    with Archive(file, pending) as archive, archive.fill(pending) as fill:
        fill(tensor)


def _is_large(size: int) -> bool:
    """Whether a member is of a size that needs fields of 64 bits."""
    return size > zipfile.ZIP64_LIMIT


@dataclass(frozen=True)
class _Storage:
    key: str
    tensor: PendingTensor


class _Pickler(pickle.Pickler):
    """Pickles pending tensors as torch.save pickles tensors, each with a storage of its own."""

    def __init__(self, file: IO[bytes], keys: dict[PendingTensor, str]) -> None:
        super().__init__(file, _PICKLE_PROTOCOL)
        self._keys = keys

    def reducer_override(self, obj: object) -> Any:
        if not isinstance(obj, PendingTensor):
            return NotImplemented
        self._keys[obj] = str(len(self._keys))
        stride = torch.empty(obj.shape, device="meta").stride()
        hooks: OrderedDict[str, object] = OrderedDict()
        storage = _Storage(self._keys[obj], obj)
        return _rebuild_tensor_v2, (storage, 0, obj.shape, stride, False, hooks)

    def persistent_id(self, obj: object) -> Any:
        if not isinstance(obj, _Storage):
            return None
        tensor = obj.tensor
        return "storage", _STORAGES[tensor.dtype], obj.key, "cpu", tensor.num_elements


class _Sink(io.RawIOBase):
    """The file as zipfile is to see it: it begins here and cannot be rewound."""

    def __init__(self, file: Output) -> None:
        self._file = file
        self._start = file.tell()

    def writable(self) -> bool:
        return True

    def write(self, data: Any, /) -> int:
        return self._file.write(data)

    def tell(self) -> int:
        return self._file.tell() - self._start
