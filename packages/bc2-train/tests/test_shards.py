"""The files of a deepspeed checkpoint, which the ranks share out among themselves."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from bc2_train.engines.deepspeed import shards
from bc2_train.engines.deepspeed.shards import Entry, ShardWriter
from bc2_train.ranks import SingleRank


@dataclass
class OneOfTwo(SingleRank):
    rank: int
    size: int = 2


def entries(sizes: dict[str, int], reads: list[str]) -> list[Entry]:
    def entry(name: str, size: int) -> Entry:
        def read() -> torch.Tensor:
            reads.append(name)
            return torch.full((size,), float(len(name)))

        return Entry(name, 4 * size, read)

    return [entry(name, size) for name, size in sizes.items()]


SIZES = {"a": 3, "bb": 3, "ccc": 20, "dddd": 5, "eeeee": 4}
FILES = {"a": 1, "bb": 1, "ccc": 2, "dddd": 3, "eeeee": 3}


def test_every_rank_reads_all_and_writes_its_share(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shards, "MAX_SHARD_BYTES", 40)
    for rank in range(2):
        reads: list[str] = []
        writer = ShardWriter(OneOfTwo(rank), asynchronous=False)
        files = writer.write(tmp_path, "model", entries(SIZES, reads))
        assert reads == list(SIZES)
        assert files == {n: f"model-{i:05d}-of-00003.safetensors" for n, i in FILES.items()}
        # The next one to write is whoever comes after the writer of the last file.
        writer.write(tmp_path, "state", entries({"a": 1}, []))
        written = {path.name for path in tmp_path.iterdir()}
        assert ("state.safetensors" in written) == (rank == 1)
        assert ("model-00002-of-00003.safetensors" in written) == (rank == 1)
    found: dict[str, Any] = {}
    for name in set(files.values()):
        found |= load_file(tmp_path / name)
    assert {name: tensor.tolist() for name, tensor in found.items()} == {
        name: [len(name)] * size for name, size in SIZES.items()
    }


def test_an_asynchronous_writer_holds_what_it_has_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    may_write = threading.Event()
    save = shards.save_file

    def wait_and_save(*args: Any, **options: Any) -> None:
        may_write.wait()
        save(*args, **options)

    monkeypatch.setattr(shards, "save_file", wait_and_save)
    live = torch.zeros(3)
    writer = ShardWriter(SingleRank(), asynchronous=True)
    writer.write(tmp_path, "model", [Entry("w", 12, lambda: live)])
    live += 1  # training goes on
    assert not writer.done(wait=False)
    may_write.set()
    assert writer.done(wait=True)
    assert load_file(tmp_path / "model.safetensors")["w"].tolist() == [0, 0, 0]


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_failure_is_told_when_the_files_should_be_there(
    tmp_path: Path, asynchronous: bool
) -> None:
    writer = ShardWriter(SingleRank(), asynchronous=asynchronous)
    writer.write(tmp_path / "missing", "model", [Entry("w", 12, lambda: torch.zeros(3))])
    with pytest.raises(OSError, match="No such file"):
        writer.done(wait=True)


def test_a_failure_of_one_rank_is_a_failure_of_all(tmp_path: Path) -> None:
    ranks = OneOfTwo(0)
    ranks.gather = lambda value: [value, ["the other disk is full"]]  # type: ignore[method-assign]
    writer = ShardWriter(ranks, asynchronous=False)
    writer.write(tmp_path, "model", [Entry("w", 12, lambda: torch.zeros(3))])
    with pytest.raises(OSError, match="the other disk is full"):
        writer.done(wait=True)
