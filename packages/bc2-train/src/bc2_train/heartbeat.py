"""The heartbeat of a rank: that it takes steps, told from the thread that takes them.

The contract, for whoever writes or reads it:

- A run directory holds one file a rank, ``heartbeats/rank_N.json``, with the fields of `Beat`.
  ``heartbeat.json`` is a link to that of rank 0.
- The training thread itself writes it, so a rank that hangs falls silent: at the start, after a
  step (at most once a second), around evaluations and saves, and at the end.
- It is replaced whole: a reader sees one beat or the next, never half of one.
- All beats of one start of the run carry the same ``attempt``, which ``status.json`` names
  (`bc2_train.run_status`). Files of an earlier attempt stay until a rank of that number beats
  again; a reader leaves them out.
- How long a rank has been silent is `Beat.age`. It counts by the host's uptime where reader and
  writer share a boot; elsewhere only the clocks of both hosts can tell, and `Beat.count` growing
  between two looks is the surer sign.
- A beat that cannot be written, on a full disk, does not stop training. Its time is then kept in
  the modification time of the last one that could be, which takes no space: `Beat.unwritten`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import math
import os
import statistics
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Literal

from bc2_train import schema
from bc2_train.process_identity import ProcessIdentity, boot_id, uptime
from bc2_train.records import read_record

log = logging.getLogger(__name__)

Phase = Literal["starting", "training", "evaluating", "saving", "finished", "failed", "preempted"]
ENDED: tuple[Phase, ...] = ("finished", "failed", "preempted")
"""The phases after which no beat follows."""

_LEAST_INTERVAL = 1.0  # seconds between two beats of one phase
_RECENT_STEPS = 20  # of which the step time is the median
_FILE_TIME_PRECISION = 2.5  # seconds; the coarsest file system in use, FAT, counts by two


@dataclass(frozen=True, kw_only=True)
class Beat:
    """What one heartbeat says.

    Attributes:
        attempt: Random name of this start of the run.
        rank: Who beats.
        world_size: Of how many.
        process: The rank's process.
        phase: What it has begun, or how it ended.
        iteration: Completed training steps.
        iterations: Those after which the run is finished.
        step_time: Median of recent steps in seconds; None before the first.
        count: Grows with every beat of the attempt.
        time: Seconds since the epoch, by the clock of the rank's host.
        uptime: Seconds since the boot of that host.
        message: What ended a rank whose phase is ``failed``.
        unwritten: Seconds after `time` of the last beat of which no more could be written down.
    """

    attempt: str
    rank: int
    world_size: int
    process: ProcessIdentity
    phase: Phase
    iteration: int
    iterations: int
    step_time: float | None
    count: int
    time: float
    uptime: float
    message: str = ""
    unwritten: float = 0.0

    def age(self) -> float:
        """Returns the seconds since this beat, negative where the writer's clock is ahead."""
        if self.process.boot_id == boot_id():
            return uptime() - self.uptime - self.unwritten
        return time.time() - self.time - self.unwritten


