"""How an attempt ended, and whether another one is worth while."""

from __future__ import annotations

import time
from dataclasses import dataclass

from bc2_train.exit_status import PEER_LOST, PREEMPTED

_FIRST_DELAY = 2.0  # seconds
_LONGEST_DELAY = 300.0
_LASTING = 10  # times its delay is how long an attempt must last for the delays to begin anew
_MENDABLE = 2  # what the user can mend ends the same way the next time


@dataclass(frozen=True, kw_only=True)
class Ending:
    """How the workers of a host, or of all hosts, ended.

    Attributes:
        status: 0, `exit_status.PREEMPTED`, or a failure's.
        message: Who failed, and how; empty where nobody did.
        victim: Whether the failure is most likely that of somebody elsewhere.
        asked: Whether the host was asked to end, by SIGTERM.
    """

    status: int
    message: str = ""
    victim: bool = False
    asked: bool = False

    @property
    def failed(self) -> bool:
        """Whether it ended otherwise than it should."""
        return self.status not in (0, PREEMPTED)


@dataclass(frozen=True, kw_only=True)
class Decision:
    """What follows an attempt.

    Attributes:
        status: Exit status of the launchers where there is no restart.
        message: What ended the attempt.
        delay: Seconds until the restart; None = there is none.
    """

    status: int
    message: str
    delay: float | None = None


class Restarts:
    """Decides on restarts, up to a limit, those in quick succession after longer and longer delays.

    Args:
        limit: The most restarts.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._used = 0
        self._delay = _FIRST_DELAY
        self._decided = time.monotonic()

    def decide(self, ending: Ending) -> Decision:
        """Returns what follows an attempt."""
        again = ending.failed and ending.status != _MENDABLE and not ending.asked
        if not again or self._used == self._limit:
            message = ending.message
            if again and self._limit:
                message += f"; there is no restart left, all {self._limit} are used"
            return Decision(status=ending.status, message=message)
        lasted = time.monotonic() - self._decided - self._delay
        quick = self._used > 0 and lasted < _LASTING * self._delay
        self._delay = min(_LONGEST_DELAY, 2 * self._delay) if quick else _FIRST_DELAY
        self._decided = time.monotonic()
        self._used += 1
        return Decision(
            status=ending.status,
            message=f"{ending.message}; restart {self._used} of {self._limit}",
            delay=self._delay,
        )


def joint(endings: list[Ending]) -> Ending:
    """Returns how an attempt ended, from its ends on all hosts in the order in which they came."""
    asked = any(ending.asked for ending in endings)
    failed = [ending for ending in endings if ending.failed]
    if not failed:
        return Ending(status=max(ending.status for ending in endings), asked=asked)
    causes = [ending for ending in failed if not ending.victim] or failed
    # What the user can mend is the reason wherever it is one.
    first = min(causes, key=lambda ending: ending.status != _MENDABLE)
    status = PREEMPTED if asked and all(e.status == PEER_LOST for e in failed) else first.status
    return Ending(status=status, message=first.message, victim=first.victim, asked=asked)
