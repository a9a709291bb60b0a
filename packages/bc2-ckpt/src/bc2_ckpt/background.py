"""Work in a thread of its own, of which no more than one piece waits."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import ParamSpec, Self

P = ParamSpec("P")


class Background:
    """Carries out one task after the other; used as a context manager.

    A caller that runs ahead waits for the task before the one that it hands over. What a task
    raises is raised by the next `run` or `wait`, or at the end of the block.
    """

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(max_workers=1)
        self._pending: Future[object] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._pool.shutdown()
        if error is None:
            self.wait()

    def run(self, task: Callable[P, object], *args: P.args, **kwargs: P.kwargs) -> None:
        """Hands a task over."""
        self.wait()
        self._pending = self._pool.submit(task, *args, **kwargs)

    def wait(self) -> None:
        """Returns when every task that was handed over has been carried out."""
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()
