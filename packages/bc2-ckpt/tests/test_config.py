from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bc2_ckpt.config import PRESETS, ModelConfig
from bc2_ckpt.errors import CkptError


def test_a_config_comes_back_from_its_own_json(config: ModelConfig) -> None:
    written = json.loads(json.dumps(config.to_hf()))
    assert "auto_map" not in written
    assert ModelConfig.from_hf(written) == config


def test_position_embedding_follows_max_position_embeddings_and_the_explicit_key() -> None:
    base = PRESETS["baichuan2-13b"].to_hf()
    del base["position_embedding"]
    assert ModelConfig.from_hf(base).position_embedding == "alibi"
    rotary = base | {"max_position_embeddings": 4096}
    assert ModelConfig.from_hf(rotary).position_embedding == "rotary"
    explicit = rotary | {"position_embedding": "alibi"}
    assert ModelConfig.from_hf(explicit).position_embedding == "alibi"


def test_a_vocabulary_of_64000_means_baichuan_1_which_has_no_norm_head() -> None:
    published = PRESETS["baichuan2-7b"].to_hf() | {"vocab_size": 64_000}
    del published["norm_head"]
    assert not ModelConfig.from_hf(published).norm_head
    assert ModelConfig.from_hf(published | {"vocab_size": 125_696}).norm_head
    assert ModelConfig.from_hf(published | {"vocab_size": 509}).norm_head
    assert ModelConfig.from_hf(published | {"norm_head": True}).norm_head


def test_the_class_name_lets_vllm_choose_the_right_positions() -> None:
    def architecture(config: ModelConfig) -> str:
        (name,) = config.to_hf()["architectures"]
        return str(name)

    # What vLLM does, see BaichuanForCausalLM in its model_executor/models/baichuan.py.
    for config in PRESETS.values():
        is_13b_class = architecture(config) == "BaichuanForCausalLM"
        chosen = "alibi" if is_13b_class and config.hidden_size != 4096 else "rotary"
        assert chosen == config.position_embedding
    assert architecture(PRESETS["baichuan2-7b"]) == "BaichuanForCausalLM", "as it was published"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"norm_head": 0}, "norm_head 0 is neither true nor false"),
        ({"model_type": "llama"}, "model_type is 'llama'"),
        ({"hidden_size": None}, "'hidden_size' is missing"),
        ({"vocab_size": True}, "'vocab_size' is missing or no whole number"),
        ({"num_hidden_layers": 0}, "must be positive"),
        ({"num_attention_heads": 7}, "not divisible"),
        ({"tie_word_embeddings": True}, "tie_word_embeddings"),
        ({"hidden_act": "gelu"}, "hidden_act"),
        ({"position_embedding": "alibj"}, "position_embedding"),
        ({"rms_norm_eps": "1e-6"}, "rms_norm_eps"),
        ({"model_max_length": 1e30}, "model_max_length"),
    ],
)
def test_a_wrong_config_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(CkptError, match=message):
        ModelConfig.from_hf(PRESETS["baichuan2-7b"].to_hf() | change)


def test_load_takes_presets_directories_and_files(tmp_path: Path, config: ModelConfig) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config.to_hf()))
    assert ModelConfig.load("baichuan2-7b") is PRESETS["baichuan2-7b"]
    assert ModelConfig.load(tmp_path) == config
    assert ModelConfig.load(tmp_path / "config.json") == config


def test_an_unknown_preset_names_the_nearest() -> None:
    with pytest.raises(CkptError) as error:
        ModelConfig.load("baichuan2-7")
    assert error.value.hint == "did you mean 'baichuan2-7b'?"


@pytest.mark.parametrize("content", [b"<!DOCTYPE html><html>", b"{", b"[]", b"\xff\xfe", b""])
def test_a_file_that_is_no_config_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(CkptError, match=r"config\.json"):
        ModelConfig.load(tmp_path)


def test_the_real_13b_config(shared: Path) -> None:
    real = ModelConfig.load(shared / "baichuan2/config-13b.json")
    assert real == PRESETS["baichuan2-13b"]


def test_the_config_needs_no_torch() -> None:
    code = "import sys, bc2_ckpt.config; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
