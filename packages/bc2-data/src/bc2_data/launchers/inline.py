"""Carries tasks out in this process, one after the other."""

from __future__ import annotations

from collections.abc import Generator, Sequence

from bc2_data.launchers import Event, Task


class InlineLauncher:
    """The launcher of one worker: it costs nothing to start."""

    def run(self, tasks: Sequence[Task[Event]]) -> Generator[Event, None, None]:
        """Yields what the tasks yield."""
        for task in tasks:
            yield from task
