"""Parts of the launcher: what may be asked of it, when it restarts, and who hangs."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from bc2_train.errors import TrainError
from bc2_train.exit_status import PEER_LOST, PREEMPTED
from bc2_train.heartbeat import Heartbeat
from bc2_train.launch import Rendezvous
from bc2_train.launch.logs import Log, next_number
from bc2_train.launch.restarts import Ending, Restarts, joint
from bc2_train.launch.silence import Watchdog
from bc2_train.launch.stacks import stacks

KILLED = Ending(status=1, message="rank 1 on b ended with SIGKILL")
LOST = Ending(status=PEER_LOST, message="rank 0 on a ended with exit status 76", victim=True)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"nnodes": 0}, "--nnodes is 0"),
        ({"nnodes": 2, "node_rank": 2, "master_port": 29500}, "--node-rank is 2 of 2 hosts"),
        ({"node_rank": 1}, "--node-rank is 1 of 1 hosts"),
        ({"nnodes": 2, "node_rank": -1, "master_port": 29500}, "--node-rank is -1"),
        ({"nnodes": 2}, "2 hosts have no port to meet on"),
        ({"nnodes": 2, "master_port": 70000}, "--master-port is 70000"),
    ],
)
def test_hosts_that_make_no_job(values: dict[str, Any], message: str) -> None:
    with pytest.raises(TrainError, match=message) as raised:
        Rendezvous(**values)
    assert raised.value.hint


def test_restarts_end_at_their_limit_and_wait_longer_each_time() -> None:
    restarts = Restarts(3)
    decisions = [restarts.decide(KILLED) for _ in range(4)]
    assert [decision.delay for decision in decisions] == [2.0, 4.0, 8.0, None]
    assert decisions[0].message == "rank 1 on b ended with SIGKILL; restart 1 of 3"
    assert decisions[3].message.endswith("no restart left, all 3 are used")
    assert decisions[3].status == 1


def test_delays_begin_anew_after_an_attempt_that_lasted(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr("bc2_train.launch.restarts.time.monotonic", lambda: now)
    restarts = Restarts(9)
    delays = []
    for seconds in (0.0, 5.0, 10.0, 3600.0, 5.0):
        now += seconds
        delays.append(restarts.decide(KILLED).delay)
    assert delays == [2.0, 4.0, 8.0, 2.0, 4.0]


@pytest.mark.parametrize(
    "ending",
    [
        Ending(status=0),
        Ending(status=PREEMPTED, asked=True),
        Ending(status=2, message="no data"),
        dataclasses.replace(KILLED, asked=True),
    ],
    ids=["finished", "preempted", "the user can mend it", "asked to end"],
)
def test_what_is_not_started_again(ending: Ending) -> None:
    decision = Restarts(3).decide(ending)
    assert (decision.delay, decision.status) == (None, ending.status)


def test_the_cause_among_several_hosts_is_named() -> None:
    mendable = Ending(status=2, message="rank 2 on b ended with exit status 2")
    assert joint([LOST, KILLED]).message == KILLED.message
    assert joint([LOST, KILLED, mendable]).status == 2
    assert joint([LOST, LOST]).status == PEER_LOST
    assert joint([Ending(status=0), Ending(status=0)]) == Ending(status=0)
    # Who was asked to end takes its peers along before they listen for it.
    asked = Ending(status=PREEMPTED, asked=True)
    assert joint([asked, LOST]).status == PREEMPTED


def test_no_attempt_writes_over_the_logs_of_another(tmp_path: Path) -> None:
    for number in (1, 2):
        assert next_number(tmp_path) == number
        log = Log(tmp_path, number, 5)
        log.file.write(f"attempt {number}\n".encode())
        log.close()
    texts = [path.read_text() for path in sorted((tmp_path / "logs").glob("attempt_*/rank_5.txt"))]
    assert texts == ["attempt 1\n", "attempt 2\n"]
    assert (tmp_path / "logs" / "rank_5.txt").read_text() == "attempt 2\n"


class Clock:
    """A clock of a watchdog, moved by hand."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = time.monotonic()
        monkeypatch.setattr("bc2_train.launch.silence.time.monotonic", lambda: self.now)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def watchdog(run_dir: Path) -> Watchdog:
    return Watchdog(run_dir, "this", [0, 1], hang_timeout=10, patience=60)


