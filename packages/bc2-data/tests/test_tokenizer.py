from __future__ import annotations

import json
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import sentencepiece
from hypothesis import example, given
from hypothesis import strategies as st

from bc2_data import train_tokenizer
from bc2_data.errors import DataError
from bc2_data.special_tokens import SpecialTokenError
from bc2_data.tokenizer import Tokenizer, load_tokenizer

LITERALS = ("<reserved_106>", "<reserved_107>", "<reserved_12>", "<SEP>", "<CLS>")
CONTROL = ("<s>", "</s>", "<unk>")
UNICODE = st.text(st.characters(exclude_categories=["Cs"]))
MARKED = st.lists(st.one_of(UNICODE, st.sampled_from(LITERALS + CONTROL + ("<", "<!--")))).map(
    "".join
)


@pytest.fixture(scope="module")
def escaping(tokenizer_dir: Path) -> Tokenizer:
    return load_tokenizer(tokenizer_dir)


@pytest.fixture(scope="module")
def allowing(tokenizer_dir: Path) -> Tokenizer:
    return load_tokenizer(tokenizer_dir, "allow")


@pytest.fixture(scope="module")
def processor(tokenizer_dir: Path) -> sentencepiece.SentencePieceProcessor:
    return sentencepiece.SentencePieceProcessor(model_file=str(tokenizer_dir / "tokenizer.model"))


def test_special_ids_are_those_of_baichuan2(tokenizer: Tokenizer) -> None:
    special = tokenizer.special
    assert (special.pad, special.bos, special.eos) == (0, 1, 2)
    assert (special.user, special.assistant) == (195, 196)
    assert tokenizer.vocab_size == 640


def test_encodes_int32_without_bos_and_eos(tokenizer: Tokenizer) -> None:
    first, empty = tokenizer.encode(["the dog", ""])
    assert first.dtype == empty.dtype == np.int32
    assert first.ndim == 1
    assert len(empty) == 0
    assert tokenizer.decode(first) == "the dog"
    assert tokenizer.encode([]) == []


@given(text=UNICODE)
@example(text="  two\n\n\tspaces  \r\n0123 ０１ é字🙂 \0")  # noqa: RUF001
def test_text_without_literals_survives_a_round_trip(escaping: Tokenizer, text: str) -> None:
    (ids,) = escaping.encode([text])
    assert escaping.decode(ids) == text


@given(texts=st.lists(MARKED, max_size=4))
def test_allow_gives_what_sentencepiece_gives(
    allowing: Tokenizer, processor: sentencepiece.SentencePieceProcessor, texts: list[str]
) -> None:
    assert [ids.tolist() for ids in allowing.encode(texts)] == processor.encode(texts)


@given(text=MARKED)
def test_escape_lets_no_special_id_through_and_keeps_the_text(
    escaping: Tokenizer, processor: sentencepiece.SentencePieceProcessor, text: str
) -> None:
    (ids,) = escaping.encode([text])
    special = [processor.piece_to_id(literal) for literal in LITERALS] + [0, 1, 2]
    assert not set(ids.tolist()) & set(special)
    assert escaping.decode(ids) == text


@pytest.mark.parametrize("literal", LITERALS + CONTROL)
def test_escape_cuts_after_the_first_character(
    tokenizer: Tokenizer, processor: sentencepiece.SentencePieceProcessor, literal: str
) -> None:
    (ids,) = tokenizer.encode([f"say {literal} twice {literal}"])
    parts = ["say <", f"{literal[1:]} twice <", literal[1:]]
    assert ids.tolist() == [*chain.from_iterable(processor.encode(parts))]
    assert tokenizer.special_literals == {literal: 2}


def test_allow_counts_literals_too(allowing: Tokenizer) -> None:
    before = allowing.special_literals.get("<SEP>", 0)
    assert allowing.encode(["a<SEP>b"])[0].tolist().count(3) == 1
    assert allowing.special_literals["<SEP>"] == before + 1


def test_what_only_looks_like_a_special_token_is_plain_text(
    tokenizer: Tokenizer, processor: sentencepiece.SentencePieceProcessor
) -> None:
    text = "<reserved_1000> <reserved_> <b> <Reserved_106>"
    assert tokenizer.encode([text])[0].tolist() == processor.encode(text)
    assert not tokenizer.special_literals


