from __future__ import annotations

import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bc2_data import train_tokenizer
from bc2_data.packing import pack
from bc2_data.tokenizer import load_tokenizer
from bc2_data.verification import verify

MOSS = [
    {
        "chat": {
            "turn_1": {"Human": f"<|Human|>: {text}<eoh>\n", "MOSS": "<|MOSS|>: yes<eom>\n"},
            "turn_2": {"Human": "<|Human|>: why<eoh>\n", "MOSS": "<|MOSS|>: 公园<eom>\n"},
        }
    }
    for text in ("the dog", "北京", "1 + 1", "reading text is what it is")
]
KEYS = ("input_ids", "labels", "attention_mask")


@pytest.fixture
def moss(made: Any) -> Path:
    prefix: Path = made(MOSS, "--handler", "moss")
    return prefix


@pytest.fixture
def packed(moss: Path) -> Path:
    prefix = moss.with_name("packed")
    pack(moss, prefix, seq_length=99)
    return prefix


def tokens(prefix: Path, key: str) -> Any:
    """The tokens of a dataset, to be changed."""
    return np.memmap(prefix.with_name(f"{prefix.name}_packed_{key}_document.bin"), "<i4", "r+")


def failures(prefix: Path, *arguments: Any) -> list[str]:
    return [check.what for check in verify(prefix, *arguments) if check.state == "failed"]


def test_what_was_just_made_is_right(
    cli: Any, moss: Path, packed: Path, tokenizer_dir: Path
) -> None:
    for prefix in (moss, packed, moss.with_name("data_packed_labels_document")):
        outcome = cli("verify", prefix, "--tokenizer", tokenizer_dir)
        assert (outcome.status, outcome.err) == (0, "")
        lines = outcome.out.splitlines()
        assert all(line.startswith("ok ") for line in lines)
        assert re.match(r"ok +6 files have the sizes and SHA-256 of \w+\.manifest\.json", lines[0])
        assert f"the data was made with {tokenizer_dir}" in outcome.out
        assert "every id is in the vocabulary of 640" in outcome.out
    assert "no row has more than 100 tokens" in cli("verify", packed).out


@pytest.mark.parametrize("arguments", [(), ("--append-eos",)])
def test_pretraining_data_is_right(cli: Any, made: Any, arguments: tuple[str, ...]) -> None:
    outcome = cli("verify", made([{"text": "ab"}, {"text": "公园"}], *arguments))
    assert outcome.status == 0
    assert "ok       2 files have" in outcome.out
    assert "ok       documents, tokens are as many as the manifest says" in outcome.out
    assert "label" not in outcome.out


def test_the_ascendspeed_layout_is_right(made: Any) -> None:
    rows = [{"instruction": "the dog", "output": "sleeps"}]
    for arguments in ((), ("--append-eos",)):
        prefix = made(
            rows, "--handler", "alpaca", "--template", "ascendspeed", "--overwrite", *arguments
        )
        assert failures(prefix) == []


def test_any_flipped_byte_is_found(made: Any, packed: Path) -> None:
    text = made([{"text": "ab"}, {"text": "公园"}], name="text")
    generator = random.Random(20)
    for prefix, count in ((packed, 6), (text, 2)):
        paths = sorted(
            path
            for path in prefix.parent.glob(f"{prefix.name}_*")
            if path.suffix in {".bin", ".idx"}
        )
        assert len(paths) == count
        for path in paths:
            whole = path.read_bytes()
            for _ in range(12):
                damaged = bytearray(whole)
                place = generator.randrange(len(whole))
                damaged[place] ^= 1 << generator.randrange(8)
                path.write_bytes(damaged)
                found = failures(prefix)
                assert any(str(path) in what for what in found), (path, place, found)
            path.write_bytes(whole)
        assert failures(prefix) == []


def test_a_damaged_file_fails_the_command(cli: Any, moss: Path) -> None:
    path = moss.with_name("data_packed_labels_document.bin")
    path.write_bytes(path.read_bytes()[:-4])
    outcome = cli("verify", moss)
    assert outcome.status == 1
    size = path.stat().st_size
    expected = f"failed   {path} has {size:,} bytes, the manifest says {size + 4:,}"
    assert expected in outcome.out.splitlines()
    assert f"error: {moss} failed 2 of the checks above\nhint: copy" in outcome.err


def test_a_missing_file_is_named(moss: Path) -> None:
    path = moss.with_name("data_packed_labels_document.idx")
    path.unlink()
    assert failures(moss) == [f"{path} does not exist"] * 2


def test_a_file_that_the_manifest_does_not_know_is_named(moss: Path) -> None:
    for path in moss.parent.glob("data[_.]*"):
        path.rename(path.with_name(path.name.replace("data", "moved", 1)))
    found = failures(moss.with_name("moved"))
    assert len(found) == 6
    assert all(what.endswith("is not in the manifest") for what in found)


