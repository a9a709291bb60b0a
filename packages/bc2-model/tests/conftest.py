"""A tiny vocabulary with the special ids of Baichuan2, and a tiny model with it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from bc2_data import train_tokenizer


@pytest.fixture(scope="session")
def vocabulary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A `tokenizer.model` that is like Baichuan2's in everything but size."""
    directory = tmp_path_factory.mktemp("vocabulary")
    texts = ["The river runs to the sea, and the sea runs round.", "白日依山尽 黄河入海流"]
    train_tokenizer(texts * 20, directory, vocab_size=530)
    return directory / "tokenizer.model"


@pytest.fixture(scope="session")
def model_directory(vocabulary: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random model of the vocabulary, with its tokenizer, as transformers saves it."""
    import sentencepiece
    import torch

    from bc2_model.hf import BaichuanConfig, BaichuanForCausalLM

    directory = tmp_path_factory.mktemp("model")
    torch.manual_seed(0)
    config = BaichuanConfig(
        vocab_size=sentencepiece.SentencePieceProcessor(str(vocabulary)).vocab_size(),
        hidden_size=40,
        intermediate_size=104,
        num_hidden_layers=2,
        num_attention_heads=5,
        initializer_range=0.3,
        torch_dtype="float32",
    )
    BaichuanForCausalLM(config).save_pretrained(directory)
    shutil.copy(vocabulary, directory / "tokenizer.model")
    return directory
