"""Carries tasks out in several processes of this machine."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import wait
from signal import SIGKILL, Signals
from typing import Any

from bc2_data.errors import DataError
from bc2_data.launchers import Event, Task
from bc2_data.launchers.failure import Failure
from bc2_data.launchers.worker import (
    Done,
    StartContext,
    interrupts_held,
    serve,
    start_context,
)


class _Worker:
    """A process and this side of the pipe to it."""

    def __init__(self, context: StartContext) -> None:
        self.connection, theirs = context.Pipe()
        is_copy = context.get_start_method() == "fork"
        self.process = context.Process(
            target=serve, args=(theirs,), kwargs={"is_copy": is_copy}, daemon=True
        )
        with interrupts_held():
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
        how = f"was killed by {Signals(-status).name}" if status < 0 else f"ended ({status})"
        return DataError(
            f"a worker {how} at work on {self._task}",
            "is the machine out of memory? give fewer --workers, or a smaller --max-row-bytes"
            if status == -SIGKILL
            else "look at what it wrote above",
        )


class ProcessLauncher:
    """Keeps as many workers as it is told, each at one task after the other.

    Args:
        workers: How many.
        prepare: What each task needs to be done before; done here once where the workers inherit
            it, else the first task of each worker sees to it.
    """

    def __init__(self, workers: int, prepare: Callable[[], object]) -> None:
        self._workers = workers
        self._prepare = prepare

    def run(self, tasks: Sequence[Task[Event]]) -> Generator[Event, None, None]:
        """Yields what the tasks yield.

        Raises:
            DataError: A task raised it, or a worker died.
        """
        waiting = deque(tasks)
        workers: dict[object, _Worker] = {}
        try:
            if waiting:
                context = start_context(self._prepare)
            for _ in range(min(self._workers, len(waiting))):
                worker = _Worker(context)
                workers[worker.connection] = worker
                worker.give(waiting.popleft())
            while workers:
                for ready in wait([worker.connection for worker in workers.values()]):
                    worker = workers[ready]
                    message = worker.receive()
                    if isinstance(message, Failure):
                        raise message.to_raise()
                    if not isinstance(message, Done):
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
