"""What can be known to fail before a byte is written.

That the source's files are what their names say, and that names and shapes fit its config, shows
when it is opened (`bc2_ckpt.checkpoint.open_checkpoint`).
"""

from __future__ import annotations

import shutil
from pathlib import Path

from bc2_ckpt.errors import CkptError
from bc2_ckpt.formats.gguf import support as gguf
from bc2_ckpt.formats.megatron_legacy.options import LegacyOptions
from bc2_ckpt.formats.protocol import CheckpointReader
from bc2_ckpt.formats.sidecars import check_carried
from bc2_ckpt.parallel import check_parallel
from bc2_data.atomic import refuse_existing
from bc2_data.errors import Bc2Error
from bc2_data.tokenizer import load_tokenizer

_MARGIN = 64 * 2**20
"""Bytes for what is not counted one by one: headers, archive directories, the tokenizer."""


def preflight(
    reader: CheckpointReader, output: Path, to: str, overwrite: bool, legacy: LegacyOptions
) -> int:
    """Raises the first thing that would make a conversion fail.

    Args:
        reader: The source.
        output: The directory that is to be made.
        to: One of `bc2_ckpt.formats.FORMATS` or `bc2_ckpt.formats.WRITTEN_ONLY`.
        overwrite: Whether what stands at `output` may be replaced.
        legacy: The parallel layout; of formats that hold one copy it is checked only.

    Returns:
        The bytes that the output takes, a little more rather than less.

    Raises:
        Bc2Error: Says what is wrong, and what to do about it.
    """
    refuse_existing(output, overwrite=overwrite)
    if reader.source.resolve().is_relative_to(output.resolve()):
        raise CkptError(
            f"{output} would replace the checkpoint that is read", "choose another output"
        )
    padded = legacy.padded_vocab_size(reader.config)
    check_parallel(reader.config, legacy.tp, legacy.pp, legacy.vpp, padded)
    check_carried(reader.beside)
    if to == "gguf":
        gguf.check(reader)
    needed = output_bytes(reader, padded if to == "megatron-legacy" else None)
    check_space(output, needed)
    return needed


def output_bytes(reader: CheckpointReader, padded_vocab_size: int | None = None) -> int:
    """Returns how much space an output takes, a little more rather than less.

    Args:
        reader: The source.
        padded_vocab_size: Rows of the embedding and of the output layer; None for the true ones.
    """
    rows = reader.config.vocab_size
    padding = (padded_vocab_size or rows) - rows
    size = _MARGIN
    for info in reader.tensors().values():
        size += info.num_bytes
        if info.shape[0] == rows:
            size += padding * (info.num_bytes // rows)
    return size


def check_space(output: Path, needed: int) -> None:
    """Raises where an output has no room.

    Raises:
        CkptError: They are fewer than `needed`.
    """
    folder = existing_parent(output)
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise CkptError(
            f"{output} needs {needed / 1e9:,.1f} GB, but {folder} has {free / 1e9:,.1f} GB free",
            "make room, or choose an output on another disk",
        )


def existing_parent(path: Path) -> Path:
    """Returns the folder, among those above a path, that exists already."""
    return next(folder for folder in path.absolute().parents if folder.is_dir())


def tokenizer_warning(reader: CheckpointReader) -> str | None:
    """Returns what is wrong with the tokenizer that is carried over, or None.

    A tokenizer with more pieces than the embedding has rows is no error: a small stand-in of a
    model is tested with the real tokenizer, as long as the texts keep to its first ids.
    """
    path = reader.beside("tokenizer.model")
    if path is None:
        return "there is no tokenizer.model beside the weights: texts need one"
    try:
        pieces = load_tokenizer(path).vocab_size
    except Bc2Error as error:
        return f"the tokenizer cannot be used: {error.message}"
    rows = reader.config.vocab_size
    if pieces > rows:
        return (
            f"{path} has {pieces:,} pieces, but the model has {rows:,} rows for them: "
            "ids beyond those will fail"
        )
    return None
