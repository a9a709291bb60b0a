"""The small files that travel with the weights: config, generation settings, tokenizer."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from bc2_ckpt.files import read_json, refuse_placeholder, write_json
from bc2_ckpt.formats.protocol import CheckpointReader

CARRIED = (
    "generation_config.json",
    "tokenizer.model",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
)
"""Files that a conversion carries over where the source has them."""


def write_sidecars(reader: CheckpointReader, directory: Path) -> None:
    """Writes config.json and carries the other small files over."""
    dtypes = {info.dtype for info in reader.tensors().values()}
    config = reader.config
    if len(dtypes) == 1:
        # The weights know better than a config.json that was copied from elsewhere.
        config = replace(config, dtype=str(dtypes.pop()).removeprefix("torch."))
    write_json(directory / "config.json", config.to_hf())
    carry(reader.beside, directory)


def check_carried(beside: Callable[[str], Path | None]) -> None:
    """Raises where one of the files that would be carried over is not what its name says.

    Args:
        beside: Returns the file of a name where the source has it.

    Raises:
        DamagedFileError: Says what is in its place.
    """
    for name in CARRIED:
        if source := beside(name):
            refuse_placeholder(source)
            if source.suffix == ".json":
                read_json(source)


def carry(beside: Callable[[str], Path | None], directory: Path) -> None:
    """Copies the tokenizer and the generation settings.

    ``auto_map`` is left out everywhere: it names Python files that bc2 neither ships nor runs.

    Args:
        beside: Returns the file of a name where the source has it.
        directory: Receives the copies.
    """
    for name in CARRIED:
        source = beside(name)
        if source is None:
            continue
        refuse_placeholder(source)
        if source.suffix == ".json" and "auto_map" in (value := read_json(source)):
            del value["auto_map"]
            write_json(directory / name, value)
        else:
            shutil.copyfile(source, directory / name)
