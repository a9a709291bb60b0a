"""What a conversion is about to do: ``bc2-ckpt convert --dry-run``."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import NamedTemporaryFile

from bc2_ckpt.blocks import raw_bytes, read_blocks
from bc2_ckpt.filters.digesting import Digesting
from bc2_ckpt.formats.protocol import CheckpointReader
from bc2_ckpt.preflight import existing_parent

_SAMPLE_BYTES = 256 * 2**20


def plan(reader: CheckpointReader, output: Path, to: str, needed: int) -> Iterator[str]:
    """Yields, line by line, what a conversion would read and write, and how long it would take.

    Args:
        reader: The source as it would be written: with its dtype, with or without NormHead.
        output: The directory that would be made.
        to: Its format and parallel layout, in words.
        needed: The bytes that it would take.
    """
    free = shutil.disk_usage(existing_parent(output)).free
    infos = reader.tensors().values()
    elements = sum(info.num_elements for info in infos)
    dtypes = ", ".join(sorted({info.dtype_name for info in infos}))
    yield f"from     {reader.source} ({reader.format})"
    yield f"to       {output} ({to})"
    yield f"tensors  {len(infos)}, {elements:,} parameters, {dtypes}"
    yield f"space    {needed / 1e9:,.2f} GB of {free / 1e9:,.1f} GB that are free"
    sampled, seconds = _sample(reader, existing_parent(output))
    total = sum(info.num_bytes for info in infos)
    yield (
        f"time     about {seconds * total / sampled:,.0f} s, going by {sampled / 1e6:,.0f} MB that "
        f"were read, hashed and written beside the output at {sampled / 1e9 / seconds:.2f} GB/s"
    )


def _sample(reader: CheckpointReader, folder: Path) -> tuple[int, float]:
    """Does some of the work into a file that is removed again; returns bytes and seconds."""
    sampled = 0
    start = time.perf_counter()
    with (
        NamedTemporaryFile(dir=folder, prefix=".bc2-ckpt-sample-") as file,
        Digesting(reader, lambda count: None) as source,
    ):
        for name in reader.tensors():
            for block in read_blocks(source, name):
                sampled += file.write(raw_bytes(block))
            if sampled >= _SAMPLE_BYTES:
                break
        file.flush()
        os.fsync(file.fileno())
    return sampled, time.perf_counter() - start
