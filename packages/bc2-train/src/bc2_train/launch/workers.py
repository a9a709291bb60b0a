"""The workers of one host in one attempt."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bc2_train.exit_status import PEER_LOST, PREEMPTED
from bc2_train.launch.logs import Log, Tee
from bc2_train.launch.rendezvous import Rendezvous
from bc2_train.launch.restarts import Ending
from bc2_train.launch.silence import Silence
from bc2_train.launch.stacks import stacks
from bc2_train.run_status import ATTEMPT_VARIABLE

GRACE_SECONDS = 10.0
"""How long processes may take to end by themselves after one of them has failed."""

_MOST_STACKS = 2  # of silent ranks that are shown; who waits for another looks like the next


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """One start of the workers of all hosts.

    Attributes:
        name: Random.
        number: Of its logs.
        port: Of host 0, on which the ranks meet: another one each time, so that a rank of an
            earlier attempt reaches nobody.
    """

    name: str
    number: int
    port: int


@dataclass
class _Worker:
    process: subprocess.Popen[bytes]
    log: Log
    tees: list[Tee]

    @property
    def status(self) -> int | None:
        """Its exit status, the negative number of a signal, or None before it ends."""
        return self.process.poll()

    @property
    def failed(self) -> bool:
        """Whether it ended otherwise than it should."""
        return self.status not in (None, 0, PREEMPTED)


class Workers:
    """Starts the workers of this host.

    The first writes to the terminal and to its log, every other to its log alone.

    Args:
        config_file: The resolved configuration.
        run_dir: Where the logs go.
        processes: How many.
        rendezvous: How the hosts find each other.
        attempt: The attempt.
    """

    def __init__(
        self,
        config_file: Path,
        run_dir: Path,
        processes: int,
        rendezvous: Rendezvous,
        attempt: Attempt,
    ) -> None:
        self._workers: dict[int, _Worker] = {}
        self._asked = False
        self.ranks = [rendezvous.node_rank * processes + local for local in range(processes)]
        # Processes that share a host's cores must not each start a thread for every core.
        threads = max(1, (os.cpu_count() or 1) // processes)
        shared = {
            "OMP_NUM_THREADS": str(threads),
            **os.environ,
            "WORLD_SIZE": str(rendezvous.nnodes * processes),
            "MASTER_ADDR": rendezvous.master_addr,
            "MASTER_PORT": str(attempt.port),
            ATTEMPT_VARIABLE: attempt.name,
        }
        for local_rank, rank in enumerate(self.ranks):
            environment = {**shared, "RANK": str(rank), "LOCAL_RANK": str(local_rank)}
            command = [sys.executable, "-m", "bc2_train.worker", str(config_file)]
            log = Log(run_dir, attempt.number, rank)
            self._workers[rank] = _start(command, environment, log, shown=local_rank == 0)

    def stop(self) -> None:
        """Asks all to save and end."""
        self._asked = True
        for worker in self._workers.values():
            worker.process.send_signal(signal.SIGTERM)

    def wait(self, given_up: Callable[[], Ending | None]) -> Ending:
        """Waits until all have ended; after one has failed, ends the others.

        Args:
            given_up: Asked again and again for a reason to end all at once.
        """
        deadline: float | None = None
        ended: set[int] = set()
        while running := {r for r, worker in self._workers.items() if worker.status is None}:
            if (reason := given_up()) is not None:
                failed = any(worker.failed for worker in self._workers.values())
                self.end(at_once=True)
                # What failed here before may be why others gave up.
                return self._conclude(running) if failed else reason
            if deadline is None and any(worker.failed for worker in self._workers.values()):
                deadline = time.monotonic() + GRACE_SECONDS
            if deadline is not None and time.monotonic() > deadline:
                ended = running
                break
            time.sleep(0.1)
        self.end()
        return self._conclude(ended)

    def end(self, *, at_once: bool = False) -> None:
        """Ends what still runs, and whatever else the workers have started.

        Args:
            at_once: Whether they hang, and would not notice being asked to.
        """
        actions = (subprocess.Popen.terminate, subprocess.Popen.kill)[at_once:]
        for action in actions:
            running = [w.process for w in self._workers.values() if w.status is None]
            for process in running:
                action(process)
            deadline = time.monotonic() + GRACE_SECONDS
            while time.monotonic() < deadline and any(p.poll() is None for p in running):
                time.sleep(0.1)
        for worker in self._workers.values():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(worker.process.pid, signal.SIGKILL)
            for tee in worker.tees:
                tee.finish()
            worker.log.close()

    def report(self, silences: list[Silence]) -> Ending:
        """Shows where ranks hang; returns what is to be said of the attempt."""
        host = socket.gethostname()
        first = silences[0]
        message = f"{first} (on {host})"
        if first.condition == "stopped":
            message += "; its process was stopped (SIGSTOP, or a debugger)"
        if others := [silence.rank for silence in silences[1:]]:
            message += f"; silent as well: {', '.join(f'rank {rank}' for rank in others)}"
        sys.stderr.write(f"error: {message}\n")
        for silence in silences[:_MOST_STACKS]:
            worker = self._workers[silence.rank]
            if worker.status is not None:
                continue
            sys.stderr.write(f"  rank {silence.rank} on {host}, {worker.log.path}:\n")
            found = stacks(worker.process.pid, worker.log)
            if worker.tees:
                found = found[:1]  # its stacks have gone to the terminal already
            sys.stderr.writelines(f"    {line}\n" for line in found)
        return Ending(status=1, message=message, victim=first.condition != "stopped")

    def _conclude(self, ended: set[int]) -> Ending:
        """Shows which rank's failure stopped the attempt, if one did."""
        failed = {
            rank: worker.process.returncode
            for rank, worker in self._workers.items()
            if worker.failed and rank not in ended
        }
        if not failed:
            status = max(w.process.returncode for w in self._workers.values())
            return Ending(status=status, asked=self._asked)
        if self._asked and set(failed.values()) <= {-signal.SIGTERM, PEER_LOST}:
            # It came before they listened for it; the newest checkpoint is all that they had.
            return Ending(status=PREEMPTED, asked=True)
        # A rank that lost a peer is a victim, as long as the culprit is on this host.
        causes = {rank: status for rank, status in failed.items() if status != PEER_LOST} or failed
        first = self.ranks[0]
        rank = first if first in causes else next(iter(causes))
        status = causes[rank]
        message = _failure(rank, status)
        if rank != first or status < 0:  # its message has gone to the terminal already
            _show(message, None if rank == first else self._workers[rank].log)
        return Ending(
            status=status if status > 0 else 1,
            message=message,
            victim=status == PEER_LOST,
            asked=self._asked,
        )


def _start(command: list[str], environment: dict[str, str], log: Log, *, shown: bool) -> _Worker:
    process = subprocess.Popen(
        command,
        env=environment,
        stdin=subprocess.PIPE,  # never written to: it closes when this process dies
        stdout=subprocess.PIPE if shown else log.file,
        stderr=subprocess.PIPE if shown else subprocess.STDOUT,
        # A group of its own, so that what a worker has started ends with it.
        process_group=0,
    )
    tees = []
    if shown:
        assert process.stdout is not None
        assert process.stderr is not None
        pipes = ((process.stdout, sys.stdout), (process.stderr, sys.stderr))
        tees = [Tee(source, log, terminal.fileno()) for source, terminal in pipes]
    return _Worker(process, log, tees)


def _failure(rank: int, status: int) -> str:
    how = f"exit status {status}" if status > 0 else signal.Signals(-status).name
    return f"rank {rank} on {socket.gethostname()} ended with {how}"


def _show(message: str, log: Log | None) -> None:
    sys.stderr.write(f"error: {message}\n")
    if log is not None:
        sys.stderr.writelines(f"  {line}\n" for line in log.lines())
        sys.stderr.write(f"hint: the whole log of this rank is {log.path}\n")
