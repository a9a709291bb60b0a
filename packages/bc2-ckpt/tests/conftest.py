"""Tiny checkpoints that the tests build themselves, and where the real ones lie."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from bc2_ckpt.config import ModelConfig, PositionEmbedding
from bc2_ckpt.layout import ParameterLayout

_REPOSITORY = Path(__file__).parents[3]

BuildBin = Callable[..., Path]


@pytest.fixture(params=["rotary", "alibi"])
def position_embedding(request: pytest.FixtureRequest) -> PositionEmbedding:
    """Both kinds of model; a test to which the kind does not matter overrides this with one."""
    kind: PositionEmbedding = request.param
    return kind


@pytest.fixture
def config(position_embedding: PositionEmbedding) -> ModelConfig:
    """A model with an odd vocabulary and, for ALiBi, a number of heads that is no power of two."""
    heads = {"rotary": 4, "alibi": 6}[position_embedding]
    return ModelConfig(
        vocab_size=37,
        hidden_size=4 * heads,
        intermediate_size=18,
        num_layers=3,
        num_heads=heads,
        position_embedding=position_embedding,
        max_sequence_length=64,
        z_loss_weight=0.25,
    )


@pytest.fixture
def tensors(config: ModelConfig) -> dict[str, Tensor]:
    """Every tensor of the model by its Hugging Face name, no two elements alike."""
    generator = torch.Generator().manual_seed(7)
    return {
        name: torch.randn(shape, generator=generator).bfloat16()
        for name, shape in ParameterLayout(config).hf_shapes().items()
    }


@pytest.fixture
def build_bin(tmp_path: Path) -> BuildBin:
    """Returns a function that writes a Hugging Face directory of .bin shards."""

    def build(
        config: ModelConfig | Mapping[str, Any],
        tensors: Mapping[str, Tensor],
        shards: int = 3,
        name: str = "hf",
    ) -> Path:
        directory = tmp_path / name
        directory.mkdir()
        content = config.to_hf() if isinstance(config, ModelConfig) else dict(config)
        content["auto_map"] = {"AutoModelForCausalLM": "modeling_baichuan.BaichuanForCausalLM"}
        (directory / "config.json").write_text(json.dumps(content))
        (directory / "generation_config.json").write_text('{"top_k": 5}')
        (directory / "tokenizer.model").write_bytes(b"\x0a\x0e not a real one")
        (directory / "tokenizer_config.json").write_text(
            '{"add_bos_token": false, "auto_map": {"AutoTokenizer": ["tokenization_baichuan.B"]}}'
        )
        if shards == 1:
            torch.save(dict(tensors), directory / "pytorch_model.bin")
            return directory
        weight_map = {}
        for shard in range(shards):
            file = f"pytorch_model-{shard + 1:05d}-of-{shards:05d}.bin"
            names = list(tensors)[shard::shards]
            torch.save({n: tensors[n] for n in names}, directory / file)
            weight_map.update(dict.fromkeys(names, file))
        index = {"metadata": {}, "weight_map": weight_map}
        (directory / "pytorch_model.bin.index.json").write_text(json.dumps(index))
        return directory

    return build


@pytest.fixture(params=["baichuan2-7b-tiny", "baichuan2-13b-tiny"])
def golden(request: pytest.FixtureRequest) -> Path:
    """A checkpoint of random weights that the official modelling code wrote."""
    return _shared() / "golden" / request.param / "hf"


@pytest.fixture
def shared() -> Path:
    """The folder of real data that is not part of the repository."""
    return _shared()


def _shared() -> Path:
    path = Path(os.environ.get("BC2_SHARED", _REPOSITORY.parent / "shared"))
    if not path.is_dir():
        pytest.skip(f"no real data at {path}: set BC2_SHARED")
    return path
