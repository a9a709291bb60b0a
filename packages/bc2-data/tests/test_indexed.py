from __future__ import annotations

import os
import pickle
import struct
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from bc2_data.errors import DataError
from bc2_data.indexed import IndexedDataset, IndexedWriter, bin_path, idx_path, spans

TOKEN = st.integers(-(2**31), 2**31 - 1)
DOCUMENTS = st.lists(st.lists(TOKEN, max_size=20).map(lambda ids: np.array(ids, np.int32)))


def write(prefix: Path, documents: Sequence[NDArray[np.int32]]) -> IndexedWriter:
    """Writes in two batches, as a run does."""
    with IndexedWriter(bin_path(prefix), idx_path(prefix)) as writer:
        writer.add(documents[:2])
        writer.add(documents[2:])
    return writer


@pytest.fixture
def prefix(tmp_path: Path) -> Path:
    prefix = tmp_path / "some.text_document"  # a dot in the name is no ending
    write(prefix, [np.arange(5, dtype=np.int32), np.arange(3, dtype=np.int32)])
    return prefix


@given(documents=DOCUMENTS)
def test_reads_what_it_wrote(documents: list[NDArray[np.int32]]) -> None:
    with TemporaryDirectory() as folder:
        writer = write(Path(folder) / "data", documents)
        dataset = IndexedDataset(Path(folder) / "data")
        assert len(dataset) == dataset.num_documents == writer.documents == len(documents)
        assert dataset.num_tokens == writer.tokens == sum(map(len, documents))
        assert dataset.lengths.tolist() == list(map(len, documents))
        assert dataset.document_indices.tolist() == list(range(len(documents) + 1))
        for index, document in enumerate(documents):
            assert dataset[index].dtype == np.int32
            np.testing.assert_array_equal(dataset[index], document)


@settings(max_examples=20)
@given(documents=DOCUMENTS)
def test_writes_the_bytes_of_megatron(documents: list[NDArray[np.int32]]) -> None:
    megatron = pytest.importorskip(
        "megatron.core.datasets.indexed_dataset", reason="megatron-core is not installed"
    )
    with TemporaryDirectory() as folder:
        ours, theirs = Path(folder) / "ours", Path(folder) / "theirs"
        write(ours, documents)
        builder = megatron.IndexedDatasetBuilder(str(bin_path(theirs)), dtype=np.int32)
        for document in documents:
            builder.add_document(document, [len(document)])
        builder.finalize(str(idx_path(theirs)))
        assert bin_path(ours).read_bytes() == bin_path(theirs).read_bytes()
        assert idx_path(ours).read_bytes() == idx_path(theirs).read_bytes()


def test_megatron_reads_it(prefix: Path) -> None:
    megatron = pytest.importorskip(
        "megatron.core.datasets.indexed_dataset", reason="megatron-core is not installed"
    )
    dataset = megatron.IndexedDataset(str(prefix))
    assert [dataset[index].tolist() for index in range(len(dataset))] == [
        [0, 1, 2, 3, 4],
        [0, 1, 2],
    ]


def test_reads_several_sequences_a_document_and_other_dtypes(tmp_path: Path) -> None:
    prefix = tmp_path / "data"
    tokens = np.array([7, 8, 9, 10], "<u2")
    bin_path(prefix).write_bytes(tokens.tobytes())
    idx_path(prefix).write_bytes(
        b"MMIDIDX\0\0"
        + struct.pack("<QBQQ", 1, 8, 3, 3)
        + struct.pack("<3i3q3q", 1, 2, 1, 0, 2, 6, 0, 2, 3)
    )
    dataset = IndexedDataset(prefix)
    assert dataset.dtype == np.uint16
    assert [dataset[index].tolist() for index in range(3)] == [[7], [8, 9], [10]]
    assert dataset.num_documents == 2


def test_what_it_returns_cannot_be_changed(prefix: Path) -> None:
    with pytest.raises(ValueError, match="read-only"):
        IndexedDataset(prefix)[0][0] = 1


def test_no_such_sequence(prefix: Path) -> None:
    dataset = IndexedDataset(prefix)
    assert dataset[-1].tolist() == [0, 1, 2]
    for index in (2, -3):
        with pytest.raises(IndexError, match="has 2 sequences"):
            dataset[index]


