"""A conversion that is killed at any moment leaves no half of a checkpoint, and can be repeated."""

from __future__ import annotations

import os
import random
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from bc2_ckpt.checkpoint import open_checkpoint
from bc2_ckpt.config import ModelConfig
from bc2_ckpt.convert import convert
from bc2_ckpt.formats import FORMATS
from bc2_ckpt.formats.megatron_legacy.options import LegacyOptions
from bc2_ckpt.integrity.verification import verify
from bc2_data.checksum import sha256

KILLS = 12
OPTIONS = LegacyOptions(tp=4, pp=2)


@pytest.fixture
def config() -> ModelConfig:
    return ModelConfig(
        vocab_size=4000,
        hidden_size=256,
        intermediate_size=512,
        num_layers=8,
        num_heads=8,
        position_embedding="alibi",
    )


def start(source: Path, output: Path, to: str) -> int:
    """Converts in a child, without an import that would take most of its time; returns its id."""
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        convert(open_checkpoint(source), output, to, overwrite=True, legacy=OPTIONS)
        status = 0
    finally:
        os._exit(status)


def kill_after(child: int, seconds: float) -> bool:
    """Kills a child that has not ended by then; returns whether it had."""
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) or os.waitstatus_to_exitcode(status) == 0
    return not os.WIFSIGNALED(status)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
@pytest.mark.parametrize("to", FORMATS)
def test_killed_at_random_moments(
    config: ModelConfig,
    tensors: dict[str, Tensor],
    build_bin: Callable[..., Path],
    tmp_path: Path,
    to: str,
) -> None:
    source, output = build_bin(config, tensors), tmp_path / "out"
    before = {path.name: sha256(path) for path in source.iterdir()}
    begin = time.perf_counter()
    assert os.waitstatus_to_exitcode(os.waitpid(start(source, output, to), 0)[1]) == 0
    whole = time.perf_counter() - begin
    assert_whole(output, tensors)

    moments = random.Random(4)
    killed = 0
    for i in range(KILLS):
        if i % 2:  # else it may replace what stands there
            shutil.rmtree(output, ignore_errors=True)
        killed += not kill_after(start(source, output, to), moments.uniform(0, whole))
        if output.exists():
            assert_whole(output, tensors)
    assert killed >= KILLS // 3
    assert {path.name: sha256(path) for path in source.iterdir()} == before
    convert(open_checkpoint(source), output, to, overwrite=True, legacy=OPTIONS)
    assert_whole(output, tensors)
    assert not list(tmp_path.glob(".*"))


def assert_whole(output: Path, tensors: dict[str, Tensor]) -> None:
    assert [check for check in verify(output) if check.state == "failed"] == []
    reader = open_checkpoint(output)
    for name, tensor in tensors.items():
        assert torch.equal(reader.read(name), tensor), name
