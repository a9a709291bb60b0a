"""Any format to any format, in rows: no bit is lost, and memory stays small."""

from __future__ import annotations

import itertools
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from bc2_ckpt import blocks
from bc2_ckpt.blocks import row_blocks
from bc2_ckpt.checkpoint import open_checkpoint
from bc2_ckpt.config import ModelConfig, PositionEmbedding
from bc2_ckpt.convert import convert
from bc2_ckpt.filters.base import Filter
from bc2_ckpt.formats import FORMATS
from bc2_ckpt.formats.megatron_legacy.options import LegacyOptions
from bc2_ckpt.formats.protocol import CheckpointReader
from bc2_ckpt.layout import ParameterLayout

Tensors = dict[str, Tensor]

LAYOUTS = [
    LegacyOptions(tp=tp, pp=pp, vpp=vpp, vocab_divisor=2)
    for tp in (1, 2, 4, 8)
    for pp, vpp in ((1, 1), (2, 1), (4, 1), (2, 2))
]
SMALL = 1000
"""Bytes of a block, so small that the tensors of the tests have many."""


@pytest.fixture
def config(position_embedding: PositionEmbedding) -> ModelConfig:
    """The heads of the 7B and of the 13B model, an odd vocabulary."""
    heads = {"rotary": 32, "alibi": 40}[position_embedding]
    return ModelConfig(
        vocab_size=37,
        hidden_size=2 * heads,
        intermediate_size=24,
        num_layers=4,
        num_heads=heads,
        position_embedding=position_embedding,
    )


@pytest.fixture
def checkpoints(
    config: ModelConfig, tensors: Tensors, build_bin: Callable[..., Path], tmp_path: Path
) -> dict[str, CheckpointReader]:
    """The same model in every format."""
    source = open_checkpoint(build_bin(config, tensors, name="source"))
    readers = {}
    for to in FORMATS:
        convert(source, tmp_path / to, to, legacy=LegacyOptions(tp=4, pp=2, vocab_divisor=2))
        readers[to] = open_checkpoint(tmp_path / to)
    return readers


def assert_equal(reader: CheckpointReader, tensors: Tensors) -> None:
    assert list(reader.tensors()) == list(tensors)
    for name, tensor in tensors.items():
        assert torch.equal(reader.read(name), tensor), name


def test_every_pair_of_formats(
    config: ModelConfig,
    tensors: Tensors,
    checkpoints: dict[str, CheckpointReader],
    tmp_path: Path,
) -> None:
    options = LegacyOptions(tp=2, pp=4, vocab_divisor=1)
    for first, second in itertools.product(FORMATS, FORMATS):
        output = tmp_path / f"{first}-to-{second}"
        convert(checkpoints[first], output, second, legacy=options)
        back = open_checkpoint(output)
        assert (back.format, back.config) == (second, config)
        assert_equal(back, tensors)


@pytest.mark.parametrize("options", LAYOUTS, ids=lambda o: f"TP{o.tp}-PP{o.pp}-VPP{o.vpp}")
def test_every_parallel_layout_there_and_back(
    config: ModelConfig,
    tensors: Tensors,
    build_bin: Callable[..., Path],
    tmp_path: Path,
    options: LegacyOptions,
) -> None:
    source = open_checkpoint(build_bin(config, tensors))
    convert(source, tmp_path / "there", "megatron-legacy", legacy=options)
    there = open_checkpoint(tmp_path / "there")
    origin = {"tp": options.tp, "pp": options.pp, "vpp": options.vpp}
    assert there.origin() == origin
    assert_equal(there, tensors)
    convert(there, tmp_path / "back", "hf")
    assert_equal(open_checkpoint(tmp_path / "back"), tensors)


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "MAX_BYTES", SMALL)


def test_rows_are_those_of_the_whole_tensor(
    small_blocks: None, tensors: Tensors, checkpoints: dict[str, CheckpointReader]
) -> None:
    draw = random.Random(3)
    for reader, (name, tensor) in itertools.product(checkpoints.values(), tensors.items()):
        for _ in range(2):
            start = draw.randrange(len(tensor))
            stop = draw.randint(start + 1, len(tensor))
            rows = reader.read(name, slice(start, stop))
            assert torch.equal(rows, tensor[start:stop]), (reader.format, name, start, stop)


