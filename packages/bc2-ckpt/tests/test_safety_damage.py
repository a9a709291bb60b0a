"""Damage of any kind ends in an error of bc2, never in another exception."""

from __future__ import annotations

import random
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from bc2_ckpt.blocks import read_blocks
from bc2_ckpt.checkpoint import open_checkpoint
from bc2_ckpt.config import ModelConfig
from bc2_ckpt.convert import convert
from bc2_ckpt.errors import CkptError, DamagedFileError
from bc2_ckpt.formats import FORMATS


@pytest.fixture
def position_embedding() -> str:
    return "rotary"


@pytest.fixture
def hf(config: ModelConfig, tensors: dict[str, Tensor], build_bin: Callable[..., Path]) -> Path:
    return build_bin(config, tensors, shards=1)


def damage(content: bytearray, generator: random.Random) -> bytes:
    """A few flipped bits, a hole, or a part that is missing or there twice."""
    kind = generator.randrange(4)
    start = generator.randrange(len(content))
    stop = min(len(content), start + generator.randrange(1, 40))
    if kind == 0:
        for _ in range(generator.randrange(1, 5)):
            content[generator.randrange(len(content))] ^= 1 << generator.randrange(8)
    elif kind == 1:
        content[start:stop] = bytes(stop - start)
    elif kind == 2:
        del content[start:stop]
    else:
        content[start:start] = content[start:stop]
    return bytes(content)


def read_all(directory: Path) -> None:
    reader = open_checkpoint(directory)
    for name in reader.tensors():
        for _block in read_blocks(reader, name):
            pass


@pytest.mark.parametrize("to", ["bin", *FORMATS])
def test_damaged_files_never_lead_to_another_error(hf: Path, tmp_path: Path, to: str) -> None:
    directory = hf
    if to != "bin":
        directory = tmp_path / "out"
        convert(open_checkpoint(hf), directory, to)
    generator = random.Random(3)
    files = sorted(p for p in directory.rglob("*") if p.is_file() and "tokenizer" not in p.name)
    refused = 0
    for _ in range(100):
        path = generator.choice(files)
        content = path.read_bytes()
        # Most of a small pickle or header matters, most of the weights does not.
        path.write_bytes(damage(bytearray(content), generator))
        try:
            read_all(directory)
        except CkptError:
            refused += 1
        path.write_bytes(content)
    assert refused > 10


def test_a_compressed_archive_is_refused(hf: Path) -> None:
    path = hf / "pytorch_model.bin"
    with zipfile.ZipFile(path) as archive:
        members = {info.filename: archive.read(info) for info in archive.infolist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    assert torch.load(path, weights_only=True), "torch itself reads it"
    with pytest.raises(DamagedFileError, match="is compressed"):
        open_checkpoint(hf)