def beats(run_dir: Path, rank: int, attempt: str = "this") -> Heartbeat:
    return Heartbeat(run_dir, attempt=attempt, rank=rank, world_size=2, iterations=100)


def seconds_until_noticed(dog: Watchdog, clock: Clock, most: int = 200) -> tuple[int, list[int]]:
    for second in range(1, most):
        clock.now += 1.0
        if silences := dog.look():
            return second, [silence.rank for silence in silences]
    return most, []


def test_a_rank_that_takes_no_step_is_noticed_in_time(tmp_path: Path, clock: Clock) -> None:
    first, second = beats(tmp_path, 0), beats(tmp_path, 1)
    dog = watchdog(tmp_path)
    first.step(8, 0.1)
    second.step(7, 0.1)
    assert seconds_until_noticed(dog, clock) == (12, [1, 0])  # the one that is behind comes first


def test_the_limit_follows_the_step_time_and_the_phase(tmp_path: Path, clock: Clock) -> None:
    first, second = beats(tmp_path, 0), beats(tmp_path, 1)
    first.step(8, 3.0)
    second.step(8, 3.0)
    assert seconds_until_noticed(watchdog(tmp_path), clock)[0] == 32
    for rank in (first, second):
        rank.enter("saving")
    assert seconds_until_noticed(watchdog(tmp_path), clock)[0] == 62


def test_beats_of_an_earlier_attempt_do_not_count(tmp_path: Path, clock: Clock) -> None:
    beats(tmp_path, 0, "earlier").step(8, 0.1)
    dog = watchdog(tmp_path)
    noticed, ranks = seconds_until_noticed(dog, clock)
    assert (noticed, ranks) == (61, [0, 1])


def test_a_sleep_of_the_whole_host_does_not_count(tmp_path: Path, clock: Clock) -> None:
    for rank in (0, 1):
        beats(tmp_path, rank).step(8, 0.1)
    dog = watchdog(tmp_path)
    clock.now += 1.0
    assert dog.look() == []
    clock.now += 3600.0
    assert dog.look() == []


def test_a_clock_that_is_set_does_not_count(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    ranks = [beats(tmp_path, rank) for rank in (0, 1)]
    dog = watchdog(tmp_path)
    for step, day in enumerate((0, -1, +1, -365)):
        monkeypatch.setattr("bc2_train.heartbeat.time.time", lambda d=day: 1.8e9 + d * 86400)
        for rank in ranks:
            rank.enter("training", step)
        for _ in range(8):
            clock.now += 1.0
            assert dog.look() == []


@pytest.mark.parametrize("stopped", [False, True])
def test_a_process_shows_its_stacks(tmp_path: Path, stopped: bool) -> None:
    log = Log(tmp_path, 1, 0)
    program = (
        "import time; from bc2_train.launch.stacks import dump_on_signal\n"
        "def waits_for_ever():\n    print('ready', flush=True); time.sleep(600)\n"
        "dump_on_signal(); waits_for_ever()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=log.file
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        if stopped:
            os.kill(process.pid, signal.SIGSTOP)
            time.sleep(0.2)
        state, *found = stacks(process.pid, log)
    finally:
        process.kill()
        process.wait()
    assert f"process {process.pid}, state {'T' if stopped else 'S'} (" in state
    assert any("in waits_for_ever" in line for line in found)


def test_logs_of_workers_say_who_where_and_when(tmp_path: Path) -> None:
    """The message of a rank that fails before it has joined the others."""
    (tmp_path / "config.yaml").write_text(
        json.dumps(
            {
                "model": {"config": str(tmp_path)},
                "data": {"kind": "pretrain", "prefix": "none", "seq_length": 8},
                "batch": {"micro": 1, "global": 1},
                "optimizer": {"lr": 1.0},
                "train": {"iterations": 1},
                "run": {"dir": str(tmp_path)},
            }
        )
    )
    stays_open, launcher = os.pipe()
    result = subprocess.run(
        [sys.executable, "-m", "bc2_train.worker", str(tmp_path / "config.yaml")],
        env={**os.environ, "RANK": "3", "WORLD_SIZE": "4"},
        stdin=stays_open,
        capture_output=True,
        text=True,
        start_new_session=True,
        timeout=120,
        check=False,
    )
    os.close(launcher)
    os.close(stays_open)
    assert result.returncode == 2, result.stderr
    assert "note: rank 3 on " in result.stderr
    assert ", after 0 steps" in result.stderr
