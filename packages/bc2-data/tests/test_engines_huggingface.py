"""Tokenizer directories of Hugging Face: tokenizer.json and the files that name its tokens."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from bc2_data.errors import DataError
from bc2_data.indexed import IndexedDataset
from bc2_data.special_tokens import SpecialTokenError
from bc2_data.tokenizer import load_tokenizer

tokenizers = pytest.importorskip("tokenizers")

SPECIAL = ["<|endoftext|>", "<|start|>", "<|start|>!"]
TEXTS = ["the quick brown fox", "", "  北京\n\n", "reading 🙂 é"]
CONFIG = {"eos_token": "<|endoftext|>", "bos_token": {"content": "<|start|>", "special": True}}

MakeDirectory = Callable[..., Path]


def build(texts: Sequence[str], roles: bool) -> Any:
    """Trains byte-level BPE whose file pads, cuts and puts a token in front, as some do."""
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=SPECIAL,
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = tokenizers.processors.TemplateProcessing(
        single="<|start|> $A", special_tokens=[("<|start|>", 1)]
    )
    tokenizer.enable_padding(length=50)
    tokenizer.enable_truncation(max_length=3)
    if roles:
        tokenizer.add_tokens(["<reserved_106>", "<reserved_107>", "plain"])
    return tokenizer


@pytest.fixture
def directory(corpus: Sequence[str], tmp_path: Path) -> MakeDirectory:
    """Makes a tokenizer directory."""

    def make(*, roles: bool = False, **configs: Any) -> Path:
        folder = tmp_path / "tokenizer"
        folder.mkdir()
        build(corpus, roles).save(str(folder / "tokenizer.json"))
        for name, content in (configs or {"tokenizer_config": CONFIG}).items():
            (folder / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")
        return folder

    return make


def test_ids_are_those_of_the_library_without_its_additions(directory: MakeDirectory) -> None:
    tokenizer = load_tokenizer(directory(), "allow")
    plain = tokenizers.Tokenizer.from_file(str(tokenizer.path))
    plain.no_padding()
    plain.no_truncation()
    texts = [*TEXTS, "a<|endoftext|>b"]
    expected = [plain.encode(text, add_special_tokens=False).ids for text in texts]
    assert [ids.tolist() for ids in tokenizer.encode(texts)] == expected
    assert (tokenizer.engine, tokenizer.path.name) == ("tokenizers", "tokenizer.json")
    assert tokenizer.vocab_size == plain.get_vocab_size()
    assert tokenizer.encode([]) == []


def test_the_directory_names_the_special_tokens(directory: MakeDirectory) -> None:
    tokenizer = load_tokenizer(directory())
    special = tokenizer.special
    assert (special.eos, special.bos, special.pad) == (0, 1, None)
    assert (special.user, special.assistant) == (None, None)
    assert tokenizer.control == dict(enumerate(SPECIAL))


def test_the_map_fills_in_what_the_config_leaves_out(directory: MakeDirectory) -> None:
    config = {"eos_token": None, "model_max_length": 512}
    names = {"eos_token": "<|endoftext|>", "pad_token": "<|start|>!"}
    special = load_tokenizer(directory(tokenizer_config=config, special_tokens_map=names)).special
    assert (special.eos, special.bos, special.pad) == (0, None, 2)


def test_decoding(directory: MakeDirectory) -> None:
    tokenizer = load_tokenizer(directory())
    for text, ids in zip(TEXTS, tokenizer.encode(TEXTS), strict=True):
        assert tokenizer.decode(ids) == text
        assert tokenizer.decode([1, *ids, 0]) == text
    for outside in (tokenizer.vocab_size, -1):
        with pytest.raises(DataError, match="is outside the"):
            tokenizer.decode([5, outside])


@pytest.mark.parametrize("literal", ["<|endoftext|>", "<|start|>!", "<reserved_106>"])
def test_literals_are_escaped(directory: MakeDirectory, literal: str) -> None:
    tokenizer = load_tokenizer(directory(roles=True))
    text = f"say {literal} plain"
    (ids,) = tokenizer.encode([text])
    parts = tokenizer.encode(["say <", f"{literal[1:]} plain"])
    assert ids.tolist() == [*parts[0], *parts[1]]
    assert tokenizer.decode(ids) == text
    assert tokenizer.special_literals == {literal: 1}


def test_literals_stop_where_that_was_asked_for(directory: MakeDirectory) -> None:
    tokenizer = load_tokenizer(directory(), "error")
    tokenizer.encode(["<reserved_106> is nothing here"])
    with pytest.raises(SpecialTokenError, match=r"<\|endoftext\|>"):
        tokenizer.encode(["a<|endoftext|>"])


def test_through_the_command_line(
    directory: MakeDirectory, cli: Any, write_rows: Any, tmp_path: Path
) -> None:
    folder = directory(roles=True)
    rows = [{"text": text, "instruction": text, "output": "x"} for text in TEXTS]
    arguments = ("tokenize", "--input", write_rows("a.jsonl", rows), "--tokenizer", folder)
    out = tmp_path / "out"
    assert cli(*arguments, "--output-prefix", out / "a", "--append-eos").status == 0
    tokenizer = load_tokenizer(folder)
    dataset = IndexedDataset(out / "a_text_document")
    expected = [[*ids, 0] for ids in tokenizer.encode([text for text in TEXTS if text])]
    assert [ids.tolist() for ids in dataset] == expected
    shown = cli("inspect", out / "a", "--doc", "0", "--tokenizer", folder)
    assert "the quick brown fox<|endoftext|>" in shown.out
    alpaca = (*arguments, "--output-prefix", out / "b", "--handler", "alpaca")
    assert cli(*alpaca).status == 0
    user = load_tokenizer(folder).special.user
    assert IndexedDataset(out / "b_packed_input_ids_document")[0][0] == user
    refused = cli(*arguments, "--output-prefix", out / "c", "--engine", "fastokens")
    assert refused.status == 2
    assert "cannot encode with" in refused.err
    assert "it is no SentencePiece model" in refused.err


def test_a_layout_needs_its_role_tokens(
    directory: MakeDirectory, cli: Any, write_rows: Any, tmp_path: Path
) -> None:
    rows = [{"instruction": "a", "output": "x"}]
    arguments = (
        *("tokenize", "--input", write_rows("a.jsonl", rows), "--tokenizer", directory()),
        *("--output-prefix", tmp_path / "out" / "a", "--handler", "alpaca"),
    )
    refused = cli(*arguments)
    assert refused.status == 2
    assert "hint: use a Baichuan2 tokenizer, or --template ascendspeed" in refused.err
    assert cli(*arguments, "--template", "ascendspeed").status == 0


def test_a_sentencepiece_model_beside_it_comes_first(
    directory: MakeDirectory, tokenizer_dir: Path
) -> None:
    folder = directory()
    (folder / "tokenizer.model").write_bytes((tokenizer_dir / "tokenizer.model").read_bytes())
    assert load_tokenizer(folder).path.name == "tokenizer.model"
    assert load_tokenizer(folder / "tokenizer.json").engine == "tokenizers"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("tokenizer.json", "{}", "no tokenizer.json that the tokenizers library can read"),
        ("tokenizer.json", '{"version": "1', "no tokenizer.json that the tokenizers library"),
        ("tokenizer.json", "<!DOCTYPE html>", "an HTML page"),
        ("tokenizer_config.json", "{", "tokenizer_config.json is no JSON"),
        ("tokenizer_config.json", "{}", "names no eos_token"),
        ("tokenizer_config.json", '{"eos_token": "</nothing>"}', "names no eos_token"),
    ],
)
def test_damaged_files_are_named(
    directory: MakeDirectory, name: str, content: str, message: str
) -> None:
    folder = directory()
    (folder / name).write_text(content)
    with pytest.raises(DataError, match=message) as caught:
        load_tokenizer(folder)
    assert str(folder) in caught.value.message
    assert caught.value.hint


def test_the_missing_library_is_named(
    directory: MakeDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = directory()
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(DataError, match="needs the tokenizers library") as caught:
        load_tokenizer(folder)
    assert caught.value.hint == "pip install 'bc2-data[hf]'"
