"""Carries tasks out on a Ray cluster, whose machines share the inputs' and outputs' paths."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Sequence
from typing import Any

from bc2_data.errors import DataError
from bc2_data.launchers import Event, Task
from bc2_data.launchers.failure import Failure


class RayLauncher:
    """Uses the cluster that RAY_ADDRESS names, or starts Ray on this machine.

    Args:
        workers: How many tasks are at the cluster at a time; it carries out as many of them as it
            has CPUs.

    Raises:
        DataError: Ray is not installed.
    """

    def __init__(self, workers: int) -> None:
        try:
            import ray
        except ImportError as error:
            raise DataError(
                "--launcher ray needs Ray, which is not installed", "pip install 'bc2-data[ray]'"
            ) from error
        self._ray = ray
        self._workers = workers

    def run(self, tasks: Sequence[Task[Event]]) -> Generator[Event, None, None]:
        """Yields what the tasks yield, all of a task at once.

        Raises:
            DataError: A task raised it, or Ray cannot carry it out.
        """
        is_ours = not self._ray.is_initialized()
        if is_ours:
            self._ray.init(log_to_driver=False)
        remote = self._ray.remote(_carry_out)
        waiting = deque(tasks)
        under_way: dict[Any, Task[Event]] = {}
        try:
            while waiting or under_way:
                while waiting and len(under_way) < self._workers:
                    task = waiting.popleft()
                    under_way[remote.remote(task)] = task
                (done,), _ = self._ray.wait(list(under_way), num_returns=1)
                yield from self._result(done, under_way.pop(done))
        finally:
            # Ray 2.60 may abort this process where a task ends while it is being cancelled.
            if is_ours:
                self._ray.shutdown()  # which ends what is under way
            elif under_way:
                self._ray.wait(list(under_way), num_returns=len(under_way))

    def _result(self, reference: Any, task: Task[Event]) -> list[Event]:
        try:
            result = self._ray.get(reference)
        except self._ray.exceptions.RayError as error:
            raise DataError(
                f"Ray could not carry out {task}: {error}", "look at the cluster with `ray status`"
            ) from error
        if isinstance(result, Failure):
            raise result.to_raise()
        events: list[Event] = result
        return events


def _carry_out(task: Task[Any]) -> list[Any] | Failure:
    try:
        return list(task)
    except Exception as error:
        return Failure.of(error)
