"""What an interrupted run leaves, and how the next one goes on with it."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bc2_data.shards.report import ShardReport
from bc2_data.shards.tasks import EncodeShard

SHARDS = 6  # `corpus_folder` has one file each


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


@pytest.fixture
def run(cli: Any, corpus_folder: Path, tokenizer_dir: Path, out: Path) -> Callable[..., Any]:
    def tokenize(*arguments: object, to: Path = out) -> Any:
        return cli(
            *("tokenize", "--input", corpus_folder, "--tokenizer", tokenizer_dir),
            *("--output-prefix", to / "data", "--handler", "alpaca", *arguments),
        )

    return tokenize


@pytest.fixture
def undisturbed(run: Any, tmp_path: Path) -> dict[str, bytes]:
    assert run(to=tmp_path / "undisturbed").status == 0
    return contents(tmp_path / "undisturbed")


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The shards that were encoded, as they are begun."""
    shards: list[int] = []
    encode = EncodeShard.__iter__

    def counted(task: EncodeShard) -> Any:
        shards.append(task.shard.index)
        return encode(task)

    monkeypatch.setattr(EncodeShard, "__iter__", counted)
    return shards


@pytest.fixture
def interrupted(run: Any, out: Path) -> Callable[..., Path]:
    """Interrupts a run in its shard number 3, after shards 0, 1 and 2; returns its workspace."""

    def interrupt(*arguments: object) -> Path:
        with pytest.MonkeyPatch.context() as patch:
            save = ShardReport.save

            def stop(report: ShardReport, folder: Path) -> None:
                if report.index == 3:
                    raise KeyboardInterrupt
                save(report, folder)

            patch.setattr(ShardReport, "save", stop)
            outcome = run(*arguments)
        assert outcome.status == 130
        folder = out / ".data.unfinished"
        assert outcome.err == (
            "error: interrupted\n"
            f"note: kept 3 finished shards in {folder}: the same command with --resume goes on "
            "from there\n"
        )
        assert [path.name for path in out.iterdir()] == [".data.unfinished"]
        return folder

    return interrupt


def test_resume_encodes_only_what_is_left(
    interrupted: Any, run: Any, out: Path, undisturbed: dict[str, bytes], encoded: list[int]
) -> None:
    interrupted()
    encoded.clear()
    assert run("--resume").status == 0
    assert encoded == [3, 4, 5]
    assert contents(out) == undisturbed


def test_work_that_was_left_is_neither_used_nor_dropped_unasked(
    interrupted: Any, run: Any, out: Path, undisturbed: dict[str, bytes], encoded: list[int]
) -> None:
    folder = interrupted()
    before = contents_of_tree(folder)
    outcome = run()
    assert outcome.status == 2
    assert outcome.err == (
        f"error: an interrupted run for {out / 'data'} left 3 finished shards in {folder}\n"
        "hint: add --resume to go on with it, or --overwrite to begin anew\n"
    )
    assert contents_of_tree(folder) == before
    encoded.clear()
    assert run("--overwrite").status == 0
    assert encoded == [*range(SHARDS)]
    assert contents(out) == undisturbed


