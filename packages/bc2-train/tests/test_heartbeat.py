"""What a rank writes, when, and what a reader makes of it."""

from __future__ import annotations

import json
import os
import shutil
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from bc2_train.errors import TrainError
from bc2_train.exit_status import PREEMPTED
from bc2_train.heartbeat import Heartbeat, heartbeat_file, read_beat
from bc2_train.process_identity import ProcessIdentity
from bc2_train.run_status import read_status, recorded


@pytest.fixture
def heartbeat(tmp_path: Path) -> Heartbeat:
    return Heartbeat(tmp_path, attempt="a", rank=0, world_size=2, iterations=100)


def written(run_dir: Path) -> dict[str, Any]:
    values: dict[str, Any] = json.loads(heartbeat_file(run_dir, 0).read_text())
    return values


def test_the_file_is_what_others_read(heartbeat: Heartbeat, tmp_path: Path) -> None:
    before = time.time()
    with heartbeat:
        assert written(tmp_path)["phase"] == "starting"
        heartbeat.step(1, 4.0)
        values = written(tmp_path)
    process = values.pop("process")
    assert process == {
        "host": os.uname().nodename,
        "boot_id": Path("/proc/sys/kernel/random/boot_id").read_text().strip(),
        "pid_namespace": os.readlink("/proc/self/ns/pid"),
        "pid": os.getpid(),
        "start_ticks": int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19]),
    }
    assert before <= values.pop("time") <= time.time()
    uptime = float(Path("/proc/uptime").read_text().split()[0])
    assert values.pop("uptime") == pytest.approx(uptime, abs=5)
    assert values == {
        "attempt": "a",
        "rank": 0,
        "world_size": 2,
        "phase": "training",
        "iteration": 1,
        "iterations": 100,
        "step_time": 4.0,
        "count": 2,
        "message": "",
    }
    assert written(tmp_path)["phase"] == "finished"
    assert (tmp_path / "heartbeat.json").resolve() == heartbeat_file(tmp_path, 0)


