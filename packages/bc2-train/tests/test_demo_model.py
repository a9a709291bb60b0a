"""The demonstration's checkpoint, opened as any other checkpoint is."""

import json
from dataclasses import replace

import pytest
import torch

from bc2_ckpt.checkpoint import open_checkpoint
from bc2_train.demo.model import DEMO_CONFIG, make_checkpoint

CONFIG = replace(DEMO_CONFIG, vocab_size=600, num_layers=2)


@pytest.fixture
def tokenizer_dir(tmp_path):
    directory = tmp_path / "tokenizer"
    directory.mkdir()
    (directory / "tokenizer.model").write_bytes(b"pieces")
    (directory / "tokenizer_config.json").write_text("{}")
    return directory


def test_the_checkpoint_opens_with_the_config_it_was_made_of(tmp_path, tokenizer_dir):
    make_checkpoint(tmp_path / "hf", CONFIG, tokenizer_dir)
    checkpoint = open_checkpoint(tmp_path / "hf")  # checks every name and shape
    assert checkpoint.config == CONFIG
    assert checkpoint.format == "hf"
    assert (tmp_path / "hf" / "tokenizer.model").read_bytes() == b"pieces"
    assert (tmp_path / "hf" / "tokenizer_config.json").read_text() == "{}"


def test_weights_are_drawn_as_the_official_code_draws_them(tmp_path, tokenizer_dir):
    make_checkpoint(tmp_path / "hf", CONFIG, tokenizer_dir)
    checkpoint = open_checkpoint(tmp_path / "hf")
    for name in checkpoint.tensors():
        tensor = checkpoint.read(name)
        assert tensor.dtype == torch.float32
        if "norm" in name:
            assert torch.equal(tensor, torch.ones_like(tensor)), name
        else:
            assert tensor.std().item() == pytest.approx(0.02, rel=0.02), name
            assert tensor.mean().item() == pytest.approx(0.0, abs=5e-4), name


def test_the_same_seed_gives_the_same_weights_and_another_one_others(tmp_path, tokenizer_dir):
    seeds = {"a": 1, "b": 1, "c": 2}
    for name, seed in seeds.items():
        make_checkpoint(tmp_path / name, CONFIG, tokenizer_dir, seed=seed)
    a, b, c = ((tmp_path / name / "model.safetensors").read_bytes() for name in seeds)
    assert a == b
    assert a != c


def test_the_demo_model_has_what_makes_a_13b_a_13b(tmp_path, tokenizer_dir):
    make_checkpoint(tmp_path / "hf", replace(DEMO_CONFIG, num_layers=1), tokenizer_dir)
    config = json.loads((tmp_path / "hf" / "config.json").read_text())
    assert config["model_type"] == "baichuan"
    assert "max_position_embeddings" not in config  # whose absence means ALiBi
    assert "auto_map" not in config
    heads = config["num_attention_heads"]
    assert heads % 2 == 0
    assert heads & (heads - 1), "a power of two would hide a wrong slope rule"
    assert config["vocab_size"] % 256, "a multiple would hide wrong padding at tensor size 2"