@given(documents=DOCUMENTS, data=st.data())
def test_gathers_the_beginnings_of_documents(
    documents: list[NDArray[np.int32]], data: st.DataObject
) -> None:
    numbers = data.draw(st.lists(st.sampled_from(range(len(documents))))) if documents else []
    lengths = [data.draw(st.integers(0, len(documents[number]))) for number in numbers]
    with TemporaryDirectory() as folder:
        write(Path(folder) / "data", documents)
        gathered = IndexedDataset(Path(folder) / "data").gather(
            np.array(numbers, np.int64), np.array(lengths, np.int32)
        )
    wanted = [documents[number][:length] for number, length in zip(numbers, lengths, strict=True)]
    np.testing.assert_array_equal(gathered, np.concatenate([np.empty(0, np.int32), *wanted]))
    assert gathered.dtype == np.int32


def test_a_file_that_shrinks_while_it_is_read_is_named(prefix: Path) -> None:
    dataset = IndexedDataset(prefix)
    cut(bin_path(prefix), 24)
    with pytest.raises(DataError, match="was cut short while it was read"):
        dataset.gather(np.array([1]), np.array([3]))


def test_what_was_written_has_its_checksum(tmp_path: Path) -> None:
    writer = write(tmp_path / "data", [np.arange(5, dtype=np.int32)])
    for file, path in zip(writer.files, sorted(tmp_path.iterdir()), strict=True):
        content = path.read_bytes()
        assert (file.path, file.size, file.sha256) == (
            path,
            len(content),
            sha256(content).hexdigest(),
        )


def test_another_process_gets_the_same_data(prefix: Path) -> None:
    dataset = pickle.loads(pickle.dumps(IndexedDataset(prefix)))
    assert [ids.tolist() for ids in (dataset[0], dataset[1])] == [[0, 1, 2, 3, 4], [0, 1, 2]]


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux's /proc")
def test_released_tokens_leave_the_memory_and_can_be_read_again(tmp_path: Path) -> None:
    prefix = tmp_path / "large"
    write(prefix, [np.arange(4_000_000, dtype=np.int32)])
    dataset = IndexedDataset(prefix)

    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")

    before = resident()
    total = int(dataset.tokens.sum(dtype=np.int64))
    assert resident() - before > 12_000_000
    dataset.release()
    assert resident() - before < 4_000_000
    assert int(dataset.tokens.sum(dtype=np.int64)) == total


@given(lengths=st.lists(st.integers(0, 30), max_size=40), tokens=st.integers(1, 60))
def test_spans_cover_the_sequences_in_order(lengths: list[int], tokens: int) -> None:
    found = list(spans(np.array(lengths, np.int32), tokens))
    assert [place for first, end in found for place in range(first, end)] == list(
        range(len(lengths))
    )
    assert all(end - first == 1 or sum(lengths[first:end]) <= tokens for first, end in found)


def cut(path: Path, size: int) -> None:
    path.write_bytes(path.read_bytes()[:size])


def patch(path: Path, offset: int, content: bytes) -> None:
    whole = bytearray(path.read_bytes())
    whole[offset : offset + len(content)] = content
    path.write_bytes(whole)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda prefix: idx_path(prefix).unlink(), r"\.idx does not exist"),
        (lambda prefix: bin_path(prefix).unlink(), r"\.bin does not exist"),
        (lambda prefix: cut(idx_path(prefix), 0), "does not begin like a Megatron index"),
        (lambda prefix: cut(idx_path(prefix), 20), "does not begin like a Megatron index"),
        (lambda prefix: cut(idx_path(prefix), 60), "2 sequences need 82 bytes, the file has 60"),
        (lambda prefix: patch(idx_path(prefix), 0, b"X"), "does not begin like a Megatron index"),
        (lambda prefix: patch(idx_path(prefix), 9, b"\2"), "version 2 with dtype code 4"),
        (lambda prefix: patch(idx_path(prefix), 17, b"\x63"), "dtype code 99 is unknown"),
        (lambda prefix: patch(idx_path(prefix), 34, b"\6"), "do not follow one another"),
        (lambda prefix: patch(idx_path(prefix), 50, b"\1"), "do not follow one another"),
        (lambda prefix: patch(idx_path(prefix), 58, b"\1"), "does not begin at sequence 0"),
        (lambda prefix: patch(idx_path(prefix), 66, b"\3"), "do not cover the sequences"),
        (lambda prefix: patch(idx_path(prefix), 74, b"\1"), "do not cover the sequences"),
        (lambda prefix: cut(bin_path(prefix), 31), "has 31 bytes, its index wants 32"),
    ],
)
def test_damage_is_named(prefix: Path, damage: Any, message: str) -> None:
    damage(prefix)
    with pytest.raises(DataError, match=message) as caught:
        IndexedDataset(prefix)
    assert caught.value.hint


def test_a_path_with_its_ending_is_explained(prefix: Path) -> None:
    with pytest.raises(DataError, match="does not exist") as caught:
        IndexedDataset(bin_path(prefix))
    assert caught.value.hint == f"give the path without .bin: {prefix}"
