from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bc2_data.errors import DataError
from bc2_data.manifest import read_manifest

MOSS = {
    "chat": {
        "turn_1": {"Human": "<|Human|>: the dog<eoh>\n", "MOSS": "<|MOSS|>: sleeps<eom>\n"},
        "turn_2": {"Human": "<|Human|>: why<eoh>\n", "MOSS": "<|MOSS|>: 公园<eom>\n"},
    }
}


@pytest.fixture
def made(cli: Any, write_rows: Any, tokenizer_dir: Path, tmp_path: Path) -> Callable[..., Path]:
    """Tokenises rows and returns the prefix."""

    def make(rows: list[Any], *arguments: object) -> Path:
        prefix = tmp_path / "out" / "data"
        outcome = cli(
            *("tokenize", "--input", write_rows("a.jsonl", rows), "--tokenizer", tokenizer_dir),
            *("--output-prefix", prefix, *arguments),
        )
        assert outcome.status == 0
        return prefix

    return make


def test_summary_of_pretraining_data(cli: Any, made: Any) -> None:
    prefix = made([{"text": "ab"}, {"text": ""}, {"text": "<SEP>"}])
    outcome = cli("inspect", prefix)
    assert outcome.status == 0
    assert "data_text_document: 2 documents, " in outcome.out
    assert "made of 3 rows in 1 file: handler=text" in outcome.out
    assert "640 pieces" in outcome.out
    assert "special token <SEP> in the text: 1 (escape)" in outcome.out
    assert "dropped 1 rows (no_text), such as" in outcome.out
    by_dataset = cli("inspect", prefix.with_name("data_text_document"))
    assert by_dataset.out == outcome.out


def test_a_conversation_shows_what_is_trained(cli: Any, made: Any, tokenizer_dir: Path) -> None:
    prefix = made([MOSS], "--handler", "moss")
    outcome = cli("inspect", prefix, "--doc", 0, "--tokenizer", tokenizer_dir)
    assert outcome.out.splitlines()[2:] == [
        "  </s> | <reserved_106>",
        "     - | the dog<reserved_107>",
        "     = | sleeps",
        "  </s> | <reserved_106>",
        "     - | why<reserved_107>",
        "     = | 公园</s>",
    ]
    assert "trained: " in cli("inspect", prefix).out


def test_ids_without_a_tokenizer(cli: Any, made: Any, tokenizer: Any) -> None:
    prefix = made([{"text": "the dog"}], "--append-eos")
    (ids,) = tokenizer.encode(["the dog"])
    outcome = cli("inspect", prefix, "--doc", 0)
    assert outcome.out.splitlines()[1] == " ".join(map(str, [*ids, 2]))


def test_text_with_control_tokens(cli: Any, made: Any, tokenizer_dir: Path) -> None:
    prefix = made([{"text": "the  dog\n"}], "--append-eos")
    outcome = cli("inspect", prefix, "--doc", 0, "--tokenizer", tokenizer_dir)
    assert outcome.out.partition("\n")[2] == "the  dog\n</s>\n"


@pytest.mark.parametrize(
    ("arguments", "message", "hint"),
    [
        (("--doc", 1), "has no document 1", "documents run from 0 to 0"),
        (("--doc", -1), "has no document -1", "documents run from 0 to 0"),
        (("--tokenizer", "x"), "--tokenizer shows the text of a document", "add --doc I"),
        (("--doc", 0, "--tokenizer", "x"), "no tokenizer at x", "give a directory"),
    ],
)
def test_wrong_requests(
    cli: Any, made: Any, arguments: tuple[object, ...], message: str, hint: str
) -> None:
    outcome = cli("inspect", made([{"text": "a"}]), *arguments)
    assert (outcome.status, outcome.out) == (2, "")
    assert message in outcome.err
    assert f"hint: {hint}" in outcome.err


def test_a_missing_dataset_names_the_nearest(cli: Any, made: Any) -> None:
    prefix = made([{"text": "a"}])
    outcome = cli("inspect", prefix.with_name("dato_text_document"))
    assert outcome.status == 2
    assert "no dataset at" in outcome.err
    assert "hint: did you mean 'data_text_document'?" in outcome.err
    assert "holds no .idx file" in cli("inspect", prefix.parent.parent / "x").err


def test_a_damaged_dataset_is_named(cli: Any, made: Any) -> None:
    prefix = made([MOSS], "--handler", "moss")
    prefix.with_name("data_packed_labels_document.bin").write_bytes(b"short")
    outcome = cli("inspect", prefix)
    assert outcome.status == 2
    assert "data_packed_labels_document.bin has 5 bytes" in outcome.err


def test_data_without_a_manifest(cli: Any, made: Any) -> None:
    prefix = made([{"text": "a"}])
    prefix.with_name("data.manifest.json").unlink()
    outcome = cli("inspect", prefix)
    assert outcome.status == 0
    assert "no manifest at" in outcome.out


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"manifest_version": 1}', "null"])
def test_a_damaged_manifest_is_named(tmp_path: Path, content: str) -> None:
    path = tmp_path / "x.manifest.json"
    path.write_text(content)
    with pytest.raises(DataError, match="is no manifest of bc2-data"):
        read_manifest(path)


def test_a_newer_manifest_asks_for_an_update(tmp_path: Path) -> None:
    path = tmp_path / "x.manifest.json"
    path.write_text('{"manifest_version": 2}')
    with pytest.raises(DataError, match="manifest version 2"):
        read_manifest(path)
