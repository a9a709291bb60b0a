"""Ends a run at a step boundary when the system asks for it."""

from __future__ import annotations

import signal
import types


class StopRequest:
    """Notices SIGTERM, which Slurm sends before it takes a node away, without acting on it.

    The loop asks at each step boundary, saves, and ends.
    """

    def __init__(self) -> None:
        self.requested = False
        signal.signal(signal.SIGTERM, self._notice)

    def _notice(self, number: int, frame: types.FrameType | None) -> None:
        self.requested = True


class Preempted(Exception):  # noqa: N818 - it ends a run as asked, it is no error
    """The run saved its state and ended because it was asked to."""
