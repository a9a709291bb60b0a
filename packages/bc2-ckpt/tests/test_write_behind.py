"""Files that are sent to the disk while they are written: in parts, and no error is lost."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from bc2_ckpt import write_behind
from bc2_ckpt.hashing import HashedFile

PART = 1000


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(write_behind, "PART_BYTES", PART)


def fail(descriptor: int) -> None:
    raise OSError(errno.EIO, os.strerror(errno.EIO))


def write(path: Path, count: int, size: int) -> None:
    with HashedFile(path) as file:
        for i in range(count):
            file.write(bytes([i]) * size)


def test_every_part_is_sent_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[tuple[int, int]] = []
    monkeypatch.setattr(
        write_behind, "_send", lambda descriptor, start, length: sent.append((start, length))
    )
    write(tmp_path / "file", count=9, size=400)
    assert sent == [(0, 1200), (1200, 1200), (2400, 1200)]


def test_the_content_is_what_was_written(tmp_path: Path) -> None:
    write(tmp_path / "file", count=9, size=700)
    assert (tmp_path / "file").read_bytes() == b"".join(bytes([i]) * 700 for i in range(9))


@pytest.mark.parametrize("count", [1, 2, 5], ids=["at the end", "at the next part", "early"])
def test_a_disk_that_fails_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        write(tmp_path / "file", count, PART)


def test_an_error_of_the_caller_comes_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write_and_fail() -> None:
        with HashedFile(tmp_path / "file") as file:
            file.write(bytes(PART))
            raise KeyError

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(KeyError):
        write_and_fail()
