"""Reads a Hugging Face directory."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import Tensor

from bc2_ckpt.config import ModelConfig
from bc2_ckpt.errors import DamagedFileError, MismatchError
from bc2_ckpt.files import is_inside, read_json
from bc2_ckpt.formats.hf.files import WeightFile, open_weight_file
from bc2_ckpt.formats.protocol import TensorInfo, check_tensors
from bc2_ckpt.layout import ParameterLayout
from bc2_ckpt.mapped import use

_SINGLE = ("model.safetensors", "pytorch_model.bin")
_BUFFER = re.compile(r"model\.layers\.\d+\.self_attn\.rotary_emb\.inv_freq")
"""Computed from the config, but stored by early releases."""
_SHARD = re.compile(r"(.+)-\d{5}-of-(\d{5})(\.\w+)")


class HfReader:
    """The checkpoint of a Hugging Face directory; where both exist, safetensors is taken.

    Attributes:
        format: ``hf``.
        source: The directory.
        config: The model.
    """

    format = "hf"

    def __init__(self, directory: Path, config: ModelConfig | None = None) -> None:
        """Opens every shard and checks names and shapes.

        Args:
            directory: It holds the weights.
            config: The model; None to read the directory's config.json.

        Raises:
            CkptError: Something is missing, damaged, unsafe or does not match the config.
        """
        self.source = directory
        self.config = config or ModelConfig.load(directory)
        self._files: dict[str, WeightFile] = {}
        found: dict[str, TensorInfo] = {}
        for path in weight_files(directory):
            file = open_weight_file(path)
            for name, info in file.tensors().items():
                if _BUFFER.fullmatch(name):
                    continue
                if name in found:
                    raise MismatchError(f"{directory}: {name!r} stands in more than one file")
                found[name] = info
                self._files[name] = file
        expected = ParameterLayout(self.config).hf_shapes()
        check_tensors(directory, {name: info.shape for name, info in found.items()}, expected)
        self._tensors = {name: found[name] for name in expected}

    def tensors(self) -> Mapping[str, TensorInfo]:
        """Returns every tensor by name, in the order of the model."""
        return self._tensors

    def read(self, name: str, rows: slice | None = None) -> Tensor:
        """Returns one tensor or rows of it, mapped from its file: clone it before changing it."""
        whole = self._files[name].read(name)
        tensor = whole if rows is None else whole[rows]
        use([tensor])
        return tensor

    def notes(self) -> Sequence[str]:
        """Returns nothing: all that a Hugging Face directory holds is carried."""
        return ()

    def origin(self) -> Mapping[str, int]:
        """Returns nothing: a Hugging Face directory does not tell."""
        return {}

    def beside(self, name: str) -> Path | None:
        """Returns a small file of the directory, or None."""
        path = self.source / name
        return path if path.is_file() else None


def weight_files(directory: Path) -> list[Path]:
    """Returns the weight files of a directory; an empty list where it holds none.

    Without an index, a file numbered ``-00001-of-00003`` stands for all three, so that a missing
    one is noticed.

    Raises:
        DamagedFileError: An index is no index, or names a file outside the directory.
    """
    for name in _SINGLE:
        index = directory / f"{name}.index.json"
        if index.is_file():
            return _indexed_files(index)
        if (directory / name).is_file():
            return [directory / name]
    for pattern in ("*.safetensors", "pytorch_model*.bin"):
        found = {path for first in directory.glob(pattern) for path in _numbered(first)}
        if found:
            return sorted(found)
    return []


def _numbered(path: Path) -> list[Path]:
    """Returns all shards of the set that a file's name says it belongs to, or the file alone."""
    match = _SHARD.fullmatch(path.name)
    if match is None:
        return [path]
    stem, count, suffix = match.groups()
    numbers = range(1, int(count) + 1)
    return [path.with_name(f"{stem}-{number:05d}-of-{count}{suffix}") for number in numbers]


def _indexed_files(index: Path) -> list[Path]:
    names = read_json(index).get("weight_map")
    if not isinstance(names, dict) or not names:
        raise DamagedFileError(f"{index} holds no weight_map", "download or copy it again")
    for name in names.values():
        if not is_inside(name) or "/" in name:
            raise DamagedFileError(f"{index} names {name!r}, which is no file beside it")
    return [index.with_name(name) for name in sorted(set(names.values()))]
