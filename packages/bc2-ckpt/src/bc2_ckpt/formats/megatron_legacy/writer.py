"""Writes a legacy checkpoint that AscendSpeed, ModelLink or Megatron-LM loads as a release."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bc2_ckpt.archive import Archive, Fill, PendingTensor
from bc2_ckpt.blocks import megatron_blocks
from bc2_ckpt.errors import MismatchError
from bc2_ckpt.formats.megatron_legacy.directory import FILE, RELEASE, TRACKER, rank_folder
from bc2_ckpt.formats.megatron_legacy.names import FAMILIES
from bc2_ckpt.formats.megatron_legacy.options import LegacyOptions
from bc2_ckpt.formats.megatron_legacy.plan import LegacyTensor, legacy_tensors
from bc2_ckpt.formats.protocol import CheckpointReader
from bc2_ckpt.formats.sidecars import write_sidecars
from bc2_ckpt.hashing import HashedFile
from bc2_ckpt.layout import ParameterLayout
from bc2_ckpt.transforms import split_rows

_CHECKPOINT_VERSION = 3.0

_FillTensor = Callable[[LegacyTensor], AbstractContextManager[Fill]]
"""Opens one of the tensors in the file of a rank."""


def write(reader: CheckpointReader, directory: Path, options: LegacyOptions) -> dict[str, str]:
    """Fills an empty directory: ``release/``, config.json, the tokenizer and the tracker.

    The files of all ranks grow together, so that the source is read once. The rows that only pad
    the vocabulary repeat the last true row.

    Args:
        reader: The source.
        directory: It exists and is empty.
        options: A parallel layout that the model can be cut into, and the names.

    Returns:
        The SHA-256 of the ranks' files.

    Raises:
        MismatchError: Tensors that are stacked in one differ in dtype.
    """
    config, tp, pp = reader.config, options.tp, options.pp
    layout = ParameterLayout(config, tp, options.padded_vocab_size(config))
    tensors = legacy_tensors(layout, config, FAMILIES[options.names], pp, options.vpp)
    dtypes = {tensor: _dtype(reader, tensor) for tensor in tensors}
    digests: dict[str, str] = {}
    with ExitStack() as stack:
        stages = []
        for pp_rank in range(pp):
            held = {tensor: dtype for tensor, dtype in dtypes.items() if tensor.pp_rank == pp_rank}
            paths = [f"{RELEASE}/{rank_folder(i, pp_rank, pp)}/{FILE}" for i in range(tp)]
            ranks = [_rank_file(directory, path, held, options, digests) for path in paths]
            stages.append([stack.enter_context(rank) for rank in ranks])
        for tensor in tensors:
            _write_tensor(reader, tensor, stages[tensor.pp_rank])
    write_sidecars(reader, directory)
    (directory / TRACKER).write_text(f"{RELEASE}\n", encoding="utf-8")
    return digests


def _dtype(reader: CheckpointReader, tensor: LegacyTensor) -> torch.dtype:
    infos = reader.tensors()
    names = [tensor.param.hf[block] for block in tensor.blocks]
    dtypes = [infos[name].dtype for name in names]
    if len(set(dtypes)) > 1:
        raise MismatchError(
            f"{' and '.join(names)} differ in dtype, but {tensor.flat_name!r} holds both",
            "convert to one dtype with --dtype",
        )
    return dtypes[0]


@contextmanager
def _rank_file(
    directory: Path,
    name: str,
    held: Mapping[LegacyTensor, torch.dtype],
    options: LegacyOptions,
    digests: dict[str, str],
) -> Iterator[_FillTensor]:
    """Makes the file of one rank, yields what opens its tensors, adds its SHA-256 at the end."""
    pending = {
        tensor: PendingTensor(tensor.shard_shape(options.tp), dtype)
        for tensor, dtype in held.items()
    }
    path = directory / name
    path.parent.mkdir(parents=True)
    with HashedFile(path) as file:
        with Archive(file, _content(pending, options.vpp)) as archive:
            yield lambda tensor: archive.fill(pending[tensor])
        digests[name] = file.sha256


def _content(pending: Mapping[LegacyTensor, PendingTensor], vpp: int) -> dict[str, Any]:
    """Returns what torch.load is to return of the file of a rank."""
    content: dict[str, Any] = {"checkpoint_version": _CHECKPOINT_VERSION}
    for tensor, value in pending.items():
        folder = content.setdefault("model" if vpp == 1 else f"model{tensor.chunk}", {})
        *outer, key = tensor.name.split("/")
        for name in outer:
            folder = folder.setdefault(name, {})
        folder[key] = value
    return content


def _write_tensor(
    reader: CheckpointReader, tensor: LegacyTensor, ranks: Sequence[_FillTensor]
) -> None:
    """Writes one tensor into the files of all tensor-parallel ranks."""
    rows, axis = tensor.param.padded_rows, tensor.param.tp
    with ExitStack() as stack:
        fills = [stack.enter_context(fill_tensor(tensor)) for fill_tensor in ranks]
        for block in tensor.blocks:
            for start, part in _padded_blocks(reader, tensor, block):
                for tp_rank, share in split_rows(part, start, rows, axis, len(ranks)):
                    fills[tp_rank](share)


def _padded_blocks(
    reader: CheckpointReader, tensor: LegacyTensor, block: int
) -> Iterator[tuple[int, Tensor]]:
    """Yields the first row and the rows of every block, and of the vocabulary's padding."""
    param = tensor.param
    stop, part = 0, torch.empty(0)
    for rows, part in megatron_blocks(reader, param.hf[block], param):
        yield rows.start, part
        stop = rows.stop
    if stop < param.padded_rows:
        yield stop, part[-1:].expand(param.padded_rows - stop, *part.shape[1:])
