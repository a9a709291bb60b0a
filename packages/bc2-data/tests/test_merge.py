"""``bc2-data merge``: parts of a job, and datasets that were made alike."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bc2_data.indexed import IndexedDataset
from bc2_data.manifest import read_manifest

TEXTS = [{"text": f"row {number} of some text"} for number in range(20)]


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@pytest.fixture
def tokenize(cli: Any, tokenizer_dir: Path, tmp_path: Path) -> Callable[..., Path]:
    """Tokenises a file or folder with further arguments; returns the output prefix."""

    def run(path: Path, name: str, *arguments: object) -> Path:
        prefix = tmp_path / name / "data"
        outcome = cli(
            *("tokenize", "--input", path, "--tokenizer", tokenizer_dir),
            *("--output-prefix", prefix, *arguments),
        )
        assert outcome.status == 0, outcome.err
        return prefix

    return run


@pytest.mark.parametrize("handler", ["text", "alpaca"])
@pytest.mark.parametrize("world_size", [1, 2, 4, 6, 9])  # of six files
def test_parts_give_the_bytes_of_a_single_run(
    cli: Any, tokenize: Any, corpus_folder: Path, tmp_path: Path, handler: str, world_size: int
) -> None:
    options = ("--handler", handler, "--max-length", 61, "--overlong", "truncate")
    single = tokenize(corpus_folder, "single", *options)
    for rank in range(world_size):
        part = ("--rank", rank, "--world-size", world_size)
        tokenize(corpus_folder, "parts", *options, *part)
    manifests = sorted((tmp_path / "parts").glob("*.manifest.json"), reverse=True)
    assert manifests[-1].name == f"data.part-00000-of-{world_size:05}.manifest.json"
    outcome = cli("merge", *manifests, "--output-prefix", tmp_path / "merged" / "data")
    assert outcome.status == 0, outcome.err
    assert contents(tmp_path / "merged") == contents(single.parent)


def test_parts_of_one_large_file(
    cli: Any, tokenize: Any, corpus: tuple[str, ...], tmp_path: Path
) -> None:
    """Parts share the file, so that its rows and its checksum come together again."""
    path = tmp_path / "large.jsonl"
    with open(path, "w", encoding="utf-8") as file:
        for number in range(7000):
            file.write(json.dumps({"text": f"{number} {''.join(corpus)}"}) + "\n")
            if number % 500 == 499:
                file.write("{broken\n")
    assert path.stat().st_size > 3 << 20
    single = tokenize(path, "single")
    parts = [
        tokenize(path, "parts", "--rank", rank, "--world-size", 3, "--workers", 2).with_name(
            f"data.part-0000{rank}-of-00003"
        )
        for rank in range(3)
    ]
    (first,), (second,), _ = (read_manifest(Path(f"{part}.manifest.json")).inputs for part in parts)
    assert (first.path, second.path) == (str(path), str(path))
    assert first.sha256
    assert second.sha256 is None
    outcome = cli("merge", *parts, "--output-prefix", tmp_path / "merged" / "data")
    assert outcome.status == 0, outcome.err
    assert contents(tmp_path / "merged") == contents(single.parent)
    dropped = read_manifest(tmp_path / "merged" / "data.manifest.json").dropped["bad_row"]
    places = [f"{path}:{501 * number}" for number in range(1, 15)]
    assert [example.split(": ")[0] for example in dropped.examples] == places


def test_other_datasets_keep_the_order_given(
    cli: Any, tokenize: Any, write_rows: Any, tmp_path: Path
) -> None:
    first = tokenize(write_rows("a.jsonl", TEXTS[:12]), "a", "--append-eos")
    second = tokenize(write_rows("b.jsonl", [*TEXTS[12:], {"text": 5}]), "b", "--append-eos")
    merged = tmp_path / "merged" / "data"
    outcome = cli("merge", second, first, second, "--output-prefix", merged)
    assert outcome.status == 0, outcome.err
    datasets = [IndexedDataset(f"{prefix}_text_document") for prefix in (second, first, second)]
    expected = [ids.tolist() for dataset in datasets for ids in dataset]
    dataset = IndexedDataset(f"{merged}_text_document")
    assert [ids.tolist() for ids in dataset] == expected
    manifest = read_manifest(Path(f"{merged}.manifest.json"))
    assert (manifest.documents, manifest.tokens) == (28, dataset.num_tokens)
    assert [Path(file.path).name for file in manifest.inputs] == ["b.jsonl", "a.jsonl", "b.jsonl"]
    assert manifest.dropped["bad_row"].count == 2
    assert cli("verify", merged).status == 0


def test_packed_datasets(cli: Any, tokenize: Any, corpus_folder: Path, tmp_path: Path) -> None:
    packed = tokenize(corpus_folder, "packed", "--handler", "alpaca", "--pack", "--seq-length", 256)
    merged = tmp_path / "merged" / "data"
    assert cli("merge", packed, packed, "--output-prefix", merged).status == 0
    one, two = (read_manifest(Path(f"{prefix}.manifest.json")) for prefix in (packed, merged))
    assert one.packing is not None
    assert two.packing is not None
    assert two.packing.conversations == 2 * one.packing.conversations
    assert two.trained_tokens == 2 * (one.trained_tokens or 0)
    assert cli("verify", merged).status == 0


@pytest.fixture
def parts(tokenize: Any, corpus_folder: Path) -> list[Path]:
    made = [
        tokenize(corpus_folder, "parts", "--rank", rank, "--world-size", 3) for rank in range(3)
    ]
    return [prefix.with_name(f"data.part-0000{rank}-of-00003") for rank, prefix in enumerate(made)]


def damage(prefix: Path, ending: str) -> None:
    path = Path(f"{prefix}_text_document.{ending}")
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("choose", "message"),
    [
        (lambda parts: parts[1:], "parts are missing: rank 0 of 3"),
        (lambda parts: [parts[0]], "parts are missing: rank 1, 2 of 3"),
        (lambda parts: [*parts, parts[1]], "a part is given twice"),
        (lambda parts: [*parts, Path("nowhere")], "nowhere.manifest.json does not exist"),
        (lambda parts: damage(parts[1], "bin") or parts, "is not the file that its manifest"),
        (lambda parts: damage(parts[2], "idx") or parts, "is not the file that its manifest"),
    ],
)
def test_what_does_not_make_a_whole_is_refused(
    cli: Any, parts: list[Path], tmp_path: Path, choose: Any, message: str
) -> None:
    outcome = cli("merge", *choose(parts), "--output-prefix", tmp_path / "merged" / "data")
    assert outcome.status == 2
    assert message in outcome.err
    assert "\nhint: " in outcome.err
    assert not (tmp_path / "merged").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--append-eos",), "options append_eos was False, is True"),
        (("--special-tokens", "allow"), "special tokens was escape, is allow"),
        (("--handler", "alpaca"), "kind was pretrain, is instruction"),
        (("--rank", 0, "--world-size", 1), "job was not given, is "),
    ],
)
def test_what_was_made_differently_is_refused(
    cli: Any, tokenize: Any, corpus_folder: Path, tmp_path: Path, arguments: Any, message: str
) -> None:
    one = tokenize(corpus_folder, "one")
    tokenize(corpus_folder, "other", *arguments)
    (other,) = (tmp_path / "other").glob("*.manifest.json")
    outcome = cli("merge", one, other, "--output-prefix", tmp_path / "merged" / "data")
    assert outcome.status == 2
    assert "cannot be one dataset: " in outcome.err
    assert message in outcome.err


def test_parts_of_different_jobs_are_refused(
    cli: Any, tokenize: Any, parts: list[Path], corpus_folder: Path, tmp_path: Path
) -> None:
    os.truncate(corpus_folder / "0.jsonl", 1000)
    tokenize(corpus_folder, "parts", "--rank", 0, "--world-size", 3, "--overwrite")
    outcome = cli("merge", *parts, "--output-prefix", tmp_path / "merged" / "data")
    assert outcome.status == 2
    assert "cannot be one dataset: job was " in outcome.err


def test_a_part_may_be_empty_but_not_the_whole(
    cli: Any, tokenize: Any, write_rows: Any, tmp_path: Path
) -> None:
    path = write_rows("a.jsonl", TEXTS)
    for rank in range(2):
        tokenize(path, "parts", "--rank", rank, "--world-size", 2, "--max-length", 2)
    manifests = [*(tmp_path / "parts").glob("*.manifest.json")]
    outcome = cli("merge", *manifests, "--output-prefix", tmp_path / "merged" / "data")
    assert outcome.status == 2
    assert "none of the datasets holds a document" in outcome.err


def test_nothing_is_overwritten_unasked(cli: Any, tokenize: Any, write_rows: Any) -> None:
    prefix = tokenize(write_rows("a.jsonl", TEXTS), "a")
    before = contents(prefix.parent)
    outcome = cli("merge", prefix, prefix, "--output-prefix", prefix)
    assert outcome.status == 2
    assert "exists already" in outcome.err
    assert contents(prefix.parent) == before
    assert cli("merge", prefix, prefix, "--output-prefix", prefix, "--overwrite").status == 0
    assert len(IndexedDataset(f"{prefix}_text_document")) == 2 * len(TEXTS)
