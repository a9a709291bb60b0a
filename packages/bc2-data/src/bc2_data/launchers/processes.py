"""Carries tasks out in several processes of this machine."""

from __future__ import annotations

import multiprocessing
import signal
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import Any

from bc2_data.errors import DataError
from bc2_data.launchers import Event, Task
from bc2_data.launchers.failure import Failure


class _Done:
    """What a worker sends when a task is finished."""


@dataclass
class _Worker:
    process: SpawnProcess
    task: Task[Any]

    def died(self) -> DataError:
        self.process.join()
        status = self.process.exitcode or 0
        how = f"was killed by {signal.Signals(-status).name}" if status < 0 else f"ended ({status})"
        return DataError(
            f"a worker {how} at work on {self.task}",
            "is the machine out of memory? give fewer --workers, or a smaller --max-row-bytes"
            if status == -signal.SIGKILL
            else "look at what it wrote above",
        )


class ProcessLauncher:
    """Starts each worker afresh, so that it shares no thread and no lock with this process.

    Args:
        workers: How many.
    """

    def __init__(self, workers: int) -> None:
        self._workers = workers
        self._context = multiprocessing.get_context("spawn")

    def run(self, tasks: Sequence[Task[Event]]) -> Generator[Event, None, None]:
        """Yields what the tasks yield.

        Raises:
            DataError: A task raised it, or a worker died.
        """
        waiting = deque(tasks)
        workers: dict[Connection, _Worker] = {}
        try:
            for _ in range(min(self._workers, len(waiting))):
                connection, worker = self._start(waiting.popleft())
                workers[connection] = worker
            while workers:
                for ready in wait(list(workers)):
                    assert isinstance(ready, Connection)
                    message = _receive(ready, workers[ready])
                    if isinstance(message, Failure):
                        raise message.to_raise()
                    if not isinstance(message, _Done):
                        yield message
                    elif waiting:
                        workers[ready].task = waiting.popleft()
                        ready.send(workers[ready].task)
                    else:
                        ready.close()
                        workers.pop(ready).process.join()
        finally:
            for worker in workers.values():
                worker.process.kill()
            for connection, worker in workers.items():
                worker.process.join()
                connection.close()

    def _start(self, task: Task[Any]) -> tuple[Connection, _Worker]:
        ours, theirs = self._context.Pipe()
        process = self._context.Process(target=_serve, args=(theirs,), daemon=True)
        process.start()
        theirs.close()  # so that reading ends when the worker does
        ours.send(task)
        return ours, _Worker(process, task)


def _receive(connection: Connection, worker: _Worker) -> Any:
    try:
        return connection.recv()
    except (EOFError, ConnectionResetError) as error:
        raise worker.died() from error


def _serve(connection: Connection) -> None:
    """Carries out one task after the other until there are no more, or nobody listens."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the process that started this one sees to it
    with suppress(EOFError, BrokenPipeError, ConnectionResetError):
        while True:
            for message in _messages(connection.recv()):
                connection.send(message)


def _messages(task: Task[Any]) -> Iterator[Any]:
    try:
        yield from task
    except Exception as error:
        yield Failure.of(error)
    else:
        yield _Done()