def test_nothing_to_verify(cli: Any, moss: Path) -> None:
    outcome = cli("verify", moss.with_name("dato"))
    assert (outcome.status, outcome.out) == (2, "")
    assert "no dataset at" in outcome.err


def test_another_tokenizer_is_named(moss: Path, corpus: Any, tmp_path: Path) -> None:
    train_tokenizer(corpus, tmp_path / "other", vocab_size=600)
    found = failures(moss, load_tokenizer(tmp_path / "other"))
    assert found[0].startswith("the data was made with a tokenizer of SHA-256")


def test_a_damaged_manifest_is_named(moss: Path) -> None:
    moss.with_name("data.manifest.json").write_text("{}")
    assert [what for what in failures(moss) if "is no manifest of bc2-data" in what]


def set_token(key: str, place: int, value: int) -> Callable[[Path], None]:
    def change(prefix: Path) -> None:
        tokens(prefix, key)[place] = value

    return change


def shift_labels(prefix: Path) -> None:
    labels = tokens(prefix, "labels")
    labels[:-1] = labels[1:].copy()


# The tokens of the first row: 195 the-dog 196 yes 195 why ...
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (set_token("input_ids", 1, -1), "1 negative ids, first document 0, token 1: -1"),
        (shift_labels, r"\d+ labels that are neither -100 nor their token nor EOS, first doc"),
        (set_token("labels", 1, 9), "1 labels that are neither .* document 0, token 1: 9"),
        (set_token("attention_mask", 0, 2), "2 segment ids out of order, .* 0, token 0: 2"),
        (set_token("attention_mask", 1, 0), "1 segment ids out of order, .* 0, token 2: 1"),
        (set_token("attention_mask", 2, 3), r"2 segment ids out of order, .* 0, token 2: 3"),
        (set_token("attention_mask", 2, -1), r"2 segment ids out of order, .* 0, token 2: -1"),
    ],
)
def test_contents_are_checked_without_a_manifest(
    cli: Any, moss: Path, change: Callable[[Path], None], message: str
) -> None:
    moss.with_name("data.manifest.json").unlink()
    assert failures(moss) == []
    change(moss)
    (found,) = failures(moss)
    assert re.match(message, found)
    skipped = [line for line in cli("verify", moss).out.splitlines() if line.startswith("skipped")]
    assert len(skipped) == 2


def test_ids_are_held_against_the_vocabulary(moss: Path, tokenizer: Any) -> None:
    tokens(moss, "input_ids")[5] = 640
    tokens(moss, "labels")[5] = -100
    moss.with_name("data.manifest.json").unlink()
    (found,) = failures(moss, tokenizer)
    assert found == "1 ids outside the vocabulary of 640, first document 0, token 5: 640"


def test_padding_may_stand_at_the_end_of_a_row(moss: Path) -> None:
    moss.with_name("data.manifest.json").unlink()
    tokens(moss, "attention_mask")[-2:] = 0
    assert failures(moss) == []
    tokens(moss, "attention_mask")[-1] = 1
    (found,) = failures(moss)
    assert "1 segment ids out of order" in found


@pytest.mark.parametrize("batch", [1, 1 << 20])
def test_a_row_is_a_place_of_its_own(
    packed: Path, batch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Segments begin at 1 in every row, and a second row is named by its own number."""
    monkeypatch.setattr("bc2_data.verification.contents._BATCH_TOKENS", batch)
    again = packed.with_name("rows")
    pack(packed.with_name("data"), again, seq_length=24)
    lengths = [len(row) for row in _rows(again)]
    assert len(lengths) > 1
    assert failures(again) == []
    tokens(again, "attention_mask")[lengths[0]] = 2
    assert [what for what in failures(again) if "first document 1, token 0: 2" in what]


def _rows(prefix: Path) -> list[Any]:
    from bc2_data.indexed import IndexedDataset

    dataset = IndexedDataset(f"{prefix}_packed_input_ids_document")
    return [dataset[number] for number in range(len(dataset))]


def test_counts_are_held_against_the_manifest(packed: Path) -> None:
    """Two conversations become one: every file alone is sound."""
    path = packed.with_name("packed.manifest.json")
    text = path.read_text()
    for name in ("documents", "tokens", "trained_tokens", "conversations"):
        changed = re.sub(rf'"{name}": (\d+)', lambda m: f'"{m[0][1:].split(chr(34))[0]}": 7', text)
        assert changed != text
        path.write_text(changed)
        what = name.replace("_", " ")
        assert [said for said in failures(packed) if f" {what}, the manifest says 7" in said]
    path.write_text(text.replace('"seq_length": 99', '"seq_length": 9'))
    assert "rows of more than 10 tokens, first document 0" in failures(packed)[0]
