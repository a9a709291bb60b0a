"""Reads a distributed checkpoint of megatron-core, or the newest one of a run."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import Tensor

from bc2_ckpt.config import ModelConfig
from bc2_ckpt.errors import CkptError, MismatchError, NotACheckpointError
from bc2_ckpt.formats.protocol import DTYPES, TensorInfo, check_tensors
from bc2_ckpt.formats.torch_dist.keys import MODEL_ROOTS, PREFIXES, box, stored_key, stored_shape
from bc2_ckpt.formats.torch_dist.metadata import METADATA, StoredTensor
from bc2_ckpt.formats.torch_dist.pieces import Pieces, touched
from bc2_ckpt.formats.torch_dist.vetting import vet
from bc2_ckpt.layout import ParameterLayout
from bc2_ckpt.transforms import PaddedVocab

_ITERATION = re.compile(r"iter_\d{7,}")
_FINISHED = ("metadata.json", "checksums.json")
"""Written last, the one by megatron-core, the other by bc2-train for any engine: a directory that
has either is whole."""


class TorchDistReader:
    """The model in a distributed checkpoint; the optimizer in it is left out.

    Attributes:
        format: ``torch-dist``.
        source: The directory that holds ``.metadata``.
        config: The model.
    """

    format = "torch-dist"

    def __init__(self, directory: Path, config: ModelConfig | None = None) -> None:
        """Vets the checkpoint and checks names and shapes.

        Args:
            directory: It holds ``.metadata``, or ``iter_*`` directories that do.
            config: The model; None to read config.json, beside the checkpoint or in its run.

        Raises:
            CkptError: Something is missing, damaged, unsafe or does not match the config.
        """
        self.source = newest_iteration(directory) if is_run(directory) else directory
        self.config = config or self._stored_config()
        index = vet(self.source, for_megatron=False)
        self._stored = _model_tensors(self.source, index.tensors)
        self._left_out = len(index.tensors) - len(self._stored)
        self._pieces = Pieces(self.source)
        layout = ParameterLayout(self.config)
        expected = {stored_key(p): stored_shape(p, self.config) for p in layout.params}
        padded = {stored_key(p) for p in layout.params if isinstance(p.transform, PaddedVocab)}
        found = {
            key: _true_shape(stored, self.config) if key in padded else stored.shape
            for key, stored in self._stored.items()
        }
        check_tensors(self.source, found, expected)
        self._blocks = {
            name: (param, block) for param in layout.params for block, name in enumerate(param.hf)
        }
        self._tensors = {
            name: TensorInfo(param.shape, self._stored[stored_key(param)].dtype)
            for name, (param, _) in self._blocks.items()
        }

    def tensors(self) -> Mapping[str, TensorInfo]:
        """Returns every tensor by its Hugging Face name, in the order of the model."""
        return self._tensors

    def read(self, name: str, rows: slice | None = None) -> Tensor:
        """Returns one tensor or rows of it, in Hugging Face's arrangement and without padding."""
        param, block = self._blocks[name]
        stored = touched(self._stored[stored_key(param)], *box(param, block))

        def read(run: slice) -> Tensor:
            tensor = self._pieces.read_box(stored, *box(param, block, run))
            return tensor if param.layer is None else tensor[0]

        return param.hf_rows(rows or slice(0, param.shape[0]), read)

    def notes(self) -> Sequence[str]:
        """Returns a word on what does not belong to the model, which is left out."""
        if not self._left_out:
            return ()
        return (f"{self._left_out} tensors of the optimizer are left out",)

    def origin(self) -> Mapping[str, int]:
        """Returns the iteration of a run's checkpoint."""
        if not _ITERATION.fullmatch(self.source.name):
            return {}
        return {"iteration": int(self.source.name.removeprefix("iter_"))}

    def beside(self, name: str) -> Path | None:
        """Returns a small file of the checkpoint or else of its run, or None."""
        folders = [self.source]
        if _ITERATION.fullmatch(self.source.name):
            folders.append(self.source.parent)
        return next((path for folder in folders if (path := folder / name).is_file()), None)

    def _stored_config(self) -> ModelConfig:
        path = self.beside("config.json")
        if path is None:
            raise CkptError(
                f"{self.source} has no config.json",
                "say which model it is: --config baichuan2-7b, baichuan2-13b or a directory",
            )
        return ModelConfig.load(path)


def is_run(directory: Path) -> bool:
    """Whether a directory holds a run's checkpoints, one per iteration."""
    return not (directory / METADATA).exists() and any(
        _ITERATION.fullmatch(path.name) for path in directory.iterdir()
    )


def newest_iteration(directory: Path) -> Path:
    """Returns the newest whole checkpoint of a run.

    Raises:
        NotACheckpointError: None of them is whole.
    """
    whole = [
        path
        for path in directory.iterdir()
        if _ITERATION.fullmatch(path.name) and any((path / name).is_file() for name in _FINISHED)
    ]
    if not whole:
        raise NotACheckpointError(f"no checkpoint in {directory} was written to its end")
    return max(whole, key=lambda path: int(path.name.removeprefix("iter_")))


def _model_tensors(where: Path, stored: dict[str, StoredTensor]) -> dict[str, StoredTensor]:
    """Returns the model's tensors without the prefix that their keys may share."""
    prefix = next((p for p in PREFIXES if f"{p}embedding.word_embeddings.weight" in stored), "")
    model = {
        name: tensor
        for key, tensor in stored.items()
        if key.startswith(prefix)
        and (name := key.removeprefix(prefix)).partition(".")[0] in MODEL_ROOTS
    }
    for name, tensor in model.items():
        if tensor.dtype not in DTYPES.values():
            raise MismatchError(f"{where}: {name!r} is no floating-point tensor")
    return model


def _true_shape(stored: StoredTensor, config: ModelConfig) -> tuple[int, ...]:
    """The shape without the padding rows that training under tensor parallelism adds."""
    return (min(stored.shape[0], config.vocab_size), *stored.shape[1:])
