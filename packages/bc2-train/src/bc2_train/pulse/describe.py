"""A verdict in words for people, and as JSON for programs."""

from __future__ import annotations

from typing import Any

from bc2_train.pulse.evidence import Evidence
from bc2_train.pulse.logs import last_lines, printable
from bc2_train.pulse.verdict import GOOD, Verdict


def in_words(evidence: Evidence, verdict: Verdict) -> list[str]:
    """Returns the lines of the answer; the first one says it all."""
    lines = [f"{verdict.state}: {evidence.run_dir}: {printable(verdict.why)}"]
    lines += [f"note: {printable(note)}" for note in evidence.notes]
    if verdict.state not in GOOD and (log := last_lines(evidence.run_dir, verdict.rank)):
        lines += ["last log lines:", *(f"  {line}" for line in log)]
    return lines


def as_values(evidence: Evidence, verdict: Verdict) -> dict[str, Any]:
    """Returns the answer as what JSON can hold.

    Keys: state, exit_status, run, why, notes, log; attempt, host, iteration, iterations, age and
    step_time (seconds), remaining (seconds): null where unknown; slurm_job (id, state, reason,
    elapsed) or null; ranks (rank, host, pid, phase, iteration, age, limit, process).
    """
    ranks, job, status = evidence.ranks, evidence.job, evidence.status
    slowest = min(ranks, key=lambda rank: rank.beat.iteration, default=None)
    beat = slowest.beat if slowest else None
    left = beat.iterations - beat.iteration if beat else None
    return {
        "state": verdict.state,
        "exit_status": exit_status(verdict),
        "run": str(evidence.run_dir),
        "why": verdict.why,
        "notes": list(evidence.notes),
        "attempt": status.attempt if status else beat.attempt if beat else None,
        "host": beat.process.host if beat else status.process.host if status else None,
        "iteration": beat.iteration if beat else None,
        "iterations": beat.iterations if beat else None,
        "age": slowest.age if slowest else None,
        "step_time": beat.step_time if beat else None,
        "remaining": left * beat.step_time if beat and beat.step_time and left else None,
        "slurm_job": job
        and {"id": job.id, "state": job.state, "reason": job.reason, "elapsed": job.elapsed},
        "ranks": [
            {
                "rank": rank.beat.rank,
                "host": rank.beat.process.host,
                "pid": rank.beat.process.pid,
                "phase": rank.beat.phase,
                "iteration": rank.beat.iteration,
                "age": rank.age,
                "limit": rank.limit,
                "process": rank.condition,
            }
            for rank in ranks
        ],
        "log": [] if verdict.state in GOOD else last_lines(evidence.run_dir, verdict.rank),
    }


def exit_status(verdict: Verdict) -> int:
    """Returns 0 where the run needs nobody."""
    return 0 if verdict.state in GOOD else 1
