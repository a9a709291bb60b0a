"""Carries tasks out in several processes of this machine."""

from __future__ import annotations

import multiprocessing
import signal
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnContext
from typing import Any

from bc2_data.errors import DataError
from bc2_data.launchers import Event, Task
from bc2_data.launchers.failure import Failure


class _Done:
    """What a worker sends when a task is finished."""


class _Worker:
    """A process and this side of the pipe to it."""

    def __init__(self, context: SpawnContext) -> None:
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs,), daemon=True)
        self.process.start()
        theirs.close()  # so that reading ends when the worker does
        self._task: Task[Any] | None = None

    def give(self, task: Task[Any]) -> None:
        self._task = task
        with self._raising_if_dead():
            self.connection.send(task)

    def receive(self) -> Any:
        with self._raising_if_dead():
            return self.connection.recv()

    @contextmanager
    def _raising_if_dead(self) -> Iterator[None]:
        try:
            yield
        except (EOFError, OSError) as error:  # at any point of a message
            raise self._died() from error

    def _died(self) -> DataError:
        self.process.join()
        status = self.process.exitcode or 0
        how = f"was killed by {signal.Signals(-status).name}" if status < 0 else f"ended ({status})"
        return DataError(
            f"a worker {how} at work on {self._task}",
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
        workers: dict[object, _Worker] = {}
        try:
            for _ in range(min(self._workers, len(waiting))):
                worker = _Worker(self._context)
                workers[worker.connection] = worker
                worker.give(waiting.popleft())
            while workers:
                for ready in wait([worker.connection for worker in workers.values()]):
                    worker = workers[ready]
                    message = worker.receive()
                    if isinstance(message, Failure):
                        raise message.to_raise()
                    if not isinstance(message, _Done):
                        yield message
                    elif waiting:
                        worker.give(waiting.popleft())
                    else:
                        del workers[ready]
                        worker.connection.close()  # which ends it
                        worker.process.join()
        finally:
            for worker in workers.values():
                worker.process.kill()
            for worker in workers.values():
                worker.process.join()
                worker.connection.close()


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
