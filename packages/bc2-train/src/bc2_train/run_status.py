"""``status.json`` of a run directory: what its launcher knows, from the start to the end.

The launcher of host 0 writes it, or rank 0 where torchrun is the launcher. It names the attempt
whose heartbeats count (`bc2_train.heartbeat`).
"""

from __future__ import annotations

import json
import logging
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from bc2_data import atomic
from bc2_train import schema
from bc2_train.exit_status import PREEMPTED
from bc2_train.process_identity import ProcessIdentity, boot_id, uptime
from bc2_train.records import read_record

log = logging.getLogger(__name__)

ATTEMPT_VARIABLE = "BC2_ATTEMPT"
"""The environment variable with which a launcher names the attempt to its workers."""

State = Literal["running", "restarting", "finished", "failed", "preempted"]


@dataclass(frozen=True, kw_only=True)
class RunStatus:
    """What status.json says.

    Attributes:
        state: ``running`` from before the workers are started until they have ended,
            ``restarting`` while the launcher waits to start them again, or how the run ended.
        attempt: Random name of this start of the workers.
        process: The launcher.
        time: When this was written, in seconds since the epoch.
        uptime: The same in seconds since the boot of the launcher's host.
        exit_status: Of the launcher; None before it ends.
        message: What ended the attempt, where something did.
        slurm_job: Id of the Slurm job in which the launcher runs, where there is one.
    """

    state: State
    attempt: str
    process: ProcessIdentity
    time: float
    uptime: float
    exit_status: int | None = None
    message: str = ""
    slurm_job: str | None = None

    def age(self) -> float:
        """Returns the seconds since this was written, negative where the clock was ahead."""
        if self.process.boot_id == boot_id():
            return uptime() - self.uptime
        return time.time() - self.time


class StatusFile:
    """Writes the status of one run.

    Args:
        run_dir: The run directory, which exists.
    """

    def __init__(self, run_dir: Path) -> None:
        self._path = status_file(run_dir)
        self._process = ProcessIdentity.of_this_process()

    def write(
        self, state: State, attempt: str, *, exit_status: int | None = None, message: str = ""
    ) -> None:
        """Replaces the status; where that is impossible, says so and goes on.

        Args:
            state: See `RunStatus`, as for the others.
            attempt: The attempt that this is about.
            exit_status: Of the launcher.
            message: What ended the attempt.
        """
        status = RunStatus(
            state=state,
            attempt=attempt,
            process=self._process,
            time=time.time(),
            uptime=uptime(),
            exit_status=exit_status,
            message=message,
            slurm_job=os.environ.get("SLURM_JOB_ID"),
        )
        try:
            atomic.write_text(self._path, json.dumps(schema.dump(status)) + "\n")
        except OSError as error:
            log.warning("%s cannot be written: %s", self._path, error)


@dataclass
class Outcome:
    """How an attempt ended, for `recorded` to write down.

    Attributes:
        exit_status: 0, `exit_status.PREEMPTED`, or a failure's.
        message: What ended it.
        restarts: Whether the launcher will start the workers again.
    """

    exit_status: int = 1
    message: str = ""
    restarts: bool = False


@contextmanager
def recorded(run_dir: Path, attempt: str) -> Iterator[Outcome]:
    """Keeps status.json while a block runs the attempt and fills in how it ended.

    Args:
        run_dir: The run directory, which exists.
        attempt: The attempt's name.
    """
    file = StatusFile(run_dir)
    file.write("running", attempt)
    outcome = Outcome()
    try:
        yield outcome
    except BaseException as error:
        outcome.exit_status = getattr(error, "exit_status", 1)
        outcome.message = str(error) or type(error).__name__
        raise
    finally:
        file.write(
            "restarting" if outcome.restarts else _ended(outcome.exit_status),
            attempt,
            exit_status=None if outcome.restarts else outcome.exit_status,
            message=outcome.message,
        )


def new_attempt() -> str:
    """Returns a random name for a start of a run."""
    return secrets.token_hex(8)


def status_file(run_dir: Path) -> Path:
    """Returns where the status of a run is."""
    return run_dir / "status.json"


def read_status(run_dir: Path) -> RunStatus | None:
    """Reads the status of a run; None where there is none.

    Raises:
        TrainError: It is damaged.
        OSError: It cannot be read.
    """
    try:
        return read_record(RunStatus, status_file(run_dir))
    except (FileNotFoundError, NotADirectoryError):
        return None


def _ended(exit_status: int) -> State:
    if exit_status == PREEMPTED:
        return "preempted"
    return "failed" if exit_status else "finished"
