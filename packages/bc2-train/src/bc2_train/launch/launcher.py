"""The launcher of one host, from the first attempt to the last."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path

from bc2_data.checksum import sha256
from bc2_train.config import RunConfig
from bc2_train.exit_status import PREEMPTED
from bc2_train.launch.hosts import Hosts, ManyHosts, OneHost
from bc2_train.launch.logs import next_number
from bc2_train.launch.meeting import Meeting
from bc2_train.launch.rendezvous import Rendezvous, free_port
from bc2_train.launch.restarts import Decision, Ending, Restarts
from bc2_train.launch.signals import StopSignal
from bc2_train.launch.silence import Watchdog
from bc2_train.launch.workers import Attempt, Workers
from bc2_train.run_status import Outcome, StatusFile, new_attempt, recorded


def launch(
    config_file: Path,
    config: RunConfig,
    processes: int,
    rendezvous: Rendezvous,
    max_restarts: int = 0,
) -> int:
    """Runs the workers of this host to their end and returns an exit status.

    That is 0 where the run reached its end, `exit_status.PREEMPTED` where it saved and ended early.
    After a failure that the user cannot mend, all workers of all hosts start again from the newest
    whole checkpoint, as often as `max_restarts` allows.

    Args:
        config_file: The resolved configuration.
        config: The same; its run directory exists.
        processes: Workers on this host.
        rendezvous: How the hosts find each other.
        max_restarts: The most restarts; of several hosts, the number of host 0 counts.

    Raises:
        TrainError: The hosts do not find each other.
    """
    with StopSignal().listening() as stop:
        with _hosts(config_file, config, processes, rendezvous, max_restarts, stop) as hosts:
            while (attempt := hosts.begin()) is not None:
                workers = _Attempt(config_file, config, processes, rendezvous, attempt)
                decision = workers.run(hosts, stop)
                if decision.delay is None:
                    return decision.status
                sys.stderr.write(f"restart in {decision.delay:.0f} s: {decision.message}\n")
                if stop.wait(decision.delay):
                    _record_preemption(config.run_dir, rendezvous, attempt)
                    break
        return PREEMPTED


class _Attempt:
    """One attempt on this host."""

    def __init__(
        self,
        config_file: Path,
        config: RunConfig,
        processes: int,
        rendezvous: Rendezvous,
        attempt: Attempt,
    ) -> None:
        self._config_file = config_file
        self._config = config
        self._processes = processes
        self._rendezvous = rendezvous
        self._attempt = attempt

    def run(self, hosts: Hosts, stop: StopSignal) -> Decision:
        """Runs the workers to their end, and keeps status.json where this is host 0."""
        keeps_status = self._rendezvous.node_rank == 0
        status = recorded(self._config.run_dir, self._attempt.name) if keeps_status else None
        with status or contextlib.nullcontext(Outcome()) as outcome:
            decision = hosts.conclude(self._run_workers(hosts, stop))
            outcome.exit_status = decision.status
            outcome.message = decision.message
            outcome.restarts = decision.delay is not None
        return decision

    def _run_workers(self, hosts: Hosts, stop: StopSignal) -> Ending:
        config, attempt = self._config, self._attempt
        workers = Workers(
            self._config_file, config.run_dir, self._processes, self._rendezvous, attempt
        )
        watchdog = Watchdog(
            config.run_dir,
            attempt.name,
            workers.ranks,
            hang_timeout=config.launch.hang_timeout,
            patience=config.patience,
        )

        def given_up() -> Ending | None:
            if (trouble := hosts.trouble()) is not None:
                sys.stderr.write(f"error: {trouble.message}\n")
                return trouble
            silences = watchdog.look()
            return workers.report(silences) if silences else None

        try:
            with stop.handed_to(workers.stop):
                return workers.wait(given_up)
        except BaseException:
            workers.end()
            raise


@contextlib.contextmanager
def _hosts(
    config_file: Path,
    config: RunConfig,
    processes: int,
    rendezvous: Rendezvous,
    max_restarts: int,
    stop: StopSignal,
) -> Iterator[Hosts]:
    def start() -> Attempt:
        return Attempt(name=new_attempt(), number=next_number(config.run_dir), port=free_port())

    if rendezvous.nnodes == 1:
        yield OneHost(start, Restarts(max_restarts))
        return
    silence = config.launch.hang_timeout
    digest = sha256(config_file)
    with contextlib.ExitStack() as stack:
        if rendezvous.node_rank == 0:
            meeting = Meeting(
                rendezvous,
                processes=processes,
                config=digest,
                new_attempt=start,
                restarts=Restarts(max_restarts),
                silence=silence,
            )
            stack.callback(meeting.close)
        yield ManyHosts(
            rendezvous,
            processes=processes,
            config=digest,
            restarts=Restarts(max_restarts),
            silence=silence,
            patience=config.patience,
            stop=stop,
        )


def _record_preemption(run_dir: Path, rendezvous: Rendezvous, attempt: Attempt) -> None:
    if rendezvous.node_rank == 0:
        StatusFile(run_dir).write(
            "preempted",
            attempt.name,
            exit_status=PREEMPTED,
            message="it was asked to end while it waited to start again",
        )
