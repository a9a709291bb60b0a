"""Refuses a distributed checkpoint that would run code when megatron-core loads it.

megatron-core unpickles ``.metadata`` and the objects in the ``.distcp`` files without limits, so a
checkpoint goes through here before megatron-core sees it.
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
import torch

from bc2_ckpt.foreign import stand_ins
from bc2_ckpt.formats.torch_dist.metadata import StoredIndex, read_index
from bc2_ckpt.formats.torch_dist.pieces import load_extent, open_extent
from bc2_ckpt.safe_load import load_file

COMMON = "common.pt"

_HARMLESS: list[Callable[..., Any] | tuple[Callable[..., Any], str]] = [
    Namespace,
    np.ndarray,
    np.dtype,
    np.dtypes.UInt32DType,
    cast(Callable[..., Any], np.empty(0).__reduce__()[0]),
]
"""Megatron's arguments, and the state of numpy's random numbers."""


def vet(directory: Path, for_megatron: bool = True) -> StoredIndex:
    """Reads everything that is pickled in a distributed checkpoint through allow-lists.

    Args:
        directory: It holds ``.metadata``.
        for_megatron: Whether megatron-core is to load it too, with upstream's classes as they are.
            If not, inert stand-ins take their place.

    Returns:
        What the checkpoint holds.

    Raises:
        UnsafeFileError: Something in it asks for more than data.
        DamagedFileError: A file is missing, cut short or damaged.
    """
    index = read_index(directory)
    allowed = _harmless if for_megatron else stand_ins
    with allowed(directory / COMMON):
        load_file(directory / COMMON)
    for extent in index.objects.values():
        with open_extent(directory, extent) as part, allowed(part):
            load_extent(directory, extent)
    return index


def _harmless(source: Path | IO[bytes]) -> AbstractContextManager[None]:
    """Allows the same classes in every file."""
    context: AbstractContextManager[None] = torch.serialization.safe_globals(_HARMLESS)
    return context
