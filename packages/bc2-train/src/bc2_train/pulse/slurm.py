"""What Slurm says of a job: squeue for those it still has, sacct for those long ended."""

from __future__ import annotations

import getpass
import re
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

Kind = Literal["running", "queued", "held", "suspended", "ended", "unknown"]

_KINDS: dict[Kind, frozenset[str]] = {
    "running": frozenset({"RUNNING", "COMPLETING", "STAGE_OUT", "SIGNALING", "RESIZING"}),
    "queued": frozenset({"PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_FED", "EXPEDITING"}),
    "held": frozenset({"REQUEUE_HOLD", "SPECIAL_EXIT", "RESV_DEL_HOLD"}),
    "suspended": frozenset({"SUSPENDED", "STOPPED"}),
    "ended": frozenset(
        {
            "BOOT_FAIL",
            "CANCELLED",
            "COMPLETED",
            "DEADLINE",
            "FAILED",
            "LAUNCH_FAILED",
            "NODE_FAIL",
            "OUT_OF_MEMORY",
            "PREEMPTED",
            "RECONFIG_FAIL",
            "REVOKED",
            "TIMEOUT",
        }
    ),
}
_NEVER_STARTS = frozenset({"JobHeldUser", "JobHeldAdmin", "DependencyNeverSatisfied"})
"""Reasons for which a pending job waits until a person acts."""

_TIMEOUT = 60.0  # seconds; a controller that does not answer keeps squeue waiting far longer


class SlurmUnavailableError(Exception):
    """Slurm cannot be asked."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """One job.

    Attributes:
        id: Its number, of an array with ``_`` and the task's.
        state: Such as ``RUNNING``, see squeue(1), "JOB STATE CODES".
        reason: Why it waits; ``None`` or empty where it does not.
        elapsed: Seconds since it was started; None where Slurm did not say.
    """

    id: str
    state: str
    reason: str
    elapsed: float | None

    @property
    def kind(self) -> Kind:
        """What the state means for a run."""
        if self.state == "PENDING" and self.reason in _NEVER_STARTS:
            return "held"
        return next((kind for kind, states in _KINDS.items() if self.state in states), "unknown")

    def __str__(self) -> str:
        reason = f" ({self.reason})" if self.reason not in ("", "None") else ""
        return f"Slurm job {self.id} is {self.state}{reason}"


def find_job(name: str) -> Job | None:
    """Returns the job of an id, or of this user the job of a name that matters most.

    That is one that runs, else one that waits, else the newest that has ended.

    Raises:
        SlurmUnavailableError: Neither squeue nor sacct can say.
    """
    by_id = re.fullmatch(r"\d+(_\d+)?", name) is not None
    queue = ["--jobs", name] if by_id else ["--name", name, "--user", getpass.getuser()]
    try:
        jobs = _squeue(queue)
    except SlurmUnavailableError as error:
        try:
            jobs = _sacct(queue)
        except SlurmUnavailableError:
            raise error from None  # sacct is absent in many places; squeue is in all of them
    else:
        if not jobs:
            try:
                jobs = _sacct(queue)
            except SlurmUnavailableError:  # no accounting here: the job is one that squeue forgot
                return None
    return min(jobs, key=_by_weight, default=None)


def _squeue(which: Sequence[str]) -> list[Job]:
    command = ["squeue", "--noheader", "--states=all", "--format=%i|%T|%M|%r", *which]
    try:
        return _parse(_output(command), _clock_time)
    except SlurmUnavailableError as error:
        if "Invalid job id" in str(error):
            return []
        raise


def _sacct(which: Sequence[str]) -> list[Job]:
    fields = "--format=JobID,State,ElapsedRaw,Reason"
    since = "--starttime=now-60days"
    return _parse(
        _output(["sacct", "--noheader", "--parsable2", "--allocations", fields, since, *which]),
        _seconds,
    )


def _output(command: Sequence[str]) -> str:
    try:
        result = subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=_TIMEOUT, check=False
        )
    except subprocess.TimeoutExpired:
        raise SlurmUnavailableError(f"{command[0]} has not answered for {_TIMEOUT:.0f} s") from None
    except OSError as error:
        raise SlurmUnavailableError(f"{command[0]}: {error.strerror}") from None
    if result.returncode:
        said = result.stderr.strip() or f"exit status {result.returncode}"
        raise SlurmUnavailableError(f"{command[0]}: {said}")
    return result.stdout


def _parse(text: str, elapsed: Callable[[str], float | None]) -> list[Job]:
    jobs = []
    for line in text.splitlines():
        fields = line.strip().split("|")
        if len(fields) != 4:
            continue
        # sacct says "CANCELLED by 1000".
        state = fields[1].split()[0].rstrip("+") if fields[1].strip() else ""
        jobs.append(Job(id=fields[0], state=state, elapsed=elapsed(fields[2]), reason=fields[3]))
    return jobs


def _clock_time(text: str) -> float | None:
    """Reads ``[days-][hours:]minutes:seconds``."""
    match = re.fullmatch(r"(?:(?:(\d+)-)?(\d+):)?(\d+):(\d+)", text)
    if not match:
        return None
    days, hours, minutes, seconds = (int(part or 0) for part in match.groups())
    return float(((days * 24 + hours) * 60 + minutes) * 60 + seconds)


def _seconds(text: str) -> float | None:
    return float(text) if text.isdecimal() else None


def _by_weight(job: Job) -> tuple[int, int]:
    order: tuple[Kind, ...] = ("running", "suspended", "queued", "held", "unknown", "ended")
    number = re.match(r"\d+", job.id)
    return order.index(job.kind), -int(number[0]) if number else 0
