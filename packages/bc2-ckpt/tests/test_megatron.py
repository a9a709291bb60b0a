"""Real megatron-core loads what we write, and we read what it saves, in several layouts."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from torch import Tensor

from bc2_ckpt.checkpoint import open_checkpoint
from bc2_ckpt.config import ModelConfig
from bc2_ckpt.convert import convert
from bc2_ckpt.formats.megatron_legacy.options import LegacyOptions
from bc2_ckpt.layout import ParameterLayout

pytestmark = pytest.mark.skipif(
    find_spec("megatron") is None, reason="megatron-core is not installed"
)

PADDED_VOCAB = 40
"""The vocabulary of 37 rows, padded as for tensor-parallel size 2 or 4."""


@pytest.fixture
def config() -> ModelConfig:
    return ModelConfig(
        vocab_size=37,
        hidden_size=16,
        intermediate_size=18,
        num_layers=2,
        num_heads=4,
        position_embedding="rotary",
    )


@pytest.mark.parametrize(
    ("tensor", "pipeline", "wrapped"),
    [(1, 1, False), (2, 1, True), (1, 2, False), (2, 2, False)],
)
def test_megatron_core_loads_and_saves(
    config: ModelConfig,
    tensors: dict[str, Tensor],
    build_bin: Callable[..., Path],
    tmp_path: Path,
    tensor: int,
    pipeline: int,
    wrapped: bool,
) -> None:
    checkpoint, saved = tmp_path / "dist", tmp_path / "run/checkpoints/iter_0000010"
    saved.mkdir(parents=True)
    source = open_checkpoint(build_bin(config, tensors))
    convert(source, checkpoint, "torch-dist")
    options = LegacyOptions(
        tp=tensor, pp=pipeline, vocab_divisor=PADDED_VOCAB // tensor, names="mcore"
    )
    convert(source, tmp_path / "legacy", "megatron-legacy", legacy=options)
    run_ranks(tmp_path, saved, tensor, pipeline, wrapped)

    layout = ParameterLayout(config, tp_size=tensor, padded_vocab_size=PADDED_VOCAB)
    seen = set()
    for rank in range(tensor * pipeline):
        tp_rank, stage = rank % tensor, rank // tensor
        first_layer = stage * config.num_layers // pipeline
        from_dist, from_legacy = torch.load(tmp_path / f"report.{rank}")
        for local_name, value in from_dist.items():
            name = with_global_layer(local_name, first_layer)
            expected = layout.megatron_shard(name, tensors.__getitem__, tp_rank)
            assert value.dtype == expected.dtype
            assert torch.equal(value, expected), name
            true_rows = len(value)
            if len(value) == PADDED_VOCAB // tensor:
                true_rows = min(true_rows, config.vocab_size - tp_rank * true_rows)
            assert torch.equal(from_legacy[local_name][:true_rows], expected[:true_rows]), name
            seen.add((name, tp_rank))
    assert seen == {(param.megatron, rank) for param in layout.params for rank in range(tensor)}

    reader = open_checkpoint(saved.parent, config)
    assert reader.source == saved
    assert reader.tensors().keys() == tensors.keys()
    for name, value in tensors.items():
        assert torch.equal(reader.read(name), value), name


def run_ranks(folder: Path, saved: Path, tensor: int, pipeline: int, wrapped: bool) -> None:
    worker = Path(__file__).with_name("megatron_worker.py")
    paths = [folder / "dist", folder / "legacy", folder / "report", saved]
    arguments = [*paths, tensor, pipeline, PADDED_VOCAB, int(wrapped)]
    command = [sys.executable, str(worker), *map(str, arguments)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "TORCHDYNAMO_DISABLE": "1"}
    ranks = [
        subprocess.Popen(
            command, env=environment | {"RANK": str(rank)}, stderr=subprocess.PIPE, text=True
        )
        for rank in range(tensor * pipeline)
    ]
    try:
        for rank in ranks:
            _, stderr = rank.communicate(timeout=300)
            assert rank.returncode == 0, stderr[-3000:]
    finally:
        for rank in ranks:
            rank.kill()


def with_global_layer(name: str, first_layer: int) -> str:
    parts = name.split(".")
    if parts[:2] == ["decoder", "layers"]:
        parts[2] = str(int(parts[2]) + first_layer)
    return ".".join(parts)
