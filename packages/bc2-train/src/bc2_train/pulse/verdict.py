"""The verdict over a run, from the evidence alone.

What is believed first: that the run has finished; what Slurm says of the job in which the run was
started; heartbeats that advance; a job that waits; how the run said that it ended; and last what
processes and silence show.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from bc2_train.pulse.durations import show_duration
from bc2_train.pulse.evidence import Evidence, Rank, ranks_named
from bc2_train.pulse.slurm import Job
from bc2_train.run_status import RunStatus

State = Literal["running", "scheduled", "finished", "stalled", "failed", "gone"]
GOOD: tuple[State, ...] = ("running", "scheduled", "finished")
"""The states that need nobody."""


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What a run's state is.

    Attributes:
        state: ``stalled``: it should go on and does not. ``failed``: something says how it ended.
            ``gone``: it has ended, or never was, and nothing says how.
        why: In plain words.
        rank: The rank to look at; None where it is no one's in particular.
    """

    state: State
    why: str
    rank: int | None = None


def judge(evidence: Evidence) -> Verdict:
    """Returns the verdict over a run."""
    status, job, ranks = evidence.status, evidence.job, evidence.ranks
    if _has_finished(evidence):
        return Verdict(state="finished", why="the last iteration is done")
    under_way = _under_way(evidence)
    own_job = job is not None and status is not None and status.slurm_job == job.id
    if job is not None and (own_job or not under_way):
        verdict = _by_job(evidence, job, under_way, own_job)
        if verdict is not None:
            return verdict
    if under_way:
        return Verdict(state="running", why=_progress(ranks))
    if status is not None and status.state != "running":
        return _by_status(evidence, status)
    if ranks:
        return _by_ranks(evidence)
    return _without_ranks(evidence)


def _has_finished(evidence: Evidence) -> bool:
    status, ranks = evidence.status, evidence.ranks
    if status is not None and status.state != "running":
        return status.state == "finished"
    return bool(ranks) and all(rank.beat.phase == "finished" for rank in ranks)


def _under_way(evidence: Evidence) -> bool:
    """Whether every rank that was heard is at work, as far as anybody can tell."""
    status = evidence.status
    if status is not None and status.state != "running":
        return False
    # Ranks end at slightly different times; one that has done its work is no reason to worry.
    working = [rank for rank in evidence.ranks if rank.beat.phase != "finished"]
    return bool(working) and all(rank.goes_on for rank in working)


def _by_job(evidence: Evidence, job: Job, under_way: bool, own_job: bool) -> Verdict | None:
    """Judges by Slurm; None where it leaves the question to the run itself."""
    status = evidence.status
    if job.kind == "queued":
        return Verdict(state="scheduled", why=str(job))
    if job.kind == "held":
        return Verdict(
            state="stalled",
            why=f"{job}: it will not start by itself; scontrol release {job.id}, or requeue it",
        )
    if job.kind == "suspended":
        return Verdict(state="stalled", why=str(job))
    if job.kind == "running" and not under_way:
        return _in_running_job(evidence, job)
    if job.kind == "ended" and (own_job or (status is None and not evidence.ranks)):
        if status is not None and status.state in ("failed", "preempted"):
            return None  # the run's own words say more
        state: State = "gone" if job.state == "COMPLETED" else "failed"
        return Verdict(
            state=state, why=f"{job}, and the run had not finished", rank=_first_lost(evidence)
        )
    return None


def _in_running_job(evidence: Evidence, job: Job) -> Verdict | None:
    """Judges a run whose Slurm job runs though its ranks do not."""
    status = evidence.status
    if job.state == "COMPLETING" and status is not None and status.state == "preempted":
        return Verdict(state="scheduled", why=f"{job} after the run saved and made way")
    elapsed = job.elapsed
    if elapsed is None:
        return None
    of_this_start = status is not None and status.age() < elapsed
    if of_this_start:
        return None
    limit = evidence.limits.of("starting", None)
    if elapsed <= limit:
        return Verdict(
            state="running",
            why=f"{job} since {show_duration(elapsed)}; training has not begun to tell of itself",
        )
    return Verdict(
        state="stalled",
        why=f"{job} since {show_duration(elapsed)}, and training never told of itself",
    )


def _by_status(evidence: Evidence, status: RunStatus) -> Verdict:
    """Judges a run of which the launcher has said that its workers ended."""
    host, launcher = status.process.host, evidence.launcher
    if status.state == "restarting":
        waiting = show_duration(max(status.age(), 0.0))
        if launcher in ("dead", "rebooted"):
            return Verdict(
                state="gone", why=f"its launcher on {host} ended before it could start it again"
            )
        if launcher == "stopped" or status.age() > evidence.limits.of("starting", None):
            return Verdict(
                state="stalled", why=f"a restart on {host} has been pending for {waiting}"
            )
        return Verdict(
            state="scheduled", why=f"the launcher on {host} will start it again: {status.message}"
        )
    at = f" at iteration {_iteration(evidence)}" if evidence.ranks else ""
    ago = f"{show_duration(max(status.age(), 0.0))} ago on {host}"
    if status.state == "preempted":
        return Verdict(
            state="failed",
            why=f"it was asked to end, saved{at} {ago}, and nothing is scheduled to go on: "
            "the same command does",
        )
    culprit = _culprit(evidence, status)
    own_words = next((r.beat.message for r in evidence.ranks if r.beat.rank == culprit), "")
    words = ": ".join(text for text in (status.message, own_words) if text)
    what = words or f"exit status {status.exit_status}"
    return Verdict(state="failed", why=f"it ended{at} {ago}: {what}", rank=culprit)


