"""SIGTERM at a launcher: the workers save and end, and nothing is started any more."""

from __future__ import annotations

import contextlib
import signal
import time
import types
from collections.abc import Callable, Iterator


class StopSignal:
    """Notices SIGTERM and hands it on.

    Attributes:
        requested: Whether it has come.
    """

    def __init__(self) -> None:
        self.requested = False
        self._hand_on: Callable[[], None] = lambda: None

    def wait(self, seconds: float) -> bool:
        """Returns `requested` after some seconds, or as soon as it is so."""
        deadline = time.monotonic() + seconds
        while not self.requested and time.monotonic() < deadline:
            time.sleep(0.1)
        return self.requested

    @contextlib.contextmanager
    def handed_to(self, receive: Callable[[], None]) -> Iterator[None]:
        """Calls `receive` at each signal while a block runs, and at once where it came before."""
        self._hand_on = receive
        try:
            if self.requested:
                receive()
            yield
        finally:
            self._hand_on = lambda: None

    @contextlib.contextmanager
    def listening(self) -> Iterator[StopSignal]:
        """Listens while a block runs."""
        previous = signal.signal(signal.SIGTERM, self._notice)
        try:
            yield self
        finally:
            signal.signal(signal.SIGTERM, previous)

    def _notice(self, number: int, frame: types.FrameType | None) -> None:
        self.requested = True
        self._hand_on()
