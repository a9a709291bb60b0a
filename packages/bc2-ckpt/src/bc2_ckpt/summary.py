"""What `bc2-ckpt inspect` tells of a checkpoint."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from bc2_ckpt.formats.protocol import ORIGIN, CheckpointReader

_WIDTH = 12


def summary(reader: CheckpointReader) -> dict[str, Any]:
    """Returns what is known of a checkpoint without reading its tensors, ready for JSON."""
    tensors = reader.tensors()
    return {
        "format": reader.format,
        "source": str(reader.source),
        "config": asdict(reader.config),
        "parameters": sum(info.num_elements for info in tensors.values()),
        "bytes": sum(info.num_bytes for info in tensors.values()),
        "dtypes": sorted({info.dtype_name for info in tensors.values()}),
        "origin": dict(reader.origin()),
        "notes": list(reader.notes()),
        "tensors": {
            name: {"shape": info.shape, "dtype": info.dtype_name, "bytes": info.num_bytes}
            for name, info in tensors.items()
        },
    }


def lines(reader: CheckpointReader) -> Iterator[str]:
    """Yields the same for people, line by line."""
    facts = summary(reader)
    config = reader.config
    origin = facts["origin"]
    parallel = [f"{ORIGIN[key]} {origin[key]}" for key in ("tp", "pp", "vpp") if key in origin]
    yield _line("format", facts["format"])
    yield _line("source", facts["source"])
    yield _line("parameters", f"{facts['parameters']:,}")
    yield _line("size", f"{facts['bytes']:,} bytes")
    yield _line("dtype", ", ".join(facts["dtypes"]))
    yield _line(
        "model",
        f"{config.num_layers} layers, hidden {config.hidden_size}, "
        f"intermediate {config.intermediate_size}, {config.num_heads} heads, "
        f"vocabulary {config.vocab_size}, {config.position_embedding}, "
        f"{'NormHead' if config.norm_head else 'plain output layer'}",
    )
    yield _line("layout", ", ".join(parallel) or "one copy, for every parallel layout")
    if "iteration" in origin:
        yield _line("iteration", f"{origin['iteration']:,}")
    for note in facts["notes"]:
        yield _line("note", note)
    yield ""
    width = max(len(name) for name in facts["tensors"])
    for name, tensor in facts["tensors"].items():
        shape = " x ".join(str(n) for n in tensor["shape"])
        yield f"{name:<{width}}  {tensor['dtype']:<8}  {tensor['bytes']:>14,}  {shape}"


def _line(what: str, value: str) -> str:
    return f"{what:<{_WIDTH}}{value}"
