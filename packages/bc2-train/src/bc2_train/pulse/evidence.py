"""What there is to know of a run: its status, its heartbeats, its processes, its Slurm job."""

from __future__ import annotations

import math
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

from bc2_train.errors import TrainError
from bc2_train.heartbeat import ENDED, Beat, Phase, read_beat
from bc2_train.process_identity import Condition, boot_id, uptime
from bc2_train.pulse.memory import Memory, Sighting, name_of
from bc2_train.pulse.slurm import Job, SlurmUnavailableError, find_job
from bc2_train.run_status import RunStatus, read_status

_SCARCE = 16 << 20  # bytes free under which a disk is called full
_CLOCK_ERROR = 60.0  # seconds by which the clocks of two hosts may differ unnoticed
_LONGEST_WATCH = 120.0  # seconds


@dataclass(frozen=True)
class Limits:
    """How long a rank may be silent.

    Args:
        stale_after: Seconds, in every phase; None = what `of` says.
    """

    stale_after: float | None = None

    def of(self, phase: Phase, step_time: float | None) -> float:
        """Returns the limit in seconds for a phase.

        Before the first step nothing beats while weights are read and kernels compiled, and a save
        beats at its ends only.
        """
        if self.stale_after is not None:
            return self.stale_after
        least = 1800.0 if phase in ("starting", "saving") else 300.0
        return max(least, 10 * (step_time or 0.0))


@dataclass(frozen=True, kw_only=True)
class Rank:
    """One rank, from its last heartbeat.

    Attributes:
        beat: That heartbeat.
        condition: What became of its process.
        age: Seconds since it last beat, as far as this host can know.
        limit: Seconds after which it should have beaten again.
    """

    beat: Beat
    condition: Condition
    age: float
    limit: float

    @property
    def ended(self) -> bool:
        """Whether it said itself that no beat follows."""
        return self.beat.phase in ENDED

    @property
    def silent(self) -> bool:
        """Whether a beat is overdue."""
        return not self.ended and self.age > self.limit

    @property
    def dead(self) -> bool:
        """Whether its process is gone although it did not say that it ended.

        The host's restart is known by its name alone, which two hosts may share: the beat must be
        overdue as well.
        """
        if self.ended:
            return False
        return self.condition == "dead" or (self.condition == "rebooted" and self.silent)

    @property
    def goes_on(self) -> bool:
        """Whether it is at work as far as anybody can tell."""
        return not (self.ended or self.silent or self.dead)


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """All that is known of a run at one moment.

    Attributes:
        run_dir: The run directory.
        exists: Whether there is such a directory.
        status: What its launcher said; None where that is unknown.
        launcher: What became of the launcher.
        ranks: The ranks of the current attempt that were heard.
        job: Its Slurm job.
        limits: How long a rank may be silent.
        notes: What could not be found out, and what is odd.
    """

    run_dir: Path
    exists: bool
    status: RunStatus | None
    launcher: Condition
    ranks: tuple[Rank, ...]
    job: Job | None
    limits: Limits
    notes: tuple[str, ...]


def gather(run_dir: Path, *, slurm_job: str | None, limits: Limits, memory: Memory) -> Evidence:
    """Looks at everything once; at heartbeats twice where the clocks of two hosts disagree.

    Args:
        run_dir: The run directory.
        slurm_job: Name or id of its Slurm job; None for the one in which it was started, if any.
        limits: How long a rank may be silent.
        memory: What earlier pulses saw.
    """
    notes: list[str] = []
    status = _status(run_dir, notes)
    beats, damaged = _current(run_dir, status)
    notes += damaged
    if status is not None and beats and beats[0].attempt != status.attempt:
        notes.append("status.json is of an earlier start: it could not be written at this one")
        status = None
    ranks = tuple(_rank(beat, limits, memory.sighting(beat.rank)) for beat in beats)
    if doubtful := [rank.beat for rank in ranks if _is_doubtful(rank)]:
        ranks = _watched(run_dir, ranks, doubtful)
    notes += _odd(run_dir, ranks)
    return Evidence(
        run_dir=run_dir,
        exists=run_dir.is_dir(),
        status=status,
        launcher=status.process.condition() if status else "unknown",
        ranks=ranks,
        job=_job(slurm_job or (status.slurm_job if status else None), notes),
        limits=limits,
        notes=tuple(notes),
    )


def _status(run_dir: Path, notes: list[str]) -> RunStatus | None:
    try:
        return read_status(run_dir)
    except (TrainError, OSError) as error:
        notes.append(str(error))
        return None


