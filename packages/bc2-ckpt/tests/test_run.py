"""A run's checkpoints/ folder stands for its newest whole checkpoint."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from bc2_ckpt.checkpoint import open_checkpoint
from bc2_ckpt.config import ModelConfig
from bc2_ckpt.convert import convert


@pytest.fixture
def run(
    config: ModelConfig,
    tensors: dict[str, Tensor],
    build_bin: Callable[..., Path],
    tmp_path: Path,
) -> Path:
    """Whole checkpoints of iterations 9 and 10, and one of 11 that was cut off."""
    folder = tmp_path / "checkpoints"
    for iteration, name in ((9, "nine"), (10, "ten")):
        changed = {key: tensor + iteration for key, tensor in tensors.items()}
        source = open_checkpoint(build_bin(config, changed, name=name))
        convert(source, folder / f"iter_{iteration:07d}", "torch-dist")
    (folder / "iter_0000011").mkdir()
    (folder / "iter_0000011/__0_0.distcp").write_bytes(b"half")
    (folder / "latest_checkpointed_iteration.txt").write_text("10")
    return folder


def test_the_newest_whole_checkpoint_is_taken(run: Path, tensors: dict[str, Tensor]) -> None:
    reader = open_checkpoint(run)
    assert reader.source == run / "iter_0000010"
    norm = tensors["model.norm.weight"]
    assert torch.equal(reader.read("model.norm.weight"), norm + 10)
    older = open_checkpoint(run / "iter_0000009")
    assert torch.equal(older.read("model.norm.weight"), norm + 9)


@pytest.mark.parametrize("named", ["run", "iteration"])
def test_what_the_run_keeps_once_is_found(run: Path, config: ModelConfig, named: str) -> None:
    for name in ("config.json", "tokenizer.model"):
        (run / "iter_0000010" / name).rename(run / name)
    reader = open_checkpoint(run if named == "run" else run / "iter_0000010")
    assert reader.config == config
    assert reader.beside("tokenizer.model") == run / "tokenizer.model"
    assert reader.beside("absent") is None