def test_fast_steps_are_told_once_a_second_and_phases_always(
    heartbeat: Heartbeat, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    told = []
    for iteration in range(1, 31):
        now += 0.1
        heartbeat.step(iteration, 0.1)
        told.append(written(tmp_path)["iteration"])
    assert sorted(set(told)) == [1, 11, 21]
    heartbeat.enter("saving")
    assert (written(tmp_path)["phase"], written(tmp_path)["iteration"]) == ("saving", 30)
    heartbeat.step(31, 0.1)
    assert (written(tmp_path)["phase"], written(tmp_path)["iteration"]) == ("training", 31)


def test_the_step_time_is_the_median_of_recent_steps(heartbeat: Heartbeat, tmp_path: Path) -> None:
    for iteration in range(1, 50):
        heartbeat.step(iteration, 900.0 if iteration < 25 or iteration == 40 else 2.0)
    heartbeat.enter("saving")
    assert written(tmp_path)["step_time"] == 2.0


def test_an_error_is_the_last_word(heartbeat: Heartbeat, tmp_path: Path) -> None:
    heartbeat.step(7, 1.0)
    with pytest.raises(TrainError), heartbeat:
        raise TrainError("the data is gone")
    values = written(tmp_path)
    assert (values["phase"], values["message"], values["iteration"]) == (
        "failed",
        "the data is gone",
        7,
    )


def test_a_run_that_made_way_did_not_finish(heartbeat: Heartbeat, tmp_path: Path) -> None:
    with heartbeat:
        heartbeat.enter("preempted")
    assert written(tmp_path)["phase"] == "preempted"


def test_a_reader_never_sees_half_a_beat(heartbeat: Heartbeat, tmp_path: Path) -> None:
    heartbeat.enter("starting")
    counts: list[int] = []
    done = threading.Event()

    def read() -> None:
        while not done.is_set():
            counts.append(read_beat(heartbeat_file(tmp_path, 0)).count)

    reader = threading.Thread(target=read)
    reader.start()
    for _ in range(500):
        heartbeat.enter("training")
    done.set()
    reader.join()
    assert counts == sorted(counts)
    assert len(set(counts)) > 10
    assert not list(tmp_path.rglob("*.partial"))


def block(run_dir: Path) -> Path:
    """Puts something where a beat would be written first: what a full disk is to a writer."""
    obstacle = run_dir / "heartbeats" / ".rank_0.json.partial"
    obstacle.mkdir()
    return obstacle


def test_a_beat_that_cannot_be_written_stops_nothing_and_is_told_once(
    heartbeat: Heartbeat, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    heartbeat.enter("training")
    obstacle = block(tmp_path)
    for _ in range(3):
        heartbeat.enter("training")
    assert [record.message.partition(":")[0] for record in caplog.records] == ["rank 0"]
    assert "cannot be written, training goes on" in caplog.text
    obstacle.rmdir()
    heartbeat.enter("training")
    assert "can be written again" in caplog.text
    assert read_beat(heartbeat_file(tmp_path, 0)).count == 5


def test_the_time_of_a_beat_that_cannot_be_written_is_kept_whatever_the_clock_does(
    heartbeat: Heartbeat, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heartbeat.enter("training")
    block(tmp_path)
    later, clock = time.clock_gettime(time.CLOCK_BOOTTIME) + 1000, time.time() - 86_400
    monkeypatch.setattr(time, "clock_gettime", lambda which: later)
    monkeypatch.setattr(time, "time", lambda: clock)
    heartbeat.enter("training")
    beat = read_beat(heartbeat_file(tmp_path, 0))
    assert beat.unwritten == pytest.approx(1000, abs=5)
    assert beat.age() == pytest.approx(0, abs=5)


def test_a_disk_that_is_really_full(small_disk: Path, caplog: pytest.LogCaptureFixture) -> None:
    heartbeat = Heartbeat(small_disk, attempt="a", rank=0, world_size=1, iterations=9)
    heartbeat.enter("training")
    with open(small_disk / "filler", "wb", buffering=0) as filler:
        while filler.write(bytes(4096)) == 4096:
            if shutil.disk_usage(small_disk).free == 0:
                break
    heartbeat.enter("training")
    assert "No space left" in caplog.text
    time.sleep(2.6)
    heartbeat.step(2, 1.0)
    beat = read_beat(heartbeat_file(small_disk, 0))
    assert beat.count == 1
    assert beat.unwritten == pytest.approx(2.7, abs=1)


def test_a_run_that_was_deleted_is_not_made_again(heartbeat: Heartbeat, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    run_dir.mkdir()
    heartbeat = Heartbeat(run_dir, attempt="a", rank=0, world_size=1, iterations=9)
    run_dir.rmdir()
    heartbeat.enter("training")
    assert not run_dir.exists()


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "{}", '{"attempt": 3}', "\0" * 99])
def test_damaged_files_are_refused(tmp_path: Path, text: str) -> None:
    path = heartbeat_file(tmp_path, 0)
    path.parent.mkdir()
    path.write_text(text)
    with pytest.raises(TrainError, match=r"rank_0\.json is damaged"):
        read_beat(path)
    (tmp_path / "status.json").write_text(text)
    with pytest.raises(TrainError, match=r"status\.json is damaged"):
        read_status(tmp_path)


@pytest.mark.parametrize(
    ("exit_status", "state"), [(0, "finished"), (PREEMPTED, "preempted"), (1, "failed")]
)
def test_the_status_of_an_attempt(
    tmp_path: Path, exit_status: int, state: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "12")
    with recorded(tmp_path, "a") as outcome:
        status = read_status(tmp_path)
        assert status is not None
        assert (status.state, status.attempt, status.slurm_job) == ("running", "a", "12")
        assert status.process == ProcessIdentity.of_this_process()
        outcome.exit_status = exit_status
    status = read_status(tmp_path)
    assert status is not None
    assert (status.state, status.exit_status) == (state, exit_status)


def test_the_status_after_an_error(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), recorded(tmp_path, "a"):
        raise KeyboardInterrupt
    status = read_status(tmp_path)
    assert status is not None
    assert (status.state, status.message) == ("failed", "KeyboardInterrupt")


def test_a_status_that_cannot_be_written_stops_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / ".status.json.partial").mkdir()
    with recorded(tmp_path, "a") as outcome:
        outcome.exit_status = 0
    assert caplog.text.count("status.json cannot be written") == 2