def contents_of_tree(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def test_resume_without_anything_to_resume_begins(
    run: Any, out: Path, undisturbed: dict[str, bytes]
) -> None:
    assert run("--resume").status == 0
    assert contents(out) == undisturbed


@pytest.mark.parametrize(
    ("arguments", "difference"),
    [
        (("--max-length", "99"), "options max_length was not given, is 99"),
        (("--special-tokens", "allow"), "special_tokens was escape, is allow"),
        (("--overlong", "truncate"), "options overlong was drop, is truncate"),
        (("--pack", "--seq-length", "512"), "options max_length was not given, is 513"),
    ],
)
def test_another_job_does_not_resume(
    interrupted: Any, run: Any, arguments: tuple[str, ...], difference: str
) -> None:
    folder = interrupted()
    before = contents_of_tree(folder)
    outcome = run("--resume", *arguments)
    assert outcome.status == 2
    assert f"{folder} holds the work of another job: {difference}\nhint: " in outcome.err
    assert contents_of_tree(folder) == before


def test_changed_inputs_do_not_resume(
    interrupted: Any, run: Any, corpus_folder: Path, out: Path
) -> None:
    interrupted()
    changed = corpus_folder / "4.jsonl"
    os.utime(changed, ns=(1, 1))
    outcome = run("--resume")
    assert outcome.status == 2
    assert f"another job: modified {changed} was " in outcome.err
    (corpus_folder / "6.jsonl").write_bytes(changed.read_bytes())
    assert "another job: shards was 6, is 7" in run("--resume").err
    assert run("--overwrite").status == 0


def test_an_input_that_changes_under_way_is_an_error(
    run: Any, corpus_folder: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save = ShardReport.save

    def append(report: ShardReport, folder: Path) -> None:
        save(report, folder)
        with open(corpus_folder / "0.jsonl", "a") as file:
            file.write("\n")

    monkeypatch.setattr(ShardReport, "save", append)
    outcome = run()
    assert outcome.status == 2
    assert f"{corpus_folder / '0.jsonl'} was written to while it was read" in outcome.err
    assert not list(out.glob("data*"))


def test_resume_leaves_a_finished_job_as_it_is(
    run: Any, out: Path, corpus_folder: Path, encoded: list[int]
) -> None:
    first = run()
    before = {path: path.stat().st_mtime_ns for path in out.iterdir()}
    encoded.clear()
    again = run("--resume")
    assert (again.status, again.out) == (0, first.out)
    assert encoded == []
    assert {path: path.stat().st_mtime_ns for path in out.iterdir()} == before
    assert "exists already" in run("--resume", "--max-length", "99").err  # that is another job
    os.utime(corpus_folder / "0.jsonl")
    assert "exists already" in run("--resume").err


def test_two_runs_do_not_share_a_prefix(run: Any, out: Path) -> None:
    folder = out / ".data.unfinished"
    folder.mkdir(parents=True)
    with open(folder / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for arguments in ((), ("--resume",), ("--overwrite",)):
            outcome = run(*arguments)
            assert outcome.status == 2
            assert f"error: another process is at work on {out / 'data'}\n" in outcome.err
    assert run().status == 0


def flip(path: Path, place: int) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


def ids_of(folder: Path) -> Path:
    return folder / "outputs" / "data_packed_input_ids_document.bin"


@pytest.mark.parametrize(
    ("damage", "lost"),
    [
        (lambda folder: flip(ids_of(folder), 0), [0, 1, 2]),
        (lambda folder: flip(ids_of(folder), -1), [2]),
        (lambda folder: os.truncate(ids_of(folder), 1000), [0, 1, 2]),
        (lambda folder: ids_of(folder).unlink(), [0, 1, 2]),
        (lambda folder: flip(folder / "outputs" / "lengths", 0), [0, 1, 2]),
        (lambda folder: (folder / "shard-000001.json").write_text("{"), [1, 2]),
        (lambda folder: (folder / "shard-000002.json").unlink(), [2]),
        (lambda folder: (folder / "input-000000.sha256").unlink(), []),
        (lambda folder: ids_of(folder).open("ab").write(b"beyond" * 100_000), []),
    ],
)
def test_damaged_work_is_done_again(
    interrupted: Any,
    run: Any,
    out: Path,
    undisturbed: dict[str, bytes],
    encoded: list[int],
    damage: Callable[[Path], object],
    lost: list[int],
) -> None:
    damage(interrupted())
    encoded.clear()
    assert run("--resume").status == 0
    assert encoded == [*lost, 3, 4, 5]
    assert contents(out) == undisturbed


@pytest.mark.parametrize("damaged", [False, True])
def test_shards_that_wait_for_earlier_ones_are_taken_up(
    run: Any, out: Path, undisturbed: dict[str, bytes], encoded: list[int], damaged: bool
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        encode = EncodeShard.__iter__

        def stop_at_once(task: EncodeShard) -> Any:
            if task.shard.index == 0:
                raise KeyboardInterrupt
            yield from encode(task)

        # The first shard comes last, so that all others have to wait for it.
        patch.setattr("bc2_data.launchers.inline.InlineLauncher.run", backwards)
        patch.setattr(EncodeShard, "__iter__", stop_at_once)
        assert run().status == 130
    folder = out / ".data.unfinished"
    assert len(list(folder.glob("shard-*.ids"))) == SHARDS - 1
    if damaged:
        flip(folder / "shard-000004.labels", 7)
    encoded.clear()
    assert run("--resume").status == 0
    assert encoded == [0, 4] if damaged else [0]
    assert contents(out) == undisturbed


def backwards(launcher: object, tasks: Any) -> Any:
    for task in sorted(tasks, key=str, reverse=True):
        yield from task


def test_resuming_with_other_workers_is_the_same_job(
    interrupted: Any, run: Any, out: Path, undisturbed: dict[str, bytes]
) -> None:
    interrupted()
    assert run("--resume", "--workers", "2", "--log-interval", "10").status == 0
    assert contents(out) == undisturbed
