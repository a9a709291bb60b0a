"""Notices ranks whose heartbeat does not advance."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from bc2_train.errors import TrainError
from bc2_train.heartbeat import Beat, Phase, heartbeat_file, read_beat
from bc2_train.process_identity import Condition

_QUIET: tuple[Phase, ...] = ("starting", "saving", "finished", "failed", "preempted")
"""The phases in which a rank beats only at the borders."""

_STEPS = 10  # that a rank may be silent for at least
_INTERVAL = 1.0  # seconds between two looks


@dataclass(frozen=True, kw_only=True)
class Silence:
    """A rank that has been silent for too long.

    Attributes:
        rank: Who.
        seconds: For how long.
        limit: How long would have been right.
        beat: The last heartbeat; None where none was heard.
        condition: What has become of its process.
    """

    rank: int
    seconds: float
    limit: float
    beat: Beat | None
    condition: Condition

    def __str__(self) -> str:
        if self.beat is None:
            doing = "has not been heard"
        else:
            doing = f"was {self.beat.phase} after step {self.beat.iteration} and silent"
        return f"rank {self.rank} {doing} for {self.seconds:.0f} s, {self.limit:.0f} s at most"


class Watchdog:
    """Watches the heartbeats of the ranks of this host in one attempt.

    Silence is what this process has seen of it. No clock is compared with another's, and the time
    in which this process, or the whole host, was itself stopped does not count.

    Args:
        run_dir: The run directory.
        attempt: The attempt; beats of others do not count.
        ranks: Whom to watch.
        hang_timeout: Seconds of silence while training.
        patience: Seconds in the phases in which a rank beats only at the borders.
    """

    def __init__(
        self,
        run_dir: Path,
        attempt: str,
        ranks: list[int],
        *,
        hang_timeout: float,
        patience: float,
    ) -> None:
        self._run_dir = run_dir
        self._attempt = attempt
        self._hang_timeout = hang_timeout
        self._patience = patience
        self._beats: dict[int, Beat | None] = dict.fromkeys(ranks)
        self._silent = dict.fromkeys(ranks, 0.0)
        self._looked = time.monotonic()

    def look(self) -> list[Silence]:
        """Returns the ranks that hang, the one that most likely holds up the others first."""
        elapsed = time.monotonic() - self._looked
        if elapsed < _INTERVAL:
            return []
        self._looked = time.monotonic()
        for rank in self._beats:
            beat = self._read(rank)
            if beat is not None and beat != self._beats[rank]:
                self._beats[rank] = beat
                self._silent[rank] = 0.0
            else:
                self._silent[rank] += min(elapsed, 2 * _INTERVAL)
        silences = [self._silence(rank) for rank in self._beats]
        return sorted(
            (silence for silence in silences if silence.seconds > silence.limit),
            # Who waits for another has taken as many steps as that one, or one more.
            key=lambda silence: (
                silence.condition != "stopped",
                silence.beat.iteration if silence.beat else -1,
                -silence.seconds,
            ),
        )

    def _silence(self, rank: int) -> Silence:
        beat = self._beats[rank]
        quiet = beat is None or beat.phase in _QUIET
        limit = self._patience if quiet else self._hang_timeout
        if beat is not None and beat.step_time is not None:
            limit = max(limit, _STEPS * beat.step_time)
        return Silence(
            rank=rank,
            seconds=self._silent[rank],
            limit=limit,
            beat=beat,
            condition=beat.process.condition() if beat else "unknown",
        )

    def _read(self, rank: int) -> Beat | None:
        try:
            beat = read_beat(heartbeat_file(self._run_dir, rank))
        except (OSError, TrainError):
            return None
        return beat if beat.attempt == self._attempt else None
