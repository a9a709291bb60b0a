"""Where the tasks of a job are carried out: here, in processes, on a Ray cluster.

A launcher knows nothing of what the tasks do. It carries all of them out, in any order, and yields
what they yield as it comes; the order of the outputs is the business of who asked.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Literal, Protocol, TypeVar, get_args

Event_co = TypeVar("Event_co", covariant=True)
Event = TypeVar("Event")

LauncherName = Literal["local", "ray"]
LAUNCHERS: tuple[LauncherName, ...] = get_args(LauncherName)


class Task(Protocol[Event_co]):
    """Some work: a value that can be pickled. Its text says what it is, in errors."""

    def __iter__(self) -> Iterator[Event_co]:
        """Does the work; yields what is to be known about it."""


class Launcher(Protocol):
    """Carries tasks out."""

    def run(self, tasks: Sequence[Task[Event]]) -> Generator[Event, None, None]:
        """Yields what the tasks yield. Closing the iterator stops what is under way.

        Raises:
            DataError: A task raised it, or a worker died.
        """


def make_launcher(
    name: LauncherName, workers: int, prepare: Callable[[], object] = lambda: None
) -> Launcher:
    """Returns a launcher.

    Args:
        name: One of `LAUNCHERS`.
        workers: How many tasks are carried out at a time.
        prepare: Does beforehand, once, what else the first task of each worker has to do; called
            only where that helps.

    Raises:
        DataError: What the launcher needs is not installed.
    """
    if name == "ray":
        from bc2_data.launchers.ray import RayLauncher

        return RayLauncher(workers)
    if workers > 1:
        from bc2_data.launchers.processes import ProcessLauncher

        return ProcessLauncher(workers, prepare)
    from bc2_data.launchers.inline import InlineLauncher

    return InlineLauncher()
