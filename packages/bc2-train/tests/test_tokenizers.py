"""Data that was made with another tokenizer than the model's is noticed."""

from __future__ import annotations

from pathlib import Path

import pytest

from bc2_data.checksum import sha256
from bc2_train.data.tokenizers import of_another_tokenizer
from runs import write_manifest


@pytest.fixture
def model(tmp_path: Path) -> Path:
    (tmp_path / "tokenizer.model").write_bytes(b"pieces")
    return tmp_path / "tokenizer.model"


@pytest.mark.parametrize("suffix", ["", "_text_document", "_packed_input_ids_document"])
def test_another_tokenizer_is_told_of(tmp_path: Path, model: Path, suffix: str) -> None:
    write_manifest(tmp_path / "same", tokenizer_sha256=sha256(model))
    write_manifest(tmp_path / "other", tokenizer_sha256="0" * 64)
    prefixes = [f"{tmp_path / name}{suffix}" for name in ("same", "other", "unknown")]
    (warning,) = of_another_tokenizer(prefixes, model)
    assert str(tmp_path / "other") in warning
    assert "elsewhere/tokenizer.model" in warning
    assert str(model) in warning


def test_a_model_without_a_tokenizer_tells_nothing(tmp_path: Path) -> None:
    write_manifest(tmp_path / "other", tokenizer_sha256="0" * 64)
    assert list(of_another_tokenizer([str(tmp_path / "other")], None)) == []
