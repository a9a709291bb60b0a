"""A tiny vocabulary with the special ids of Baichuan2, trained on the spot."""

from __future__ import annotations

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