def _current(run_dir: Path, status: RunStatus | None) -> tuple[list[Beat], list[str]]:
    """Returns the beats of the current attempt by rank, and which files could not be read.

    That attempt is the one that status.json names. Where there is none, or it is about an attempt
    that has ended while rank 0 lives under another name, it is rank 0's.
    """
    beats, damaged = [], []
    for path in sorted((run_dir / "heartbeats").glob("rank_*.json")):
        try:
            beats.append(read_beat(path))
        except FileNotFoundError:
            continue
        except (TrainError, OSError) as error:
            damaged.append(str(error))
    beats.sort(key=lambda beat: beat.rank)
    attempt = status.attempt if status else None
    if beats and (
        status is None
        or (
            status.state in ENDED
            and beats[0].attempt != attempt
            and beats[0].process.condition() in ("alive", "stopped")
        )
    ):
        attempt = beats[0].attempt
    return [beat for beat in beats if beat.attempt == attempt], damaged


def _rank(beat: Beat, limits: Limits, seen: Sighting | None) -> Rank:
    return Rank(
        beat=beat,
        condition=beat.process.condition(),
        age=_age(beat, seen),
        limit=limits.of(beat.phase, beat.step_time),
    )


def _age(beat: Beat, seen: Sighting | None) -> float:
    """Returns a beat's age; on another host, held within what earlier pulses saw."""
    age = beat.age()
    if seen is None or beat.process.boot_id == boot_id():
        return age
    if seen.beat == name_of(beat):
        return max(age, uptime() - seen.first)
    return min(max(age, 0.0), uptime() - seen.last)


def _is_doubtful(rank: Rank) -> bool:
    """Whether only the clocks of two hosts say that a rank is silent, or they cannot be right."""
    elsewhere = rank.beat.process.boot_id != boot_id()
    return elsewhere and not rank.ended and (rank.silent or rank.age < -_CLOCK_ERROR)


def _watched(run_dir: Path, ranks: tuple[Rank, ...], doubtful: list[Beat]) -> tuple[Rank, ...]:
    """Looks again for the time of some steps: a rank that beats meanwhile is not silent."""
    step_time = max(beat.step_time or 0.0 for beat in doubtful)
    shortest = min(rank.limit for rank in ranks)
    deadline = time.monotonic() + min(_LONGEST_WATCH, shortest, max(5.0, 3 * step_time))
    waiting = {beat.rank: name_of(beat) for beat in doubtful}
    heard: dict[int, Beat] = {}
    while waiting and time.monotonic() < deadline:
        time.sleep(0.5)
        for beat in _current(run_dir, None)[0]:
            if waiting.get(beat.rank, name_of(beat)) != name_of(beat):
                heard[beat.rank] = beat
                del waiting[beat.rank]
    return tuple(
        Rank(beat=heard[r.beat.rank], condition=r.condition, age=0.0, limit=r.limit)
        if r.beat.rank in heard
        else r
        for r in ranks
    )


def _odd(run_dir: Path, ranks: tuple[Rank, ...]) -> list[str]:
    """Returns what a person should know of heartbeats beside the verdict."""
    notes = []
    lost = [rank.beat.rank for rank in ranks if rank.beat.unwritten]
    if lost:
        notes.append(f"heartbeats of {ranks_named(lost)} cannot be written{_space(run_dir)}")
    elif any(rank.silent and rank.condition == "alive" for rank in ranks) and _space(run_dir):
        notes.append(f"a full disk may be all that is wrong{_space(run_dir)}")
    ahead = max((-rank.age for rank in ranks if not rank.ended), default=-math.inf)
    if ahead > _CLOCK_ERROR:
        notes.append(
            f"the clock of the run's host is {ahead:.0f} s ahead of this one's: the next pulse "
            "will tell whether its heartbeat advances"
        )
    if ranks:
        known = {rank.beat.rank for rank in ranks}
        missing = [n for n in range(ranks[0].beat.world_size) if n not in known]
        if missing:
            notes.append(f"no heartbeat of {ranks_named(missing)} in this start of the run")
    return notes


def ranks_named(numbers: list[int]) -> str:
    """Returns ``rank 3``, or ``ranks 1, 2, 3 and 5 more``."""
    shown, rest = numbers[:8], len(numbers) - 8
    text = ", ".join(map(str, shown)) + (f" and {rest} more" if rest > 0 else "")
    return f"rank{'s' if len(numbers) > 1 else ''} {text}"


def _space(run_dir: Path) -> str:
    """Returns how much is free where the run writes, if that is next to nothing."""
    try:
        free = shutil.disk_usage(run_dir).free
    except OSError:
        return ""
    return f": {free / 1e6:.1f} MB are free on its disk" if free < _SCARCE else ""


def _job(name: str | None, notes: list[str]) -> Job | None:
    if name is None:
        return None
    try:
        job = find_job(name)
    except SlurmUnavailableError as error:
        notes.append(f"Slurm cannot be asked: {error}")
        return None
    if job is None:
        notes.append(f"Slurm knows no job {name}")
    return job
