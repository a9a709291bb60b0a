"""One weight file: a torch .bin or a safetensors file, opened once and mapped."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

from safetensors import SafetensorError, safe_open
from torch import Tensor

from bc2_ckpt.errors import DamagedFileError, MismatchError
from bc2_ckpt.files import refuse_placeholder
from bc2_ckpt.formats.protocol import DTYPES, TensorInfo, is_weight
from bc2_ckpt.safe_load import load_file


class WeightFile(Protocol):
    """A file that holds tensors by name."""

    def tensors(self) -> dict[str, TensorInfo]:
        """Returns what the file holds."""
        ...

    def read(self, name: str) -> Tensor:
        """Returns one tensor, mapped where the file allows it."""
        ...


def open_weight_file(path: Path) -> WeightFile:
    """Opens a weight file by its ending.

    Raises:
        DamagedFileError: It is missing, cut short, or something else than its name says.
        UnsafeFileError: It is pickled and asks for more than tensors.
        MismatchError: It holds something that is no weight.
    """
    return SafetensorsFile(path) if path.suffix == ".safetensors" else BinFile(path)


class BinFile:
    """A file that torch.save wrote, of tensors by name."""

    def __init__(self, path: Path) -> None:
        content = load_file(path)
        if not isinstance(content, dict):
            raise MismatchError(f"{path} holds no tensors by name")
        for name, tensor in content.items():
            if not is_weight(tensor):
                raise MismatchError(f"{path}: {name!r} is no floating-point tensor")
        self._content: dict[str, Tensor] = content

    def tensors(self) -> dict[str, TensorInfo]:
        """Returns what the file holds."""
        return {
            name: TensorInfo(tuple(tensor.shape), tensor.dtype)
            for name, tensor in self._content.items()
        }

    def read(self, name: str) -> Tensor:
        """Returns one tensor, mapped from the file."""
        return self._content[name].detach()  # it may have been saved as a parameter


class SafetensorsFile:
    """A safetensors file."""

    def __init__(self, path: Path) -> None:
        refuse_placeholder(path)
        try:
            self._file: Any = safe_open(path, framework="pt")
        except SafetensorError as error:
            raise DamagedFileError(
                f"{path} cannot be read: it is cut short or damaged", "download or copy it again"
            ) from error
        self._path = path

    def tensors(self) -> dict[str, TensorInfo]:
        """Returns what the file holds."""
        return {name: self._info(name) for name in self._file.keys()}  # noqa: SIM118, no mapping

    def read(self, name: str) -> Tensor:
        """Returns one tensor, mapped from the file."""
        tensor: Tensor = self._file.get_tensor(name)
        return tensor

    def _info(self, name: str) -> TensorInfo:
        view = self._file.get_slice(name)
        if view.get_dtype() not in DTYPES:
            raise MismatchError(f"{self._path}: {name!r} is no floating-point tensor")
        return TensorInfo(tuple(view.get_shape()), DTYPES[view.get_dtype()])
