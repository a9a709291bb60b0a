"""``bc2-data tokenize`` from the command line to the files."""

from __future__ import annotations

import json
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bc2_data.indexed import IndexedDataset
from bc2_data.manifest import read_manifest
from bc2_data.tokenizer import Tokenizer

TEXTS = [{"text": "the quick brown fox"}, {"text": "  北京\n\n"}, {"text": "42 + 1"}]
ALPACA = [
    {"instruction": "Say hi.", "input": "", "output": "hi"},
    {"instruction": "Add.", "input": "1 + 1", "output": "2"},
]


def names(folder: Path) -> list[str]:
    """Returns everything below a folder, hidden names included."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


@pytest.fixture
def tokenize(cli: Any, tokenizer_dir: Path, out: Path) -> Callable[..., Any]:
    def run(path: Path, *arguments: object) -> Any:
        return cli(
            *("tokenize", "--input", path, "--tokenizer", tokenizer_dir),
            *("--output-prefix", out / "data", *arguments),
        )

    return run


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.parquet"])
def test_text_from_every_format(
    tokenize: Any, write_rows: Any, tokenizer: Tokenizer, out: Path, name: str
) -> None:
    outcome = tokenize(write_rows(name, TEXTS), "--append-eos")
    assert (outcome.status, outcome.err) == (0, "")
    assert names(out) == ["data.manifest.json", "data_text_document.bin", "data_text_document.idx"]
    dataset = IndexedDataset(out / "data_text_document")
    expected = tokenizer.encode([row["text"] for row in TEXTS])
    assert [ids.tolist() for ids in dataset] == [[*ids.tolist(), 2] for ids in expected]
    assert f"3 documents, {dataset.num_tokens} tokens" in outcome.out


def test_instruction_data_has_three_datasets(tokenize: Any, write_rows: Any, out: Path) -> None:
    assert tokenize(write_rows("a.jsonl", ALPACA), "--handler", "alpaca").status == 0
    keys = ("attention_mask", "input_ids", "labels")
    assert names(out) == [
        "data.manifest.json",
        *(f"data_packed_{key}_document.{ending}" for key in keys for ending in ("bin", "idx")),
    ]
    indices = {(out / f"data_packed_{key}_document.idx").read_bytes() for key in keys}
    assert len(indices) == 1
    mask, ids, labels = (IndexedDataset(out / f"data_packed_{key}_document") for key in keys)
    for index in range(2):
        assert set(mask[index].tolist()) == {1}
        trained = labels[index] != -100
        trained[0] = False  # the first label is EOS where the input is the user token
        np.testing.assert_array_equal(ids[index][trained], labels[index][trained])
        assert (ids[index][0], labels[index][0], ids[index][-1]) == (195, 2, 2)


def test_the_manifest_tells_everything(
    tokenize: Any, write_rows: Any, tokenizer: Tokenizer, out: Path
) -> None:
    rows = [*ALPACA, {"instruction": "x", "output": ""}, {"instruction": "<SEP>", "output": "y"}]
    path = write_rows("a.jsonl", rows)
    with open(path, "a", encoding="utf-8") as file:
        file.write("{broken\n")
    outcome = tokenize(path, "--handler", "alpaca", "--max-length", 40)
    assert outcome.status == 0
    manifest = read_manifest(out / "data.manifest.json")
    assert manifest.kind == "instruction"
    assert manifest.options["max_length"] == 40
    (source,) = manifest.inputs
    content = path.read_bytes()
    assert (source.path, source.size, source.rows) == (str(path), len(content), 5)
    assert source.sha256 == sha256(content).hexdigest()
    assert manifest.tokenizer.sha256 == tokenizer.sha256
    assert manifest.tokenizer.special_literals == {"<SEP>": 1}
    assert len(manifest.outputs) == 6
    for output in manifest.outputs:
        written = (out / output.name).read_bytes()
        assert (output.size, output.sha256) == (len(written), sha256(written).hexdigest())
    labels = IndexedDataset(out / "data_packed_labels_document")
    assert (manifest.documents, manifest.tokens) == (len(labels), labels.num_tokens)
    assert manifest.documents == 3
    trained = sum(int((labels[index][1:] != -100).sum()) for index in range(len(labels)))
    assert manifest.trained_tokens == trained
    assert {reason: tally.count for reason, tally in manifest.dropped.items()} == {
        "no_text": 1,
        "bad_row": 1,
    }
    assert manifest.dropped["no_text"].examples == [f"{path}:3: 'output' is empty"]
    assert manifest.dropped["bad_row"].examples[0].startswith(f"{path}:5: no JSON")
    assert f"dropped 1 rows (bad_row), such as {path}:5" in outcome.out


def test_equal_runs_give_equal_files(cli: Any, tokenize: Any, write_rows: Any, out: Path) -> None:
    path = write_rows("a.jsonl", TEXTS)
    tokenize(path)
    first = {name: (out / name).read_bytes() for name in names(out)}
    assert tokenize(path, "--overwrite").status == 0
    assert {name: (out / name).read_bytes() for name in names(out)} == first


def test_several_inputs_keep_their_order(
    cli: Any, write_rows: Any, tokenizer_dir: Path, tokenizer: Tokenizer, out: Path
) -> None:
    second = write_rows("b.jsonl", TEXTS[:1])
    first = write_rows("folder/a.parquet", TEXTS[1:])
    outcome = cli(
        *("tokenize", "--input", first.parent, second, "--tokenizer", tokenizer_dir),
        *("--output-prefix", out / "data"),
    )
    assert outcome.status == 0
    expected = tokenizer.encode([row["text"] for row in (*TEXTS[1:], TEXTS[0])])
    dataset = IndexedDataset(out / "data_text_document")
    assert [ids.tolist() for ids in dataset] == [ids.tolist() for ids in expected]
    manifest = read_manifest(out / "data.manifest.json")
    assert [(source.path, source.rows) for source in manifest.inputs] == [
        (str(first), 2),
        (str(second), 1),
    ]


def test_more_rows_than_a_batch(
    tokenize: Any, write_rows: Any, tokenizer: Tokenizer, out: Path
) -> None:
    texts = [f"row {number}" for number in range(1100)]
    path = write_rows("a.parquet", [{"text": text} for text in texts])
    outcome = tokenize(path, "--log-interval", 500)
    dataset = IndexedDataset(out / "data_text_document")
    assert [ids.tolist() for ids in dataset] == [ids.tolist() for ids in tokenizer.encode(texts)]
    lines = outcome.err.splitlines()
    assert [line.split(" documents")[0] for line in lines] == ["512", "1,024"]
    assert "tokens/s, 0:00:0" in lines[0]  # and the time to go
    assert lines[0].endswith(" to go")


def test_packing_in_one_go_is_packing_afterwards(
    tokenize: Any, cli: Any, write_rows: Any, out: Path
) -> None:
    rows = [{"instruction": "1" * (number % 9), "output": "2" * number} for number in range(1, 40)]
    lengths = [number % 9 + number + 3 for number in range(1, 40)]  # both roles and EOS
    too_long = [line for line, length in enumerate(lengths, start=1) if length > 30]
    path = write_rows("a.jsonl", rows)
    outcome = tokenize(path, "--handler", "alpaca", "--pack", "--seq-length", 29)
    assert outcome.status == 0, outcome.err
    assert f"dropped {len(too_long)} rows (too_long), such as {path}:{too_long[0]}: " in outcome.out
    assert "tokens, the room in a packed row is 30\n" in outcome.out
    one_go = {path.name: path.read_bytes() for path in out.iterdir()}
    assert tokenize(path, "--handler", "alpaca", "--max-length", 30, "--overwrite").status == 0
    prefix = out.parent / "packed" / "data"
    assert (
        cli(
            *("pack", "--input-prefix", out / "data", "--output-prefix", prefix, "--seq-length", 29)
        ).status
        == 0
    )
    for name in one_go.keys() - {"data.manifest.json"}:
        assert (prefix.parent / name).read_bytes() == one_go[name], name
    manifest = json.loads(one_go["data.manifest.json"])
    assert manifest["inputs"][0]["path"] == str(path)  # not the files in between
    assert manifest["packing"]["seq_length"] == 29


def test_a_row_larger_than_allowed(tokenize: Any, write_rows: Any, out: Path) -> None:
    path = write_rows("a.jsonl", [*TEXTS, {"text": "x" * 2000}])
    assert tokenize(path, "--max-row-bytes", 1000).status == 0
    manifest = read_manifest(out / "data.manifest.json")
    assert manifest.documents == 3
    assert manifest.options["max_row_bytes"] == 1000
    tally = manifest.dropped["too_large"]
    assert tally.count == 1
    assert tally.examples[0].startswith(f"{path}:4: 2,0")
    strict = tokenize(path, "--max-row-bytes", 1000, "--overlong", "error", "--overwrite")
    assert strict.status == 2
    assert f"error: {path}:4: 2,0" in strict.err


def test_special_token_policies(tokenize: Any, write_rows: Any, out: Path) -> None:
    path = write_rows("a.jsonl", [{"text": "a"}, {"text": "b<reserved_106>"}])
    strict = tokenize(path, "--special-tokens", "error")
    assert strict.status == 2
    assert f"error: {path}:2: the special token <reserved_106>" in strict.err
    assert not out.exists()
    assert tokenize(path, "--special-tokens", "allow").status == 0
    assert IndexedDataset(out / "data_text_document")[1][-1] == 195
    escaped = tokenize(path, "--overwrite")
    assert 195 not in IndexedDataset(out / "data_text_document")[1]
    assert "special token <reserved_106> in the text: 1 (escape)" in escaped.out


def test_nothing_is_overwritten_unasked(tokenize: Any, write_rows: Any, out: Path) -> None:
    path = write_rows("a.jsonl", TEXTS)
    tokenize(path)
    before = (out / "data_text_document.bin").stat().st_mtime_ns
    outcome = tokenize(path, "--append-eos")
    assert outcome.status == 2
    assert "exists already" in outcome.err
    assert "hint: choose another output, or add --overwrite" in outcome.err
    assert (out / "data_text_document.bin").stat().st_mtime_ns == before
    (out / "data_text_document.bin").unlink()
    assert tokenize(path).status == 2  # the manifest alone is in the way too


def test_an_interrupted_run_leaves_nothing(
    tokenize: Any, write_rows: Any, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encode = Tokenizer.encode_flat
    seen: list[list[str]] = []

    def interrupted(self: Tokenizer, texts: Any) -> Any:
        if seen:
            seen.append(names(out))
            raise KeyboardInterrupt
        seen.append([])
        return encode(self, texts)

    monkeypatch.setattr(Tokenizer, "encode_flat", interrupted)
    outcome = tokenize(write_rows("a.jsonl", [{"text": f"{n}"} for n in range(600)]))
    assert outcome.status == 130
    assert any("shard-000000.ids" in name for name in seen[1])  # it was under way
    assert all(name.startswith(".data.unfinished") for name in seen[1])  # under a hidden name
    assert not out.exists()


def bad_json(path: Path) -> None:
    path.write_text("{broken\n" * 3)


def late_json_error(path: Path) -> None:
    path.write_text('[{"text": "a"}, {"text"]')


@pytest.mark.parametrize(
    ("name", "write", "arguments", "message"),
    [
        ("a.jsonl", None, (), "does not exist"),
        ("a.jsonl", Path.touch, (), "is empty"),
        ("a.jsonl", lambda path: path.write_text("\n \n"), (), "no document is left of 0 rows"),
        ("a.json", lambda path: path.write_text("[]"), (), "no document is left of 0 rows"),
        ("a.jsonl", bad_json, (), "a.jsonl:1: no JSON"),
        ("a.json", late_json_error, (), "a.json:1: no JSON"),
        ("a.jsonl", TEXTS, ("--text-key", "txt"), "a.jsonl:1: no column 'txt'"),
        ("a.parquet", TEXTS, ("--text-key", "txt"), "a.parquet, row 1: no column 'txt'"),
        ("a.parquet", TEXTS, ("--handler", "moss"), "no column 'chat'"),
        ("a.jsonl", [{"text": ""}], (), "no document is left of 1 rows (no_text: 1)"),
        ("a.jsonl", TEXTS, ("--max-length", "2"), "no document is left of 3 rows (too_long: 3)"),
        ("a.jsonl", TEXTS, ("--max-length", "2", "--overlong", "error"), "a.jsonl:1: "),
        ("a.jsonl", TEXTS, ("--max-length", "1"), "leaves nothing to predict"),
        ("a.jsonl", TEXTS, ("--pack",), "--pack and --seq-length belong together"),
        ("a.jsonl", TEXTS, ("--seq-length", "8"), "--pack and --seq-length belong together"),
        ("a.jsonl", TEXTS, ("--pack", "--seq-length", "8"), "which needs no packing"),
        ("a.jsonl", TEXTS, ("--rank", "0"), "--rank and --world-size belong together"),
        ("a.jsonl", TEXTS, ("--rank", "2", "--world-size", "2"), "ranks run from 0 to 1"),
        ("a.jsonl", TEXTS, ("--workers", "0"), "0 is not positive"),
        ("a.jsonl", TEXTS, ("--launcher", "slurm"), "invalid choice: 'slurm'"),
        ("a.jsonl", TEXTS, ("--handler", "txet"), "unknown name 'txet'; did you mean 'text'?"),
        ("a.jsonl", TEXTS, ("--template", "ascendspeed"), "--template is about conversations"),
        ("a.jsonl", TEXTS, ("--template", "baichuan"), "did you mean 'baichuan2'?"),
        ("a.jsonl", TEXTS, ("--log-interval", "0"), "0 is not positive"),
        ("a.jsonl", TEXTS, ("--tokenizer", "nowhere"), "no tokenizer at nowhere"),
        ("a.docx", lambda path: path.write_text("a\n"), (), "the ending '.docx' is unknown"),
    ],
)
def test_bad_input_is_refused_and_leaves_nothing(
    tokenize: Any,
    write_rows: Any,
    tmp_path: Path,
    out: Path,
    name: str,
    write: Any,
    arguments: tuple[str, ...],
    message: str,
) -> None:
    path = tmp_path / name
    if callable(write):
        write(path)
    elif write:
        path = write_rows(name, write)
    outcome = tokenize(path, *arguments)
    assert outcome.status == 2
    assert outcome.out == ""
    assert outcome.err.startswith("error: ")
    assert message in outcome.err
    assert "\nhint: " in outcome.err
    assert "Traceback" not in outcome.err
    assert not out.exists()


def test_a_wrong_column_hints_at_the_nearest(tokenize: Any, write_rows: Any) -> None:
    outcome = tokenize(write_rows("a.parquet", [{"Text": "a", "id": 1}]))
    assert "hint: did you mean 'Text'? (choose the column with --text-key)" in outcome.err


def test_bad_rows_among_good_ones_do_not_stop(tokenize: Any, write_rows: Any, out: Path) -> None:
    path = write_rows("a.jsonl", [{"txt": "a"}, {"text": 5}, *TEXTS, [1]])
    assert tokenize(path).status == 0
    tally = read_manifest(out / "data.manifest.json").dropped["bad_row"]
    assert tally.count == 3
    assert [example.split(": ")[0] for example in tally.examples] == [
        f"{path}:1",
        f"{path}:2",
        f"{path}:6",
    ]


def test_a_long_file_of_bad_rows_stops_early(tokenize: Any, write_rows: Any, out: Path) -> None:
    path = write_rows("a.jsonl", [{"txt": "a"}] * 600 + TEXTS)
    outcome = tokenize(path)
    assert outcome.status == 2
    assert "none of the first 512 lines is usable" in outcome.err
    assert not out.exists()


def test_an_output_below_a_file_is_refused(
    cli: Any, write_rows: Any, tokenizer_dir: Path, tmp_path: Path
) -> None:
    path = write_rows("a.jsonl", TEXTS)
    outcome = cli(
        *("tokenize", "--input", path, "--tokenizer", tokenizer_dir),
        *("--output-prefix", path / "x"),
    )
    assert outcome.status == 2
    assert f"error: {path} is no directory\nhint: choose another output" in outcome.err


def test_a_full_disk_leaves_nothing(
    tokenize: Any, write_rows: Any, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("bc2_data.shards.columns.ShardWriter.add", full)
    outcome = tokenize(write_rows("a.jsonl", TEXTS))
    assert outcome.status == 2
    assert f"error: {out}: No space left on device\nhint: free some space" in outcome.err
    assert not out.exists()


def test_a_run_killed_early_does_not_hinder_the_next(
    tokenize: Any, write_rows: Any, out: Path
) -> None:
    left = out / ".data.unfinished" / "shard-000000.ids.0123abcd.partial"
    left.parent.mkdir(parents=True)
    left.write_bytes(b"no finished shard, nothing to go on with")
    assert tokenize(write_rows("a.jsonl", TEXTS)).status == 0
    assert names(out) == ["data.manifest.json", "data_text_document.bin", "data_text_document.idx"]


def test_real_files_through_the_command_line(cli: Any, shared: Path, tmp_path: Path) -> None:
    outcome = cli(
        *("tokenize", "--input", shared / "samples" / "alpaca-en-999.json"),
        *("--tokenizer", shared / "baichuan2", "--output-prefix", tmp_path / "alpaca"),
        *("--handler", "alpaca"),
    )
    assert outcome.status == 0
    manifest = json.loads((tmp_path / "alpaca.manifest.json").read_text())
    assert manifest["documents"] == 999
    assert manifest["dropped"] == manifest["truncated"] == {}
    assert manifest["tokenizer"]["sha256"] == (
        "79452955be6b419a65984273a9f08af86042e1c2a75ee3ba989cbf620a133cc2"
    )
