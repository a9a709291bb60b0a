from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bc2_data.checksum import DigestWriter
from bc2_data.errors import DataError
from bc2_data.indexed import IndexedDataset, IndexedWriter, bin_path, idx_path
from bc2_data.manifest import InputFile, read_manifest
from bc2_data.packing import pack

KEYS = ("input_ids", "labels", "attention_mask")
Conversation = tuple[list[int], list[int]]


def row(request: int, answer: int) -> dict[str, str]:
    """A row whose request and answer have so many tokens: every digit is one.

    The conversation has three tokens more: both roles and EOS.
    """
    return {"instruction": "1" * request, "output": "23456789"[request % 8] * answer}


ROWS = [row(3, 5), row(10, 20), row(1, 1), row(7, 30), row(2, 12), row(20, 3), row(4, 4)] * 3
LENGTHS = [11, 33, 5, 40, 17, 26, 11] * 3


@pytest.fixture
def source(made: Any) -> Path:
    """The prefix of some conversations."""
    prefix: Path = made(ROWS, "--handler", "alpaca")
    return prefix


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "packed" / "data"


def read(prefix: Path) -> Iterator[tuple[Any, Any, Any]]:
    """Yields ids, labels and attention mask of each row."""
    datasets = [IndexedDataset(f"{prefix}_packed_{key}_document") for key in KEYS]
    for dataset in datasets:
        assert dataset.lengths.tolist() == datasets[0].lengths.tolist()
        assert dataset.num_documents == len(dataset)
    for number in range(len(datasets[0])):
        yield tuple(dataset[number] for dataset in datasets)  # type: ignore[misc]


def unpacked(prefix: Path) -> list[Conversation]:
    """Takes packed rows apart, whose segments must be numbered 1, 2, 3 ..."""
    conversations: list[Conversation] = []
    for ids, labels, mask in read(prefix):
        found: list[Conversation] = []
        for token, label, segment in zip(ids, labels, mask, strict=True):
            if segment == len(found) + 1:
                found.append(([], []))
            assert segment == len(found)
            found[-1][0].append(int(token))
            found[-1][1].append(int(label))
        conversations += found
    return conversations


def trained(prefix: Path) -> int:
    """Counts the predictions that a trainer makes: one shift, and none across segments."""
    return sum(
        int(((labels[1:] != -100) & (mask[1:] == mask[:-1])).sum())
        for _, labels, mask in read(prefix)
    )


def files(prefix: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(prefix.parent.iterdir())}


