"""Refuses a distributed checkpoint that would run code when megatron-core loads it.

megatron-core unpickles ``.metadata`` and the objects in the ``.distcp`` files without limits, so a
checkpoint goes through here before megatron-core sees it.
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

from bc2_ckpt.formats.torch_dist.metadata import StoredIndex, read_index
from bc2_ckpt.formats.torch_dist.pieces import load_extent
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


def vet(directory: Path) -> StoredIndex:
    """Reads everything that is pickled in a distributed checkpoint through allow-lists.

    Args:
        directory: It holds ``.metadata``.

    Returns:
        What the checkpoint holds.

    Raises:
        UnsafeFileError: Something in it asks for more than data.
        DamagedFileError: A file is missing, cut short or damaged.
    """
    index = read_index(directory)
    with torch.serialization.safe_globals(_HARMLESS):
        load_file(directory / COMMON)
        for extent in index.objects.values():
            load_extent(directory, extent)
    return index
