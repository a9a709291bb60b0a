"""Merging adapters into weights, tensor by tensor."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from bc2_ckpt.config import ModelConfig
from bc2_ckpt.formats.hf.reader import HfReader
from bc2_ckpt.layout import ParameterLayout
from bc2_train.errors import TrainError
from bc2_train.merge import MergedReader

LAYER = "model.layers.1.self_attn.W_pack"


def write_base(directory: Path) -> HfReader:
    config = ModelConfig(
        vocab_size=97,
        hidden_size=16,
        intermediate_size=24,
        num_layers=2,
        num_heads=2,
        max_sequence_length=64,
        position_embedding="alibi",
    )
    draw = torch.Generator().manual_seed(0)
    shapes = ParameterLayout(config).hf_shapes()
    directory.mkdir()
    save_file(
        {name: torch.randn(shape, generator=draw).bfloat16() for name, shape in shapes.items()},
        directory / "model.safetensors",
    )
    (directory / "config.json").write_text(json.dumps(config.to_hf()))
    return HfReader(directory)


def write_adapter(directory: Path, layer: str) -> tuple[torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(1)
    inner, outer = torch.randn(3, 16, generator=draw), torch.randn(48, 3, generator=draw)
    directory.mkdir()
    save_file(
        {
            f"base_model.model.{layer}.lora_A.weight": inner,
            f"base_model.model.{layer}.lora_B.weight": outer,
        },
        directory / "adapter_model.safetensors",
    )
    (directory / "adapter_config.json").write_text(json.dumps({"r": 3, "lora_alpha": 12.0}))
    return inner, outer


def test_a_layer_with_an_adapter_is_merged_and_the_others_are_not(tmp_path: Path) -> None:
    base = write_base(tmp_path / "base")
    inner, outer = write_adapter(tmp_path / "adapter", LAYER)
    merged = MergedReader(base, tmp_path / "adapter")
    name = f"{LAYER}.weight"
    expected = (base.read(name).float() + 4 * outer @ inner).bfloat16()
    assert torch.equal(merged.read(name), expected)
    assert torch.equal(merged.read(name, slice(5, 40)), expected[5:40])
    assert all(torch.equal(merged.read(n), base.read(n)) for n in base.tensors() if n != name)


def test_an_adapter_of_another_model_is_refused(tmp_path: Path) -> None:
    base = write_base(tmp_path / "base")
    write_adapter(tmp_path / "adapter", "model.layers.2.self_attn.W_pack")
    with pytest.raises(TrainError, match=r"adapter of model\.layers\.2\.self_attn\.W_pack"):
        MergedReader(base, tmp_path / "adapter")
