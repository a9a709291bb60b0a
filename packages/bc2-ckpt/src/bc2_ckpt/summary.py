"""What `bc2-ckpt inspect` tells of a checkpoint."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from bc2_ckpt.formats.protocol import CheckpointReader, TensorInfo


def summary(reader: CheckpointReader) -> dict[str, Any]:
    """Returns what is known of a checkpoint without reading its tensors, ready for JSON."""
    tensors = reader.tensors()
    return {
        "format": reader.format,
        "source": str(reader.source),
        "config": asdict(reader.config),
        "parameters": sum(info.num_elements for info in tensors.values()),
        "bytes": sum(info.num_bytes for info in tensors.values()),
        "dtypes": sorted({_dtype(info) for info in tensors.values()}),
        "tensors": {
            name: {"shape": info.shape, "dtype": _dtype(info), "bytes": info.num_bytes}
            for name, info in tensors.items()
        },
    }


def lines(reader: CheckpointReader) -> Iterator[str]:
    """Yields the same for people, line by line."""
    facts = summary(reader)
    config = facts["config"]
    yield f"format      {facts['format']}"
    yield f"source      {facts['source']}"
    yield f"parameters  {facts['parameters']:,}"
    yield f"size        {facts['bytes']:,} bytes"
    yield f"dtype       {', '.join(facts['dtypes'])}"
    yield (
        f"model       {config['num_layers']} layers, hidden {config['hidden_size']}, "
        f"intermediate {config['intermediate_size']}, {config['num_heads']} heads, "
        f"vocabulary {config['vocab_size']}, {config['position_embedding']}"
    )
    yield ""
    width = max(len(name) for name in facts["tensors"])
    for name, tensor in facts["tensors"].items():
        shape = " x ".join(str(n) for n in tensor["shape"])
        yield f"{name:<{width}}  {tensor['dtype']:<8}  {tensor['bytes']:>14,}  {shape}"


def _dtype(info: TensorInfo) -> str:
    return str(info.dtype).removeprefix("torch.")