def _culprit(evidence: Evidence, status: RunStatus) -> int | None:
    """Returns the rank that ended a run; others that failed may only have lost contact with it."""
    named = re.match(r"rank (\d+) on ", status.message)  # as the launcher begins its message
    return int(named[1]) if named else _first_lost(evidence)


def _by_ranks(evidence: Evidence) -> Verdict:
    """Judges a run that should go on by what became of its ranks."""
    ranks = evidence.ranks
    if dead := [rank for rank in ranks if rank.dead]:
        return _by_dead(evidence, dead)
    if failed := [rank for rank in ranks if rank.beat.phase == "failed"]:
        first = failed[0]
        return Verdict(
            state="failed",
            why=f"{_described(first)}: {first.beat.message}",
            rank=first.beat.rank,
        )
    if preempted := [rank for rank in ranks if rank.beat.phase == "preempted"]:
        return Verdict(
            state="failed",
            why=f"{_described(preempted[0])}, saved, and nothing is scheduled to go on: "
            "the same command does",
        )
    # Who waits for another has taken as many steps as that one, or one more.
    silent = sorted(
        (rank for rank in ranks if rank.silent),
        key=lambda rank: (rank.condition != "stopped", rank.beat.iteration, -rank.age),
    )
    first = silent[0]
    held = {
        "stopped": "; its process is stopped (SIGSTOP, or a debugger)",
        "alive": "; its process is there",
    }.get(first.condition, "; its process cannot be looked at from here")
    others = [rank.beat.rank for rank in silent[1:]]
    also = f"; silent as well: {ranks_named(others)}" if others else ""
    return Verdict(
        state="stalled",
        why=f"{_described(first)}, longer than {show_duration(first.limit)}{held}{also}",
        rank=first.beat.rank,
    )


def _by_dead(evidence: Evidence, dead: list[Rank]) -> Verdict:
    first, host = dead[0], dead[0].beat.process.host
    if first.condition == "rebooted":
        return Verdict(
            state="gone",
            why=f"{host} was started again since; {_described(first)}",
            rank=first.beat.rank,
        )
    if len(dead) < len(evidence.ranks):
        names = ranks_named([rank.beat.rank for rank in dead])
        return Verdict(
            state="failed",
            why=f"{names} died without a word while others live; {_described(first)}",
            rank=first.beat.rank,
        )
    return Verdict(
        state="gone",
        why=f"its processes on {host} died without a word: killed, or out of memory; "
        f"{_described(first)}",
        rank=first.beat.rank,
    )


def _without_ranks(evidence: Evidence) -> Verdict:
    """Judges a run of which no rank was heard."""
    status = evidence.status
    if status is None:
        what = "nothing was started in it" if evidence.exists else "there is no such directory"
        return Verdict(state="gone", why=what)
    host, age = status.process.host, status.age()
    if evidence.launcher == "dead":
        return Verdict(state="gone", why=f"its launcher on {host} died before a rank was heard")
    limit = evidence.limits.of("starting", None)
    if evidence.launcher == "rebooted" and age > limit:
        return Verdict(state="gone", why=f"{host} was started again before a rank was heard")
    if age > limit:
        return Verdict(
            state="stalled",
            why=f"started {show_duration(age)} ago on {host}, and no rank was heard",
        )
    return Verdict(
        state="running",
        why=f"started {show_duration(max(age, 0.0))} ago on {host}; no rank was heard yet",
    )


def _progress(ranks: tuple[Rank, ...]) -> str:
    """Returns how far a run is, how fast it goes, and when it will be done."""
    last = min(ranks, key=lambda rank: rank.beat.iteration)
    beat = last.beat
    text = f"{beat.phase} on {beat.process.host}, iteration {beat.iteration:,}"
    text += f" of {beat.iterations:,}, last beat {_ago(last)}"
    if beat.step_time:
        left = (beat.iterations - beat.iteration) * beat.step_time
        text += f", {show_duration(beat.step_time)} a step, done in {show_duration(left)}"
    return text


def _described(rank: Rank) -> str:
    beat = rank.beat
    return (
        f"rank {beat.rank} (process {beat.process.pid} on {beat.process.host}) was {beat.phase}, "
        f"iteration {beat.iteration:,} of {beat.iterations:,}, last beat {_ago(rank)}"
    )


def _ago(rank: Rank) -> str:
    return f"{show_duration(max(rank.age, 0.0))} ago"


def _iteration(evidence: Evidence) -> int:
    # Ranks step together; one that beat less lately knows of fewer steps.
    return max(rank.beat.iteration for rank in evidence.ranks)


def _first_lost(evidence: Evidence) -> int | None:
    """Returns the rank that failed, or fell silent, if there is one."""
    lost = [rank for rank in evidence.ranks if rank.beat.phase == "failed"]
    lost = lost or [rank for rank in evidence.ranks if not rank.ended]
    return lost[0].beat.rank if lost else None
