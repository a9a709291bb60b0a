"""Tensors in a distributed checkpoint that are stored in ways that are not ours."""

from __future__ import annotations

import enum
import io
import pickle
import sys
import types
import zipfile
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.distributed.checkpoint.metadata import (
    ChunkStorageMetadata,
    Metadata,
    MetadataIndex,
    TensorStorageMetadata,
)

from bc2_ckpt.checkpoint import open_checkpoint
from bc2_ckpt.config import ModelConfig
from bc2_ckpt.convert import convert
from bc2_ckpt.errors import DamagedFileError, UnsafeFileError
from bc2_ckpt.formats.torch_dist.vetting import vet

KEY = "decoder.layers.self_attention.linear_proj.weight"
NAME = "model.layers.1.self_attn.o_proj.weight"


@pytest.fixture
def position_embedding() -> str:
    return "rotary"


@pytest.fixture
def dist(
    config: ModelConfig, tensors: dict[str, Tensor], build_bin: Callable[..., Path], tmp_path: Path
) -> Path:
    convert(open_checkpoint(build_bin(config, tensors)), tmp_path / "dist", "torch-dist")
    return tmp_path / "dist"


def saved(value: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def store(dist: Path, chunks: dict[tuple[int, ...], tuple[tuple[int, ...], bytes]]) -> None:
    """Replaces the chunks of layer 1's o_proj: their sizes and bytes by their offsets."""
    metadata: Metadata = pickle.loads((dist / ".metadata").read_bytes())
    stored = metadata.state_dict_metadata[KEY]
    assert isinstance(stored, TensorStorageMetadata)
    first = metadata.storage_data[MetadataIndex(KEY, stored.chunks[0].offsets)]
    stored.chunks = [chunk for chunk in stored.chunks if chunk.offsets[0] != 1]
    with open(dist / first.relative_path, "ab") as file:
        for offsets, (sizes, content) in chunks.items():
            index = MetadataIndex(KEY, torch.Size(offsets))
            stored.chunks.append(ChunkStorageMetadata(torch.Size(offsets), torch.Size(sizes)))
            info = type(first)(first.relative_path, file.tell(), len(content))
            metadata.storage_data[index] = info
            file.write(content)
    (dist / ".metadata").write_bytes(pickle.dumps(metadata))


def test_tensors_that_were_views_when_they_were_saved(
    dist: Path, tensors: dict[str, Tensor]
) -> None:
    whole = tensors[NAME]
    storage = torch.cat([torch.zeros(3, 16).bfloat16(), whole])
    transposed = whole.t().contiguous().t()
    for view in (storage[3:], transposed):
        content = saved(view[None])
        assert len(content) > view.nbytes
        store(dist, {(1, 0, 0): ((1, 16, 16), content)})
        reader = open_checkpoint(dist)
        assert torch.equal(reader.read(NAME), whole)
        assert torch.equal(reader.read(NAME, slice(5, 9)), whole[5:9])


def test_chunks_of_any_box(dist: Path, tensors: dict[str, Tensor]) -> None:
    whole = tensors[NAME]
    boxes = {(0, 0): (7, 4), (0, 4): (7, 12), (7, 0): (9, 16)}
    chunks = {}
    for (row, column), (rows, columns) in boxes.items():
        part = whole[row : row + rows, column : column + columns].clone()
        chunks[1, row, column] = ((1, rows, columns), saved(part[None]))
    store(dist, chunks)
    reader = open_checkpoint(dist)
    assert torch.equal(reader.read(NAME), whole)
    assert torch.equal(reader.read(NAME, slice(6, 8)), whole[6:8])


def compressed(tensor: Tensor) -> bytes:
    """What torch.save wrote, packed anew."""
    buffer = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(saved(tensor))) as old,
        zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as new,
    ):
        for member in old.namelist():
            new.writestr(member, old.read(member))
    return buffer.getvalue()


@pytest.mark.parametrize(
    "content",
    [
        saved(torch.zeros(1, 8, 32).bfloat16()),
        saved(torch.zeros(1, 16, 16)),
        saved([torch.zeros(1, 16, 16).bfloat16()]),
        compressed(torch.zeros(1, 16, 16).bfloat16()),
    ],
    ids=["shape", "dtype", "list", "compressed"],
)
def test_a_chunk_that_is_something_else_is_refused(dist: Path, content: bytes) -> None:
    store(dist, {(1, 0, 0): ((1, 16, 16), content)})
    reader = open_checkpoint(dist)
    with pytest.raises(DamagedFileError, match=r"__0_0\.distcp at byte \d+"):
        reader.read(NAME)


def test_a_box_that_is_in_no_chunk_is_refused(dist: Path, tensors: dict[str, Tensor]) -> None:
    store(dist, {(1, 0, 0): ((1, 7, 16), saved(tensors[NAME][None, :7].clone()))})
    reader = open_checkpoint(dist)
    assert torch.equal(reader.read(NAME, slice(0, 7)), tensors[NAME][:7])
    with pytest.raises(DamagedFileError, match="not stored as a whole"):
        reader.read(NAME)


def test_what_megatron_lm_adds_is_no_obstacle_and_is_not_carried_out(
    dist: Path,
    tensors: dict[str, Tensor],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    module: Any = types.ModuleType("megatron.core.transformer.enums")
    module.AttnBackend = enum.Enum("AttnBackend", {"auto": 5}, module=module.__name__)
    trace = tmp_path / "executed"
    module.evil = lambda: trace.mkdir()
    module.evil.__module__, module.evil.__qualname__ = module.__name__, "evil"
    monkeypatch.setitem(sys.modules, module.__name__, module)

    class Call:
        def __reduce__(self) -> tuple[Any, ...]:
            return module.evil, ()

    args = Namespace(attention_backend=module.AttnBackend.auto, other=Call())
    torch.save({"args": args, "iteration": 10}, dist / "common.pt")
    reader = open_checkpoint(dist)
    assert all(torch.equal(reader.read(name), tensor) for name, tensor in tensors.items())
    assert not trace.exists()
    with pytest.raises(UnsafeFileError, match=r"megatron\.core\.transformer\.enums\."):
        vet(dist)  # which stands before a megatron-core that would carry it out
    # Safe: this test wrote it; that the payload works is what makes the refusal mean something.
    torch.load(dist / "common.pt", weights_only=False)
    assert trace.exists()