def test_rows_hold_the_conversations_unchanged(source: Path, output: Path) -> None:
    before = [(ids.tolist(), labels.tolist()) for ids, labels, _ in read(source)]
    assert [len(ids) for ids, _ in before] == LENGTHS
    manifest = pack(source, output, seq_length=49)
    assert sorted(unpacked(output)) == sorted(before)
    rows = [ids for ids, _, _ in read(output)]
    assert max(map(len, rows)) <= 50
    assert len(rows) <= -(-sum(LENGTHS) // 50) + 1
    assert trained(output) == trained(source)
    assert manifest.packing is not None
    assert (manifest.packing.seq_length, manifest.packing.conversations) == (49, len(LENGTHS))
    assert (manifest.documents, manifest.tokens) == (len(rows), sum(LENGTHS))
    assert manifest.trained_tokens == trained(output)


def test_the_first_row_begins_with_the_first_conversation(source: Path, output: Path) -> None:
    pack(source, output, seq_length=49)
    packed, before = next(read(output)), next(read(source))
    assert packed[0].tolist()[: LENGTHS[0]] == before[0].tolist()


def test_the_manifest_names_what_was_packed(source: Path, output: Path) -> None:
    pack(source, output, seq_length=49)
    before = read_manifest(source.with_name("data.manifest.json"))
    after = read_manifest(output.with_name("data.manifest.json"))
    assert after.tokenizer == before.tokenizer
    assert after.options == before.options
    assert [Path(file.path).name for file in after.inputs] == [f.name for f in before.outputs]
    assert [file.sha256 for file in after.inputs] == [file.sha256 for file in before.outputs]
    assert sum(file.rows for file in after.inputs) == len(LENGTHS)
    for written in after.outputs:
        content = output.with_name(written.name).read_bytes()
        assert (written.size, written.sha256) == (len(content), sha256(content).hexdigest())


def test_who_packs_temporary_files_names_their_inputs(source: Path, output: Path) -> None:
    inputs = [InputFile(path="a.jsonl", size=1, sha256="0" * 64, rows=21)]
    assert pack(source, output, seq_length=49, inputs=inputs).inputs == inputs


def test_equal_data_gives_equal_files(source: Path, output: Path) -> None:
    pack(source, output, seq_length=49)
    first = files(output)
    with pytest.raises(Exception, match="exists already"):
        pack(source, output, seq_length=49)
    pack(source, output, seq_length=49, overwrite=True)
    assert files(output) == first


def test_batches_leave_no_trace(
    source: Path, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = pack(source, output, seq_length=49)
    first = files(output)
    monkeypatch.setattr("bc2_data.packing.rows._BATCH_TOKENS", 60)
    monkeypatch.setattr("bc2_data.packing.datasets._BATCH_TOKENS", 60)
    assert pack(source, output, seq_length=49, overwrite=True) == whole
    assert files(output) == first


def test_overlong_conversations_are_dropped_and_named(source: Path, output: Path) -> None:
    manifest = pack(source, output, seq_length=32)  # 33 tokens still fit
    kept = [length for length in LENGTHS if length <= 33]
    assert sorted(len(ids) for ids, _ in unpacked(output)) == sorted(kept)
    assert manifest.tokens == sum(kept)
    tally = manifest.dropped["longer_than_a_row"]
    assert tally.count == 3
    assert tally.examples[0] == (
        f"{source}: conversation 3: 40 tokens, a row of --seq-length 32 holds 33"
    )


def test_overlong_conversations_are_cut(source: Path, output: Path) -> None:
    manifest = pack(source, output, seq_length=32, overlong="truncate")
    before = [(ids.tolist()[:33], labels.tolist()[:33]) for ids, labels, _ in read(source)]
    assert sorted(unpacked(output)) == sorted(before)
    assert manifest.truncated["longer_than_a_row"].count == 3
    assert manifest.trained_tokens == trained(output)
    assert not manifest.dropped


def test_a_cut_that_leaves_nothing_trained_drops(made: Any, output: Path) -> None:
    source = made([row(30, 10), row(5, 3)], "--handler", "alpaca")
    manifest = pack(source, output, seq_length=20, overlong="truncate")
    assert manifest.dropped["nothing_trained_in_a_row"].count == 1
    assert [len(ids) for ids, _ in unpacked(output)] == [11]


def test_earlier_losses_stay_on_record(made: Any, output: Path) -> None:
    source = made([row(3, 5), row(3, 0), row(30, 10)], "--handler", "alpaca", "--max-length", 40)
    manifest = pack(source, output, seq_length=20)
    assert {reason: tally.count for reason, tally in manifest.dropped.items()} == {
        "no_text": 1,
        "too_long": 1,
    }


@pytest.mark.parametrize(
    ("seq_length", "overlong", "message"),
    [
        (32, "error", "conversation 3: 40 tokens, a row of --seq-length 32 holds 33"),
        (3, "drop", "no conversation of .* fits a row of 4 tokens"),
    ],
)
def test_nothing_is_left_of_a_run_that_fails(
    source: Path, output: Path, seq_length: int, overlong: Any, message: str
) -> None:
    with pytest.raises(DataError, match=message) as caught:
        pack(source, output, seq_length, overlong=overlong)
    assert caught.value.hint
    assert not output.parent.exists()


def test_a_full_disk_leaves_nothing(
    cli: Any, source: Path, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write(self: DigestWriter, data: bytes) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(DigestWriter, "write", write)
    arguments = ("--input-prefix", source, "--output-prefix", output, "--seq-length", 49)
    outcome = cli("pack", *arguments)
    assert outcome.status == 2
    assert "No space left on device" in outcome.err
    assert not output.parent.exists()


def flip(path: Path, offset: int) -> None:
    content = bytearray(path.read_bytes())
    content[offset] ^= 1
    path.write_bytes(content)


def test_damaged_data_is_not_packed(source: Path, output: Path) -> None:
    flip(source.with_name("data_packed_labels_document.bin"), 100)
    with pytest.raises(DataError, match=r"labels_document\.bin is not the file that its manifest"):
        pack(source, output, seq_length=49)
    assert not output.parent.exists()


def test_packed_data_is_not_packed_again(source: Path, output: Path) -> None:
    pack(source, output, seq_length=49)
    with pytest.raises(DataError, match="is packed already"):
        pack(output, output.with_name("again"), seq_length=99)


def test_rows_of_one_conversation_are_packed_too(made: Any, output: Path) -> None:
    pack(made([row(3, 5)], "--handler", "alpaca"), output, seq_length=49)
    with pytest.raises(DataError, match="is packed already"):
        pack(output, output.with_name("again"), seq_length=99)


def test_a_mask_tells_packed_data_too(source: Path, output: Path) -> None:
    mask = np.memmap(source.with_name("data_packed_attention_mask_document.bin"), "<i4", "r+")
    mask[-1] = 2
    mask.flush()
    with pytest.raises(DataError, match="its attention mask is not 1 everywhere"):
        pack(source, output, seq_length=49, inputs=[])


def test_a_part_of_a_job_is_not_packed_by_itself(made: Any, output: Path) -> None:
    prefix = made(ROWS, "--handler", "alpaca", "--rank", 0, "--world-size", 1)
    (manifest,) = prefix.parent.glob("*.manifest.json")
    part = manifest.with_name(manifest.name.removesuffix(".manifest.json"))
    with pytest.raises(DataError, match="is a part of a job"):
        pack(part, output, seq_length=49)


def test_an_empty_conversation_is_named(source: Path, output: Path) -> None:
    """None is ever written by us; no row could number it."""
    for key in KEYS:
        dataset = Path(f"{source}_packed_{key}_document")
        with IndexedWriter(bin_path(dataset), idx_path(dataset)) as writer:
            writer.add([np.ones(3, np.int32), np.empty(0, np.int32)])
    with pytest.raises(DataError, match=r"conversation 1 of .* is empty"):
        pack(source, output, seq_length=49, inputs=[])


def test_pretraining_data_needs_no_packing(made: Any, output: Path) -> None:
    with pytest.raises(DataError, match="pretraining data, which needs no packing"):
        pack(made([{"text": "ab"}]), output, seq_length=49)


def test_wrong_prefixes(source: Path, output: Path) -> None:
    with pytest.raises(DataError, match="no dataset at"):
        pack(source.with_name("dato"), output, seq_length=49)
    with pytest.raises(DataError, match="is one dataset of a run"):
        pack(source.with_name("data_packed_labels_document"), output, seq_length=49)
    with pytest.raises(DataError, match="is the input too"):
        pack(source, source, seq_length=49, overwrite=True)
    source.with_name("data.manifest.json").unlink()
    with pytest.raises(DataError, match=r"data\.manifest\.json does not exist"):
        pack(source, output, seq_length=49)


def test_command(cli: Any, source: Path, output: Path) -> None:
    arguments = ("pack", "--input-prefix", source, "--output-prefix", output)
    outcome = cli(*arguments, "--seq-length", 49)
    assert outcome.status == 0
    rows = len(IndexedDataset(f"{output}_packed_labels_document"))
    fill = sum(LENGTHS) / (rows * 50)
    assert f"packed: 21 conversations in {rows} rows of up to 50 tokens, {fill:.2%}" in outcome.out
    assert f"packing saves {1 - rows / 21:.1%} of the rows" in outcome.out
    assert f"wrote {output}_packed_labels_document.idx" in outcome.out
    again = cli(*arguments, "--seq-length", 49)
    assert (again.status, again.out) == (2, "")
    assert "exists already" in again.err
    assert cli(*arguments, "--seq-length", 32, "--overwrite", "--overlong", "error").status == 2
    assert cli(*arguments, "--seq-length", 0).status == 2
    assert cli(*arguments, "--seq-length", 32, "--overwrite").status == 0


@pytest.mark.parametrize(("name", "handler"), [("moss-300", "moss"), ("alpaca-en-999", "alpaca")])
def test_real_conversations_take_as_few_rows_as_possible(
    cli: Any, shared: Path, tmp_path: Path, output: Path, name: str, handler: str
) -> None:
    (sample,) = (shared / "samples").glob(f"{name}.json*")
    source = tmp_path / "out" / "data"
    outcome = cli(
        *("tokenize", "--input", sample, "--tokenizer", shared / "baichuan2"),
        *("--output-prefix", source, "--handler", handler),
    )
    assert outcome.status == 0
    manifest = pack(source, output, seq_length=4096)
    assert manifest.documents <= -(-manifest.tokens // 4097) + 1
    assert not manifest.dropped
    assert manifest.trained_tokens == trained(source) == trained(output)
    assert json.loads(output.with_name("data.manifest.json").read_text())["documents"] == len(
        IndexedDataset(f"{output}_packed_labels_document")
    )
