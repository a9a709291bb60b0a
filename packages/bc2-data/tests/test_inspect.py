from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bc2_data.errors import DataError
from bc2_data.indexed import IndexedDataset
from bc2_data.inspection.lengths import length_statistics
from bc2_data.inspection.terminal import show_document
from bc2_data.manifest import read_manifest
from bc2_data.packing import pack

MOSS = {
    "chat": {
        "turn_1": {"Human": "<|Human|>: the dog<eoh>\n", "MOSS": "<|MOSS|>: sleeps<eom>\n"},
        "turn_2": {"Human": "<|Human|>: why<eoh>\n", "MOSS": "<|MOSS|>: 公园<eom>\n"},
    }
}


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
        "     - | <reserved_106>the dog<reserved_107>",
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
        (("--tokenizer", "x"), "--tokenizer shows the text of documents", "add --doc I or --html"),
        (("other", "--doc", 0), "are about one dataset", "give one PREFIX"),
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


def test_datasets_of_different_runs_do_not_pass_for_one(cli: Any, made: Any) -> None:
    rows = [{"instruction": "1" * 5, "output": "1" * 5}]
    prefix = made(rows, "--handler", "alpaca")
    longer = made([{**rows[0], "output": "1" * 6}], "--handler", "alpaca", name="longer")
    for ending in ("bin", "idx"):
        labels = longer.with_name(f"longer_packed_labels_document.{ending}")
        labels.rename(prefix.with_name(f"data_packed_labels_document.{ending}"))
    outcome = cli("inspect", prefix)
    assert (outcome.status, outcome.out) == (2, "")
    assert "do not hold the same rows" in outcome.err


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


def test_packed_rows_are_shown_by_conversation(cli: Any, made: Any, tokenizer_dir: Path) -> None:
    prefix = made([{"instruction": "the dog", "output": "sleeps"}] * 2, "--handler", "alpaca")
    packed = prefix.with_name("packed")
    tokens = pack(prefix, packed, seq_length=99).tokens // 2
    outcome = cli("inspect", packed, "--doc", 0, "--tokenizer", tokenizer_dir)
    conversation = ["     - | <reserved_106>the dog<reserved_107>", "     = | sleeps</s>"]
    assert outcome.out.splitlines()[2:] == [
        *[f"conversation 1: {tokens} tokens", *conversation],
        *[f"conversation 2: {tokens} tokens", *conversation],
    ]
    summary = cli("inspect", packed).out
    fill = 2 * tokens / 100
    assert f"packed: 2 conversations in 1 rows of up to 100 tokens, {fill:.2%} full" in summary
    assert f"would be {fill / 2:.2%} full: packing saves 50.0% of the rows" in summary


def test_conversations_that_end_untrained_are_kept_apart(cli: Any, made: Any) -> None:
    whole = IndexedDataset(f"{made([MOSS], '--handler', 'moss')}_packed_input_ids_document")[0]
    in_second_request = int(np.flatnonzero(whole == 195)[1]) + 2
    limit = ("--max-length", in_second_request, "--overlong", "truncate")
    prefix = made([MOSS] * 2, "--handler", "moss", *limit, name="cut")
    packed = prefix.with_name("packed")
    pack(prefix, packed, seq_length=99)
    lines = cli("inspect", packed, "--doc", 0).out.splitlines()
    headings = [line for line in lines if line.startswith("conversation")]
    assert headings == [f"conversation {n}: {in_second_request} tokens" for n in (1, 2)]


def test_padding_is_shown_as_such(cli: Any, made: Any) -> None:
    prefix = made([MOSS], "--handler", "moss")
    mask = np.memmap(prefix.with_name("data_packed_attention_mask_document.bin"), "<i4", "r+")
    mask[-1] = 0
    mask.flush()
    lines = cli("inspect", prefix, "--doc", 0).out.splitlines()
    assert lines[2] == f"conversation 1: {len(mask) - 1} tokens"
    assert lines[-2:] == ["padding: 1 tokens", "     - | 2"]


