"""What is made of squeue's and sacct's answers; the commands are scripts."""

from __future__ import annotations

from typing import Any

import pytest

from bc2_train.pulse.slurm import Job, SlurmUnavailableError, find_job


@pytest.fixture
def slurm(stage: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    for key, value in stage.environment.items():
        monkeypatch.setenv(key, value)
    return stage


@pytest.mark.parametrize(
    ("state", "kind"),
    [
        ("PENDING", "queued"),
        ("CONFIGURING", "queued"),
        ("REQUEUED", "queued"),
        ("REQUEUE_HOLD", "held"),
        ("SPECIAL_EXIT", "held"),
        ("RUNNING", "running"),
        ("COMPLETING", "running"),
        ("SUSPENDED", "suspended"),
        ("COMPLETED", "ended"),
        ("FAILED", "ended"),
        ("CANCELLED", "ended"),
        ("CANCELLED by 1000", "ended"),
        ("CANCELLED+", "ended"),
        ("TIMEOUT", "ended"),
        ("NODE_FAIL", "ended"),
        ("PREEMPTED", "ended"),
        ("OUT_OF_MEMORY", "ended"),
        ("SOMETHING_NEW", "unknown"),
    ],
)
def test_states(slurm: Any, state: str, kind: str) -> None:
    slurm.squeue(f"12|{state}|1:00|None")
    job = find_job("12")
    assert job is not None
    assert job.kind == kind


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0:07", 7.0),
        ("59:59", 3599.0),
        ("1:00:00", 3600.0),
        ("2-03:00:01", 183_601.0),
        ("INVALID", None),
        ("", None),
    ],
)
def test_elapsed_times(slurm: Any, text: str, seconds: float | None) -> None:
    slurm.squeue(f"12|RUNNING|{text}|None")
    assert find_job("12") == Job(id="12", state="RUNNING", reason="None", elapsed=seconds)


@pytest.mark.parametrize(
    ("name", "asked"),
    [
        ("big run", "--name big run --user somebody"),
        ("12", "--jobs 12"),
        ("12_3", "--jobs 12_3"),
    ],
)
def test_a_name_is_asked_as_one_of_this_user_and_an_id_as_an_id(
    slurm: Any, name: str, asked: str
) -> None:
    log = slurm.folder / "asked"
    for tool in ("squeue", "sacct"):
        slurm.command(tool, f'echo "$@" >> {log}')
    find_job(name)
    lines = log.read_text().splitlines()
    assert len(lines) == 2
    assert all(line.endswith(f" {asked}") for line in lines)


def test_of_several_jobs_the_one_that_runs_matters_then_one_that_waits_then_the_newest(
    slurm: Any,
) -> None:
    jobs = ["9|FAILED|1:00|None", "11|FAILED|1:00|None", "10|FAILED|1:00|None"]
    slurm.squeue(*jobs)
    assert find_job("big").id == "11"
    slurm.squeue(*jobs, "8|PENDING|0:00|Dependency")
    assert find_job("big").id == "8"
    slurm.squeue(*jobs, "8|PENDING|0:00|Dependency", "7|RUNNING|1:00|None")
    assert find_job("big").id == "7"


def test_a_dependency_that_cannot_come_true_holds_a_job(slurm: Any) -> None:
    slurm.squeue("12|PENDING|0:00|DependencyNeverSatisfied")
    assert find_job("12").kind == "held"


def test_accounting_alone_is_enough(slurm: Any) -> None:
    slurm.command("squeue", "exit 1")
    slurm.sacct("12|COMPLETED|7200|None")
    assert find_job("12") == Job(id="12", state="COMPLETED", reason="None", elapsed=7200.0)


def test_a_queue_without_accounting_may_know_nothing(slurm: Any) -> None:
    slurm.squeue()
    slurm.command("sacct", "echo 'Slurm accounting storage is disabled' >&2; exit 1")
    assert find_job("big") is None


def test_what_squeue_complains_of_is_told(slurm: Any) -> None:
    slurm.command("squeue", "echo 'no controller' >&2; exit 1")
    with pytest.raises(SlurmUnavailableError, match=r"^squeue: no controller$"):
        find_job("12")


def test_lines_that_are_no_jobs_are_left_out(slurm: Any) -> None:
    slurm.squeue("a warning of the site", "", "12|RUNNING|1:00|None")
    assert find_job("12").id == "12"
