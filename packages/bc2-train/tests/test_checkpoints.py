"""The checkpoints folder, without an engine."""

from __future__ import annotations

import json
import logging
import time
from pathlib import Path

import pytest

from bc2_ckpt.integrity.known import TRAINER_CHECKSUMS
from bc2_train.checkpoints import TRACKER, CheckpointFolder
from bc2_train.errors import TrainError
from bc2_train.ranks import SingleRank


class Save:
    """A pending save that is written after so many questions."""

    def __init__(self, directory: Path, questions: int = 0) -> None:
        self.directory, self.questions = directory, questions

    def done(self, *, wait: bool) -> bool:
        self.questions -= 1
        if not wait and self.questions >= 0:
            return False
        (self.directory / "weights").write_text("w" * 100)
        return True


def folder(path: Path, keep: int = 0, keep_every: int = 0) -> CheckpointFolder:
    def describe(directory: Path) -> None:
        (directory / "config.json").write_text("{}")

    return CheckpointFolder(
        path, keep=keep, keep_every=keep_every, describe=describe, ranks=SingleRank()
    )


def save(checkpoints: CheckpointFolder, *iterations: int) -> list[Path]:
    paths = []
    for iteration in iterations:
        checkpoints.save(iteration, Save)
        path = checkpoints.finish(wait=True)
        assert path is not None
        paths.append(path)
    return paths


def test_a_saved_checkpoint_is_the_newest(tmp_path: Path) -> None:
    checkpoints = folder(tmp_path / "c")
    assert checkpoints.newest_whole() is None
    for iteration in (5, 10, 10_000_000):
        (path,) = save(checkpoints, iteration)
        assert checkpoints.newest_whole() == path
        names = sorted(file.name for file in path.iterdir())
        assert names == [TRAINER_CHECKSUMS, "config.json", "weights"]
    assert (tmp_path / "c" / TRACKER).read_text() == "10000000\n"


def test_an_interrupted_save_leaves_no_checkpoint(tmp_path: Path) -> None:
    def fail(directory: Path) -> Save:
        (directory / "weights").write_text("half")
        raise OSError("disk full")

    checkpoints = folder(tmp_path)
    (older,) = save(checkpoints, 5)
    with pytest.raises(TrainError, match=r"saving to .* failed, where .* MB are free: disk full"):
        checkpoints.save(10, fail)
    assert folder(tmp_path).newest_whole() == older
    assert (tmp_path / TRACKER).read_text() == "5\n"
    (newer,) = save(folder(tmp_path), 10)
    assert folder(tmp_path).newest_whole() == newer


def test_a_save_in_the_background_is_whole_only_when_it_is_finished(tmp_path: Path) -> None:
    checkpoints = folder(tmp_path)
    checkpoints.save(5, lambda directory: Save(directory, questions=2))
    assert checkpoints.finish(wait=False) is None
    assert checkpoints.finish(wait=False) is None
    assert checkpoints.all() == []
    # Its files are written; their checksums are computed in the background as well.
    deadline = time.monotonic() + 30
    while (saved := checkpoints.finish(wait=False)) is None:
        assert time.monotonic() < deadline
    assert saved == tmp_path / "iter_0000005"
    assert checkpoints.finish(wait=False) is None


def test_the_next_save_waits_for_the_one_before(tmp_path: Path) -> None:
    checkpoints = folder(tmp_path)
    checkpoints.save(5, lambda directory: Save(directory, questions=9))
    checkpoints.save(10, Save)
    assert checkpoints.all() == [tmp_path / "iter_0000005"]


@pytest.mark.parametrize("damage", ["flip", "shorten", "remove", "no checksums", "bad checksums"])
def test_a_damaged_checkpoint_is_passed_over(
    tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    older, newer = save(folder(tmp_path), 5, 10)
    weights = newer / "weights"
    match damage:
        case "flip":
            weights.write_text("w" * 50 + "v" + "w" * 49)
        case "shorten":
            weights.write_text("w" * 99)
        case "remove":
            weights.unlink()
        case "no checksums":
            (newer / TRAINER_CHECKSUMS).unlink()
        case "bad checksums":
            (newer / TRAINER_CHECKSUMS).write_text("[")
    with caplog.at_level(logging.WARNING):
        assert folder(tmp_path).newest_whole() == older
    assert "iter_0000010 is damaged" in caplog.text


def test_all_damaged(tmp_path: Path) -> None:
    (path,) = save(folder(tmp_path), 5)
    (path / TRAINER_CHECKSUMS).write_text(json.dumps({"weights": "0"}))
    with pytest.raises(TrainError, match=r"every checkpoint in .* is damaged"):
        folder(tmp_path).newest_whole()


@pytest.mark.parametrize(
    ("keep", "keep_every", "left"),
    [(2, 0, [6, 7]), (2, 3, [3, 6, 7]), (0, 3, [1, 2, 3, 4, 5, 6, 7])],
)
def test_which_are_kept(tmp_path: Path, keep: int, keep_every: int, left: list[int]) -> None:
    checkpoints = folder(tmp_path, keep, keep_every)
    save(checkpoints, *range(1, 8))
    assert [int(path.name[5:]) for path in checkpoints.all()] == left
