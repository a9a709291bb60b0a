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

from bc2_train.stop import EXIT_STATUS

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

    That is 0 where the run reached its end, `stop.EXIT_STATUS` where it saved and ended early.

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
            )
        failed = _wait(workers)
    if failed is None:
        return max(worker.returncode for worker in workers.values())
    status = workers[failed].returncode
    if failed != first:
        _show_failure(failed, status, _log_file(logs, failed))
    elif status < 0:
        _show_failure(failed, status, None)
    return status if status > 0 else 1


def _wait(workers: dict[int, subprocess.Popen[bytes]]) -> int | None:
    """Waits for all workers and returns the rank whose failure came first, if one failed.

    A failure of the first rank that comes within the grace time is preferred, since its message
    has gone to the terminal already.
    """
    failed: int | None = None
    deadline = 0.0
    while any(worker.poll() is None for worker in workers.values()):
        if failed is None:
            failed = next((rank for rank, w in workers.items() if _has_failed(w)), None)
            deadline = time.monotonic() + GRACE_SECONDS
        elif time.monotonic() > deadline:
            _end(workers)
            break
        time.sleep(0.1)
    for worker in workers.values():
        worker.wait()
    if failed is None:
        failed = next((rank for rank, w in workers.items() if _has_failed(w)), None)
    first = min(workers)
    return first if failed is not None and workers[first].returncode > 0 else failed


def _has_failed(worker: subprocess.Popen[bytes]) -> bool:
    return worker.poll() not in (None, 0, EXIT_STATUS)


def _end(workers: dict[int, subprocess.Popen[bytes]]) -> None:
    for action in (subprocess.Popen.terminate, subprocess.Popen.kill):
        for worker in workers.values():
            if worker.poll() is None:
                action(worker)
        deadline = time.monotonic() + GRACE_SECONDS
        while time.monotonic() < deadline and any(w.poll() is None for w in workers.values()):
            time.sleep(0.1)


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