def test_colours_are_for_terminals(
    made: Any, tokenizer: Any, monkeypatch: pytest.MonkeyPatch, cli: Any, tokenizer_dir: Path
) -> None:
    prefix = made([MOSS], "--handler", "moss")
    lines = list(show_document(prefix, 0, tokenizer, colour=True))
    assert lines[3] == "     = | \x1b[32msleeps\x1b[0m"
    assert lines[4] == "  </s> | \x1b[33m<reserved_106>\x1b[0m"
    arguments = ("inspect", prefix, "--doc", 0, "--tokenizer", tokenizer_dir)
    assert "\x1b" not in cli(*arguments).out
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    assert cli(*arguments).out.splitlines() == lines
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b" not in cli(*arguments).out


def test_text_cannot_steer_the_terminal(cli: Any, made: Any, tokenizer_dir: Path) -> None:
    prefix = made([{"text": "a\x1b[2Jb\r\x07\u202edc\tx\n"}])
    outcome = cli("inspect", prefix, "--doc", 0, "--tokenizer", tokenizer_dir)
    assert outcome.out.splitlines()[1] == r"a\x1b[2Jb\r\x07\u202edc" + "\tx"


def test_histogram_counts_every_document_once() -> None:
    lengths = np.array([1, 2, 3, 4, 7, 8, 1000, 1023, 1024])
    statistics = length_statistics(lengths)
    assert [(bin_.low, bin_.high, bin_.count) for bin_ in statistics.bins if bin_.count] == [
        (1, 1, 1),
        (2, 3, 2),
        (4, 7, 2),
        (8, 15, 1),
        (512, 1023, 2),
        (1024, 2047, 1),
    ]
    assert len(statistics.bins) == 11
    bars = list(statistics.bars())
    assert bars[0] == "          1 to 1 | " + "█" * 20 + " 1"
    assert bars[1] == "          2 to 3 | " + "█" * 40 + " 2"
    assert bars[5] == "        32 to 63 |  0"
    assert statistics.summary.startswith("tokens a document: min 1, median 7, mean 341.3, 99 % 1,0")


def test_the_summary_has_the_histogram(cli: Any, made: Any) -> None:
    lines = cli("inspect", made([{"text": "1" * 5}, {"text": "1" * 9}])).out.splitlines()
    assert lines[1].startswith("tokens a document: min 5, median 7, mean 7.0")
    assert lines[2:4] == ["   4 to 7 | " + "█" * 40 + " 1", "  8 to 15 | " + "█" * 40 + " 1"]


def test_a_part_of_a_job_says_so(cli: Any, made: Any) -> None:
    prefix = made([{"text": "a"}], "--rank", 0, "--world-size", 1)
    (manifest,) = prefix.parent.glob("*.manifest.json")
    outcome = cli("inspect", manifest.with_name(manifest.name.removesuffix(".manifest.json")))
    assert "rank 0 of the 1 parts of a job" in outcome.out
    assert "parts of a job" not in cli("inspect", made([{"text": "a"}])).out


def test_several_datasets_are_compared(cli: Any, made: Any) -> None:
    small = made([{"text": "1" * 5}, {"text": "1" * 5}])
    large = made([{"text": "1" * 30}], name="large")
    table, recipe = cli("inspect", small, f"{large}_text_document").out.split("\n\n")
    header, *lines = table.splitlines()
    assert header.split() == ["prefix", "documents", "tokens", "share"]
    assert [line.split() for line in lines] == [
        [str(small), "2", "10", "0.2500"],
        [f"{large}_text_document", "1", "30", "0.7500"],
    ]
    assert recipe.splitlines() == [
        "# in a recipe of bc2-train",
        "data:",
        f'  prefix: "{small}_text_document"',
        "  prefix_weight: 0.250000",
        "  blend:",
        f'    "{large}_text_document": 0.750000',
    ]
    conversations = made([MOSS], "--handler", "moss", name="moss")
    assert "blend" not in cli("inspect", small, conversations).out
