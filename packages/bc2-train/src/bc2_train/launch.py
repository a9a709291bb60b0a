"""Starts the processes of one host and ends them together."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bc2_train.exit_status import PEER_LOST, PREEMPTED

GRACE_SECONDS = 10.0
"""How long processes may take to end by themselves after one of them has failed."""


@dataclass(frozen=True, kw_only=True)
class Rendezvous:
    """How the hosts of a job find each other.

    Attributes:
        nnodes: Hosts.
        node_rank: Which of them this is, counted from 0.
        master_addr: Address of host 0.
        master_port: A free port there; 0 takes any where there is one host.
    """

    nnodes: int = 1
    node_rank: int = 0
    master_addr: str = "127.0.0.1"
    master_port: int = 0


def launch(config_file: Path, run_dir: Path, processes: int, rendezvous: Rendezvous) -> int:
    """Runs the workers of this host to their end and returns an exit status.

    That is 0 where the run reached its end, `exit_status.PREEMPTED` where it saved and ended early.

    The first rank of the host writes to the terminal, every other to ``logs/rank_N.txt``.

    Args:
        config_file: The resolved configuration.
        run_dir: Where the logs go.
        processes: Workers on this host.
        rendezvous: How the hosts find each other.
    """
    logs = run_dir / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    port = rendezvous.master_port or _free_port()
    first = rendezvous.node_rank * processes
    workers: dict[int, subprocess.Popen[bytes]] = {}
    with contextlib.ExitStack() as stack, _passing_on_signals(workers):
        for local_rank in range(processes):
            rank = first + local_rank
            environment = {
                **os.environ,
                "RANK": str(rank),
                "LOCAL_RANK": str(local_rank),
                "WORLD_SIZE": str(rendezvous.nnodes * processes),
                "MASTER_ADDR": rendezvous.master_addr,
                "MASTER_PORT": str(port),
            }
            # Processes that share a host's cores must not each start a thread for every core.
            cores = os.cpu_count() or 1
            environment.setdefault("OMP_NUM_THREADS", str(max(1, cores // processes)))
            output = None
            if local_rank:
                output = stack.enter_context(open(_log_file(logs, rank), "wb"))
            workers[rank] = subprocess.Popen(
                [sys.executable, "-m", "bc2_train.worker", str(config_file)],
                env=environment,
                stdin=subprocess.PIPE,  # never written to: it closes when this process dies
                stdout=output,
                stderr=output and subprocess.STDOUT,
                # A group of its own, so that what a worker has started ends with it.
                process_group=0,
            )
        ended = _wait(workers)
        _end_groups(workers)
    return _conclude(workers, ended, logs)


def _wait(workers: dict[int, subprocess.Popen[bytes]]) -> set[int]:
    """Waits for all workers; returns the ranks that had to be ended after another had failed."""
    deadline: float | None = None
    while running := {rank for rank, worker in workers.items() if worker.poll() is None}:
        if deadline is None and any(_has_failed(worker) for worker in workers.values()):
            deadline = time.monotonic() + GRACE_SECONDS
        if deadline is not None and time.monotonic() > deadline:
            _end(workers)
            return running
        time.sleep(0.1)
    return set()


def _conclude(workers: dict[int, subprocess.Popen[bytes]], ended: set[int], logs: Path) -> int:
    """Tells which rank's failure stopped the run, if one did, and returns the exit status."""
    failed = {
        rank: worker.returncode
        for rank, worker in workers.items()
        if _has_failed(worker) and rank not in ended
    }
    if not failed:
        return max(worker.returncode for worker in workers.values())
    # A rank that lost a peer is a victim, as long as the culprit is on this host.
    causes = {rank: status for rank, status in failed.items() if status != PEER_LOST} or failed
    first = min(workers)
    if causes.get(first, 0) > 0:  # its message has gone to the terminal already
        return causes[first]
    rank, status = next(iter(causes.items()))
    _show_failure(rank, status, None if rank == first else _log_file(logs, rank))
    return status if status > 0 else 1


def _has_failed(worker: subprocess.Popen[bytes]) -> bool:
    return worker.poll() not in (None, 0, PREEMPTED)


def _end(workers: dict[int, subprocess.Popen[bytes]]) -> None:
    for action in (subprocess.Popen.terminate, subprocess.Popen.kill):
        for worker in workers.values():
            if worker.poll() is None:
                action(worker)
        deadline = time.monotonic() + GRACE_SECONDS
        while time.monotonic() < deadline and any(w.poll() is None for w in workers.values()):
            time.sleep(0.1)


def _end_groups(workers: dict[int, subprocess.Popen[bytes]]) -> None:
    """Ends what is left of workers that were killed, such as a checkpoint's writer processes."""
    for worker in workers.values():
        with contextlib.suppress(ProcessLookupError):
            os.killpg(worker.pid, signal.SIGKILL)


@contextlib.contextmanager
def _passing_on_signals(workers: dict[int, subprocess.Popen[bytes]]) -> Iterator[None]:
    """Hands SIGTERM on to the workers, which save and end; on an error here, ends them."""

    def pass_on(number: int, frame: object) -> None:
        for worker in workers.values():
            worker.send_signal(number)

    previous = signal.signal(signal.SIGTERM, pass_on)
    try:
        yield
    except BaseException:
        _end(workers)
        _end_groups(workers)
        raise
    finally:
        signal.signal(signal.SIGTERM, previous)


def _show_failure(rank: int, status: int, log_file: Path | None) -> None:
    how = f"exit status {status}" if status > 0 else signal.Signals(-status).name
    sys.stderr.write(f"error: rank {rank} on {socket.gethostname()} ended with {how}\n")
    if log_file is not None:
        lines = log_file.read_text("utf-8", errors="replace").splitlines()
        sys.stderr.writelines(f"  {line}\n" for line in lines[-20:])
        sys.stderr.write(f"hint: the whole log of this rank is {log_file}\n")


def _log_file(logs: Path, rank: int) -> Path:
    return logs / f"rank_{rank}.txt"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
