"""Writes a Hugging Face directory with safetensors shards.

The shards are written by hand, block by block, because the library's own writer wants all tensors
of a shard in memory at once. The format is 8 bytes of header size, a JSON header, the raw tensors
(https://github.com/huggingface/safetensors#format).
"""

from __future__ import annotations

import json
import struct
from pathlib import Path

from bc2_ckpt.blocks import raw_bytes, read_blocks
from bc2_ckpt.files import write_json
from bc2_ckpt.formats.protocol import DTYPES, CheckpointReader, TensorInfo
from bc2_ckpt.formats.sidecars import write_sidecars
from bc2_ckpt.hashing import HashedFile

MAX_SHARD_BYTES = 5_000_000_000
"""The size of a shard, as Hugging Face's own exports have it."""

Shard = dict[str, TensorInfo]

_DTYPE_NAMES = {dtype: name for name, dtype in DTYPES.items()}
_ALIGNMENT = 8


def write(
    reader: CheckpointReader, directory: Path, max_shard_bytes: int = MAX_SHARD_BYTES
) -> dict[str, str]:
    """Fills an empty directory with safetensors shards, config.json and what the source carries.

    Args:
        reader: The source.
        directory: It exists and is empty.
        max_shard_bytes: Tensor bytes in a shard; a larger tensor gets a shard to itself.

    Returns:
        The SHA-256 of every shard.
    """
    shards = _plan(reader, max_shard_bytes)
    weight_map: dict[str, str] = {}
    digests: dict[str, str] = {}
    for i, shard in enumerate(shards, start=1):
        name = f"model-{i:05d}-of-{len(shards):05d}.safetensors"
        if len(shards) == 1:
            name = "model.safetensors"
        digests[name] = _write_shard(reader, shard, directory / name)
        weight_map.update(dict.fromkeys(shard, name))
    if len(shards) > 1:
        total = sum(info.num_bytes for info in reader.tensors().values())
        index = {"metadata": {"total_size": total}, "weight_map": weight_map}
        write_json(directory / "model.safetensors.index.json", index)
    write_sidecars(reader, directory)
    return digests


def _plan(reader: CheckpointReader, max_shard_bytes: int) -> list[Shard]:
    shards: list[Shard] = [{}]
    size = 0
    for name, info in reader.tensors().items():
        if shards[-1] and size + info.num_bytes > max_shard_bytes:
            shards.append({})
            size = 0
        shards[-1][name] = info
        size += info.num_bytes
    return shards


def _write_shard(reader: CheckpointReader, shard: Shard, path: Path) -> str:
    """Writes one shard and returns its SHA-256."""
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, info in shard.items():
        start, end = end, end + info.num_bytes
        header[name] = {
            "dtype": _DTYPE_NAMES[info.dtype],
            "shape": info.shape,
            "data_offsets": [start, end],
        }
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    with HashedFile(path) as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for name in shard:
            for block in read_blocks(reader, name):
                file.write(raw_bytes(block))
        return file.sha256
