"""Converts a checkpoint of any format to any format, in bounded memory."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path

from bc2_ckpt.filters.base import Filter
from bc2_ckpt.filters.digesting import Digesting
from bc2_ckpt.formats.gguf import writer as gguf
from bc2_ckpt.formats.hf import writer as hf
from bc2_ckpt.formats.megatron_legacy import writer as megatron_legacy
from bc2_ckpt.formats.megatron_legacy.options import ONE_RANK, LegacyOptions
from bc2_ckpt.formats.protocol import CheckpointReader, Writer
from bc2_ckpt.formats.torch_dist import writer as torch_dist
from bc2_ckpt.integrity.manifest import refuse_changed, seal
from bc2_ckpt.mapped import read_once
from bc2_ckpt.preflight import preflight
from bc2_data.atomic import new_directory


def convert(
    reader: CheckpointReader,
    destination: str | Path,
    to: str,
    overwrite: bool = False,
    on_bytes: Callable[[int], object] = lambda count: None,
    legacy: LegacyOptions = ONE_RANK,
) -> None:
    """Writes a checkpoint in another format; it appears whole or not at all.

    ``bc2-checkpoint.json`` beside it holds the checksums of its tensors and files; where the source
    has one too, its tensors are checked while they are read.

    Args:
        reader: The source, as `bc2_ckpt.checkpoint.open_checkpoint` returns it.
        destination: The directory to make.
        to: One of `bc2_ckpt.formats.FORMATS` or `bc2_ckpt.formats.WRITTEN_ONLY`.
        overwrite: Whether to replace what stands at `destination`.
        on_bytes: Called with the number of bytes of every part of a tensor that is done.
        legacy: How ``megatron-legacy`` is laid out. The other formats hold one copy for every
            parallel layout; that the model can be cut for this one is checked for them too.

    Raises:
        Bc2Error: The destination exists or has no room, the model cannot be cut, or the source
            turns out to be damaged.
    """
    output = Path(destination)
    preflight(reader, output, to, overwrite, legacy)
    with new_directory(output) as partial, read_once(), Digesting(reader, on_bytes) as source:
        file_digests = _writer(to, legacy)(source, partial)
        if not isinstance(reader, Filter):  # the tensors are as they are stored
            refuse_changed(reader, source.digests())
        seal(partial, source, to, file_digests)


def _writer(to: str, legacy: LegacyOptions) -> Writer:
    """Returns the function that writes a format."""
    writers: dict[str, Writer] = {
        "hf": hf.write,
        "torch-dist": torch_dist.write,
        "gguf": gguf.write,
        "megatron-legacy": functools.partial(megatron_legacy.write, options=legacy),
    }
    return writers[to]
