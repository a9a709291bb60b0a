"""What launchers of several hosts agree on, each in a thread of its own on one host."""

from __future__ import annotations

import itertools
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from bc2_train.errors import TrainError
from bc2_train.exit_status import PEER_LOST
from bc2_train.launch.hosts import ManyHosts
from bc2_train.launch.meeting import Meeting
from bc2_train.launch.rendezvous import Rendezvous, free_port
from bc2_train.launch.restarts import Ending, Restarts
from bc2_train.launch.signals import StopSignal
from bc2_train.launch.workers import Attempt

SILENCE = 3.0


@pytest.fixture
def port() -> int:
    return free_port()


@contextmanager
def meeting(port: int, limit: int = 0) -> Iterator[Meeting]:
    numbers = itertools.count(1)

    def attempt() -> Attempt:
        number = next(numbers)
        return Attempt(name=f"attempt {number}", number=number, port=1000 + number)

    made = Meeting(
        Rendezvous(nnodes=2, master_port=port),
        processes=2,
        config="same",
        new_attempt=attempt,
        restarts=Restarts(limit),
        silence=SILENCE,
    )
    try:
        yield made
    finally:
        made.close()


def host(
    port: int, node: int, *, nodes: int = 2, config: str = "same", limit: int = 0
) -> ManyHosts:
    return ManyHosts(
        Rendezvous(nnodes=nodes, node_rank=node, master_port=port),
        processes=2,
        config=config,
        restarts=Restarts(limit),
        silence=SILENCE,
        patience=8.0,
        stop=StopSignal(),
    )


def trouble(host: ManyHosts) -> Ending:
    deadline = time.monotonic() + 20
    while (ending := host.trouble()) is None:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return ending


def test_hosts_start_fail_restart_and_finish_together(port: int) -> None:
    died = Ending(status=1, message="rank 3 on b ended with SIGKILL")
    with meeting(port, limit=1), ThreadPoolExecutor() as threads:
        hosts = [host(port, 0), host(port, 1)]
        first = [start.result() for start in [threads.submit(h.begin) for h in hosts]]
        assert first == [Attempt(name="attempt 1", number=1, port=1001)] * 2

        second = threads.submit(hosts[1].conclude, died)
        assert trouble(hosts[0]).message == died.message
        victim = Ending(status=PEER_LOST, message="lost a peer", victim=True)
        decisions = [hosts[0].conclude(victim), second.result()]
        assert decisions[0] == decisions[1]
        assert decisions[0].delay is not None
        assert decisions[0].message == "rank 3 on b ended with SIGKILL; restart 1 of 1"

        again = [start.result() for start in [threads.submit(h.begin) for h in hosts]]
        assert again == [Attempt(name="attempt 2", number=2, port=1002)] * 2
        ends = [threads.submit(h.conclude, Ending(status=0)) for h in hosts]
        assert [(end.result().status, end.result().delay) for end in ends] == [(0, None)] * 2


def test_a_host_that_is_gone_is_named_on_the_other(port: int) -> None:
    with meeting(port), ThreadPoolExecutor() as threads:
        hosts = [host(port, 0), host(port, 1)]
        for start in [threads.submit(h.begin) for h in hosts]:
            start.result()
        hosts[1]._hang_up()
        ending = trouble(hosts[0])
        assert ending.status == PEER_LOST
        assert f"lost contact with host 1 ({socket.gethostname()}, 127.0.0.1)" in ending.message
        assert hosts[0].conclude(ending).status == PEER_LOST


def test_a_host_0_that_falls_silent_is_named(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    with meeting(port), ThreadPoolExecutor() as threads:
        hosts = [host(port, 0), host(port, 1)]
        for start in [threads.submit(h.begin) for h in hosts]:
            start.result()
        monkeypatch.setattr("bc2_train.launch.line.Line.send", lambda *message: None)
        started = time.monotonic()
        ending = trouble(hosts[1])
        assert SILENCE - 1.5 < time.monotonic() - started < SILENCE + 3
        assert f"lost contact with host 0 at 127.0.0.1:{port}: nothing heard" in ending.message
        monkeypatch.undo()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"config": "another"}, "has another configuration than host 0"),
        ({"nodes": 3}, "counts 3 hosts of 2 processes, host 0 2 of 2"),
    ],
)
def test_a_host_that_does_not_belong_is_refused(
    port: int, changes: dict[str, object], message: str
) -> None:
    with meeting(port), pytest.raises(TrainError, match=message):
        host(port, 1, **changes).begin()  # type: ignore[arg-type]


def test_two_hosts_of_one_number(port: int) -> None:
    with meeting(port), ThreadPoolExecutor() as threads:
        waiting = threads.submit(host(port, 1).begin)
        time.sleep(1)
        with pytest.raises(TrainError, match=r"host 1 \(.*\) has the number of host 1"):
            host(port, 1).begin()
        other = host(port, 0)
        assert other.begin() == waiting.result()


def test_strangers_on_the_port_do_no_harm(port: int) -> None:
    with meeting(port), ThreadPoolExecutor() as threads:
        for words in (b"GET / HTTP/1.1\r\n\r\n", b'["hello", {}]\n', b"\0" * 100_000, b""):
            with socket.create_connection(("127.0.0.1", port)) as stranger:
                stranger.sendall(words)
        hosts = [host(port, 0), host(port, 1)]
        attempts = [start.result() for start in [threads.submit(h.begin) for h in hosts]]
        assert attempts[0] == attempts[1]


def test_hosts_that_do_not_come_are_waited_for_and_missed(port: int) -> None:
    lonely = host(port, 1)
    lonely._patience = 1.0
    with pytest.raises(TrainError, match=f"waited 1 s for the others at 127.0.0.1:{port}"):
        lonely.begin()
