"""The checkpoints folder, without an engine."""

from __future__ import annotations

from pathlib import Path

import pytest

from bc2_train.checkpoints import TRACKER, CheckpointFolder


def folder(path: Path, keep: int = 0) -> CheckpointFolder:
    def describe(directory: Path) -> None:
        (directory / "config.json").write_text("{}")

    return CheckpointFolder(path, keep=keep, describe=describe, is_first=True, barrier=lambda: None)


def write(directory: Path) -> None:
    (directory / "weights").write_text("w")


def test_a_saved_checkpoint_is_the_newest(tmp_path: Path) -> None:
    checkpoints = folder(tmp_path / "c")
    assert checkpoints.newest() is None
    for iteration in (5, 10, 10_000_000):
        path = checkpoints.save(iteration, write)
        assert checkpoints.newest() == path
        assert sorted(file.name for file in path.iterdir()) == ["config.json", "weights"]
    assert (tmp_path / "c" / TRACKER).read_text() == "10000000\n"


def test_an_interrupted_save_leaves_no_checkpoint(tmp_path: Path) -> None:
    def fail(directory: Path) -> None:
        write(directory)
        raise OSError("disk full")

    checkpoints = folder(tmp_path)
    checkpoints.save(5, write)
    with pytest.raises(OSError, match="disk full"):
        checkpoints.save(10, fail)
    assert checkpoints.newest() == tmp_path / "iter_0000005"
    assert (tmp_path / TRACKER).read_text() == "5\n"
    checkpoints.save(10, write)
    assert checkpoints.newest() == tmp_path / "iter_0000010"


def test_only_the_newest_are_kept(tmp_path: Path) -> None:
    checkpoints = folder(tmp_path, keep=2)
    for iteration in range(1, 5):
        checkpoints.save(iteration, write)
    names = sorted(path.name for path in tmp_path.glob("iter_*"))
    assert names == ["iter_0000003", "iter_0000004"]