class Recorded(Filter):
    """Remembers which rows were read, and makes sure that blocks are small."""

    def __init__(self, reader: CheckpointReader) -> None:
        super().__init__(reader)
        self.rows: dict[str, list[int]] = {}
        self.largest = 0

    def read(self, name: str, rows: slice | None = None) -> Tensor:
        tensor = super().read(name, rows)
        first = 0 if rows is None else rows.start
        self.rows.setdefault(name, []).extend(range(first, first + len(tensor)))
        if not name.endswith("W_pack.weight"):
            self.largest = max(self.largest, tensor.nbytes)
        return tensor


def test_writers_read_every_row_once_in_order_and_in_blocks(
    small_blocks: None,
    config: ModelConfig,
    tensors: Tensors,
    build_bin: Callable[..., Path],
    tmp_path: Path,
) -> None:
    hf = build_bin(config, tensors)
    for to in FORMATS:
        source = Recorded(open_checkpoint(hf))
        convert(source, tmp_path / f"{to}-out", to, legacy=LegacyOptions(tp=2, pp=2, vpp=2))
        assert source.rows == {name: list(range(len(tensor))) for name, tensor in tensors.items()}
        assert source.largest <= SMALL


@given(rows=st.integers(1, 50), row_bytes=st.integers(1, 9), max_bytes=st.integers(1, 30))
def test_blocks_are_all_rows_in_order(rows: int, row_bytes: int, max_bytes: int) -> None:
    parts = list(row_blocks(rows, row_bytes, max_bytes))
    assert [row for part in parts for row in range(part.start, part.stop)] == list(range(rows))
    for part in parts:
        assert part.stop - part.start == 1 or (part.stop - part.start) * row_bytes <= max_bytes


MEMORY = """
import sys, threading, time
from pathlib import Path
from bc2_ckpt import blocks
from bc2_ckpt.checkpoint import open_checkpoint
from bc2_ckpt.convert import convert
from bc2_ckpt.formats.megatron_legacy.options import LegacyOptions

def anonymous():
    status = Path("/proc/self/status").read_text()
    return int(status.split("RssAnon:")[1].split()[0]) * 1024

blocks.MAX_BYTES = 2 << 20
peak = 0
def watch():
    global peak
    while True:
        peak = max(peak, anonymous())
        time.sleep(0.002)

root = Path(sys.argv[1])
convert(open_checkpoint(root / "small"), root / "warm", "megatron-legacy")
before = anonymous()
threading.Thread(target=watch, daemon=True).start()
options = LegacyOptions(tp=4)
for source, output, to in (
    ("hf", "dist", "torch-dist"), ("dist", "legacy", "megatron-legacy"), ("legacy", "back", "hf")
):
    convert(open_checkpoint(root / source), root / output, to, legacy=options)
print(peak - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="/proc is not there")
def test_a_tensor_larger_than_the_memory_that_is_used(
    build_bin: Callable[..., Path], tmp_path: Path
) -> None:
    def build(vocab_size: int, name: str) -> int:
        config = ModelConfig(
            vocab_size=vocab_size,
            hidden_size=256,
            intermediate_size=256,
            num_layers=1,
            num_heads=4,
            position_embedding="rotary",
        )
        shapes = ParameterLayout(config).hf_shapes()
        tensors = {name: torch.zeros(shape, dtype=torch.bfloat16) for name, shape in shapes.items()}
        build_bin(config, tensors, shards=1, name=name)
        return tensors["lm_head.weight"].nbytes

    build(100, "small")
    embedding = build(120_000, "hf")
    command = [sys.executable, "-c", MEMORY, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert int(done.stdout) < embedding / 2


@pytest.mark.parametrize("options", [LegacyOptions(tp=2), LegacyOptions(tp=2, pp=2)])
def test_golden_checkpoints_come_back_bit_by_bit(
    golden: Path, tmp_path: Path, options: LegacyOptions
) -> None:
    shards = [torch.load(path, weights_only=True) for path in golden.glob("*.bin")]
    original = {name: tensor for shard in shards for name, tensor in shard.items()}
    source = open_checkpoint(golden)
    convert(source, tmp_path / "legacy", "megatron-legacy", legacy=options)
    convert(open_checkpoint(tmp_path / "legacy"), tmp_path / "dist", "torch-dist")
    convert(open_checkpoint(tmp_path / "dist"), tmp_path / "hf", "hf")
    back = open_checkpoint(tmp_path / "hf")
    assert back.config == source.config
    assert back.tensors().keys() == original.keys()
    assert all(torch.equal(back.read(name), tensor) for name, tensor in original.items())