class Heartbeat:
    """Writes the heartbeat of this rank; a block around training also tells how it ended.

    Args:
        run_dir: The run directory, which exists.
        attempt: See `Beat`; ranks that do not share one yet agree on it with `join`.
        rank: Who beats.
        world_size: Of how many.
        iterations: Training steps of the whole run.
    """

    def __init__(
        self, run_dir: Path, *, attempt: str, rank: int, world_size: int, iterations: int
    ) -> None:
        self.attempt = attempt
        self._path = heartbeat_file(run_dir, rank)
        self._rank = rank
        self._world_size = world_size
        self._iterations = iterations
        self._process = ProcessIdentity.of_this_process()
        self._phase: Phase = "starting"
        self._iteration = 0
        self._steps: deque[float] = deque(maxlen=_RECENT_STEPS)
        self._count = 0
        self._tried = -math.inf
        self._written: Beat | None = None
        self._failing = False

    def __enter__(self) -> Heartbeat:
        if self._rank == 0:
            with contextlib.suppress(OSError):  # a link for readers, which training can do without
                (self._path.parents[1] / "heartbeat.json").symlink_to(
                    self._path.relative_to(self._path.parents[1])
                )
        self._write()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is not None:
            self._phase = "failed"
            self._write(str(error) or type(error).__name__)
        elif self._phase not in ENDED:
            self.enter("finished")

    @property
    def iteration(self) -> int:
        """Completed training steps."""
        return self._iteration

    def join(self, attempt: str) -> None:
        """Goes on under the name that all ranks agreed on."""
        self.attempt = attempt
        self._write()

    def enter(self, phase: Phase, iteration: int | None = None) -> None:
        """Beats at the border of a phase.

        Args:
            phase: What begins now, or how the rank ends.
            iteration: Completed training steps, where they are not those of the last beat.
        """
        self._phase = phase
        if iteration is not None:
            self._iteration = iteration
        self._write()

    def step(self, iteration: int, step_time: float) -> None:
        """Beats after a training step, unless it did so within the last second.

        Args:
            iteration: Completed training steps.
            step_time: Seconds that the step took.
        """
        self._iteration = iteration
        self._steps.append(step_time)
        if self._phase != "training":
            self.enter("training")
        else:
            self.beat()

    def beat(self) -> None:
        """Beats within a phase, unless it did so within the last second."""
        if time.monotonic() - self._tried >= _LEAST_INTERVAL:
            self._write()

    def _write(self, message: str = "") -> None:
        self._tried = time.monotonic()
        self._count += 1
        beat = Beat(
            attempt=self.attempt,
            rank=self._rank,
            world_size=self._world_size,
            process=self._process,
            phase=self._phase,
            iteration=self._iteration,
            iterations=self._iterations,
            step_time=statistics.median(self._steps) if self._steps else None,
            count=self._count,
            time=time.time(),
            uptime=uptime(),
            message=message,
        )
        try:
            _replace(self._path, beat)
        except OSError as error:
            self._tell_without_space(beat, error)
            return
        self._written = beat
        if self._failing:
            log.warning("rank %d: its heartbeat can be written again", self._rank)
        self._failing = False

    def _tell_without_space(self, beat: Beat, error: OSError) -> None:
        """Leaves the time of a beat that could not be written; says so, the first time."""
        if not self._failing:
            log.warning(
                "rank %d: its heartbeat cannot be written, training goes on: %s", self._rank, error
            )
        self._failing = True
        last = self._written
        if last is not None:
            moment = last.time + beat.uptime - last.uptime  # whatever became of the clock meanwhile
            with contextlib.suppress(OSError):
                os.utime(self._path, (moment, moment))


def heartbeat_file(run_dir: Path, rank: int) -> Path:
    """Returns where a rank's heartbeat is."""
    return run_dir / "heartbeats" / f"rank_{rank}.json"


def read_beat(path: Path) -> Beat:
    """Reads one heartbeat.

    Raises:
        TrainError: The file is damaged.
        OSError: It cannot be read.
    """
    changed = path.stat().st_mtime
    beat = read_record(Beat, path)
    later = changed - beat.time
    return dataclasses.replace(beat, unwritten=later if later > _FILE_TIME_PRECISION else 0.0)


def _replace(path: Path, beat: Beat) -> None:
    """Writes a beat in place of the last one.

    It is not forced onto the disk, unlike all else that is replaced whole (`bc2_data.atomic`): it
    is worth nothing after a crash, and a busy disk would make the step wait for it.
    """
    path.parent.mkdir(exist_ok=True)  # not its parents: a run that was deleted stays so
    partial = path.with_name(f".{path.name}.partial")
    values = schema.dump(beat)
    del values["unwritten"]
    try:
        partial.write_text(json.dumps(values) + "\n", "utf-8")
        os.utime(partial, (beat.time, beat.time))
        os.replace(partial, path)
    except OSError:
        with contextlib.suppress(OSError):
            partial.unlink()
        raise
