"""Converts a checkpoint of any format to any format, one tensor in memory at a time."""

from __future__ import annotations

from pathlib import Path

from bc2_ckpt.errors import CkptError
from bc2_ckpt.formats.hf import writer as hf
from bc2_ckpt.formats.protocol import CheckpointReader, Writer
from bc2_ckpt.formats.torch_dist import writer as torch_dist
from bc2_data.atomic import new_directory, refuse_existing

WRITERS: dict[str, Writer] = {"hf": hf.write, "torch-dist": torch_dist.write}
"""The function that writes each of `bc2_ckpt.formats.FORMATS`."""


def convert(
    reader: CheckpointReader, destination: str | Path, to: str, overwrite: bool = False
) -> None:
    """Writes a checkpoint in another format; it appears whole or not at all.

    Args:
        reader: The source, as `bc2_ckpt.checkpoint.open_checkpoint` returns it.
        destination: The directory to make.
        to: One of `bc2_ckpt.formats.FORMATS`.
        overwrite: Whether to replace what stands at `destination`.

    Raises:
        Bc2Error: The destination exists, or the source turns out to be damaged.
    """
    output = Path(destination)
    refuse_existing(output, overwrite=overwrite)
    if reader.source.resolve().is_relative_to(output.resolve()):
        raise CkptError(
            f"{output} would replace the checkpoint that is read", "choose another output"
        )
    with new_directory(output) as partial:
        WRITERS[to](reader, partial)