def test_error_names_the_literal_and_the_text(tokenizer_dir: Path) -> None:
    tokenizer = load_tokenizer(tokenizer_dir, "error")
    tokenizer.encode(["nothing special <b>"])
    with pytest.raises(SpecialTokenError, match="<reserved_106>") as caught:
        tokenizer.encode(["plain", "a <reserved_106> b"])
    assert caught.value.index == 1


def test_decoding_a_foreign_id_is_a_clear_error(tokenizer: Tokenizer) -> None:
    with pytest.raises(DataError, match="id 9999 is outside the 640 pieces"):
        tokenizer.decode([5, 9999])


def test_a_model_file_and_its_directory_are_the_same(tokenizer_dir: Path) -> None:
    by_file = load_tokenizer(tokenizer_dir / "tokenizer.model")
    assert by_file.sha256 == load_tokenizer(tokenizer_dir).sha256
    assert len(by_file.sha256) == 64


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no tokenizer at"),
        (b"", "is no SentencePiece model"),
        (b"hello", "is no SentencePiece model"),
        (b"<!DOCTYPE html><html>", "an HTML page"),
        (b"version https://git-lfs.github.com/spec/v1\noid", "a Git LFS pointer"),
    ],
)
def test_damaged_models_are_named(tmp_path: Path, content: bytes | None, message: str) -> None:
    if content is not None:
        (tmp_path / "tokenizer.model").write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        load_tokenizer(tmp_path)
    assert str(tmp_path) in caught.value.message
    assert caught.value.hint


def test_training_writes_the_official_layout(tokenizer_dir: Path) -> None:
    assert sorted(path.name for path in tokenizer_dir.iterdir()) == [
        "special_tokens_map.json",
        "tokenizer.model",
        "tokenizer_config.json",
    ]
    config = json.loads((tokenizer_dir / "tokenizer_config.json").read_text())
    assert config["add_bos_token"] is config["add_eos_token"] is False
    assert "auto_map" not in config


def test_training_is_reproducible(
    tokenizer_dir: Path, tmp_path: Path, corpus: tuple[str, ...]
) -> None:
    train_tokenizer(corpus, tmp_path / "again", vocab_size=640)
    assert load_tokenizer(tmp_path / "again").sha256 == load_tokenizer(tokenizer_dir).sha256


def test_training_refuses_what_cannot_be(tmp_path: Path, corpus: tuple[str, ...]) -> None:
    with pytest.raises(DataError, match="no tokenizer of 300 pieces"):
        train_tokenizer(corpus, tmp_path / "new", vocab_size=300)
    with pytest.raises(DataError, match="no tokenizer of 60000 pieces"):
        train_tokenizer(corpus, tmp_path / "new", vocab_size=60_000)
    assert not (tmp_path / "new").exists()


def test_training_overwrites_nothing(tokenizer_dir: Path, corpus: tuple[str, ...]) -> None:
    with pytest.raises(Exception, match="exists already"):
        train_tokenizer(corpus, tokenizer_dir, vocab_size=640)


def test_the_official_tokenizer_shares_ids_and_settings(
    shared: Path, tokenizer_dir: Path, processor: sentencepiece.SentencePieceProcessor
) -> None:
    model = shared / "baichuan2" / "tokenizer.model"
    official = sentencepiece.SentencePieceProcessor(model_file=str(model))
    first = range(197)
    assert [processor.id_to_piece(i) for i in first] == [official.id_to_piece(i) for i in first]
    for name in ("special_tokens_map.json", "tokenizer_config.json"):
        theirs = json.loads((shared / "baichuan2" / name).read_text())
        theirs.pop("auto_map", None)
        assert json.loads((tokenizer_dir / name).read_text()) == theirs


def test_official_ids_equal_sentencepiece_on_real_text(shared: Path) -> None:
    model = shared / "baichuan2" / "tokenizer.model"
    lines = (shared / "samples" / "text-4mb.jsonl").read_text(encoding="utf-8").splitlines()
    texts = [json.loads(line)["text"] for line in lines]
    official = sentencepiece.SentencePieceProcessor(model_file=str(model))
    ours = load_tokenizer(model, "allow").encode(texts)
    assert [ids.tolist() for ids in ours] == official.encode(texts)
