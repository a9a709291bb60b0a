"""What the file of one rank holds, read without carrying out anything that it asks for."""

from __future__ import annotations

import re
from argparse import Namespace
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from bc2_ckpt.errors import MismatchError
from bc2_ckpt.foreign import stand_ins
from bc2_ckpt.formats.protocol import is_weight
from bc2_ckpt.safe_load import load_file

_CHUNK = re.compile(r"model(\d*)")
_NO_WEIGHT = re.compile(r"(.*\.)?(_extra_state|inv_freq)")
"""Empty states of modules, and what is computed from the config."""
_SILENT = (
    "checkpoint_version",
    "iteration",
    "args",
    "tokens",
    "num_floating_point_operations_so_far",
)
"""Keys that a user does not miss."""
_OLDEST_VERSION = 2.0
"""Before it, the rows of query_key_value were arranged otherwise."""


@dataclass(frozen=True)
class RankFile:
    """What is taken from a rank's file, and what is not.

    Attributes:
        path: The file.
        chunks: The tensors of each model chunk, mapped, by their keys joined by dots.
        args: The arguments of the training run; None where a converter wrote the file.
        iteration: Training iterations completed; None where it does not say.
        left_out: The keys of everything else.
    """

    path: Path
    chunks: tuple[Mapping[str, Tensor], ...]
    args: Namespace | None
    iteration: int | None
    left_out: tuple[str, ...]


def load_rank_file(path: Path) -> RankFile:
    """Loads the file of one rank.

    Raises:
        DamagedFileError: It is missing, cut short, or no such file.
        UnsafeFileError: It asks for more than tensors, plain values and inert stand-ins.
        MismatchError: It holds no model, or one of a layout that cannot be converted.
    """
    with stand_ins(path):
        content = load_file(path)
    keys = [key for key in content if isinstance(key, str)] if isinstance(content, dict) else []
    chunks = sorted((int(match[1] or 0), key) for key in keys if (match := _CHUNK.fullmatch(key)))
    if not chunks or [number for number, _ in chunks] != list(range(len(chunks))):
        raise MismatchError(f"{path} holds no model under 'model', or 'model0', 'model1' ...")
    version = content.get("checkpoint_version", 0)
    if not isinstance(version, int | float) or version < _OLDEST_VERSION:
        raise MismatchError(
            f"{path} says checkpoint_version {version}, whose attention weights are arranged "
            "in another way",
            "load and save it with the Megatron that wrote it and a newer one",
        )
    args, iteration = content.get("args"), content.get("iteration")
    taken = {*_SILENT, *(key for _, key in chunks)}
    return RankFile(
        path=path,
        chunks=tuple(dict(_flat(content[key], path)) for _, key in chunks),
        args=args if isinstance(args, Namespace) else None,
        iteration=iteration if type(iteration) is int else None,
        left_out=tuple(key for key in keys if key not in taken and content[key] is not None),
    )


def _flat(value: object, path: Path, name: str = "") -> Iterator[tuple[str, Tensor]]:
    """Yields the tensors in nested dictionaries by their keys joined by dots."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _flat(inner, path, f"{name}.{key}" if name else str(key))
    elif not _NO_WEIGHT.fullmatch(name):
        if not is_weight(value):
            raise MismatchError(f"{path}: {name!r} is no floating-point tensor")
        yield name, value.detach()
