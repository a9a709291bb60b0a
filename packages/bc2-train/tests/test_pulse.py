"""What `bc2-train pulse` says, and its exit status, in every situation that it must tell apart."""

from __future__ import annotations

import json
import re
import shutil
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

MINUTE, HOUR = 60.0, 3600.0
EXIT_STATUS = {"running": 0, "scheduled": 0, "finished": 0, "stalled": 1, "failed": 1, "gone": 1}


@dataclass(frozen=True)
class Situation:
    """One row of the table.

    Attributes:
        arrange: Sets it up.
        state: The verdict.
        says: Patterns of which each is in the answer.
        options: Of the command.
    """

    arrange: Callable[[Any], None]
    state: str
    says: tuple[str, ...]
    options: tuple[str, ...]


SITUATIONS: list[Situation] = []


def situation(state: str, *says: str, options: tuple[str, ...] = ()) -> Callable[[Any], Any]:
    """Adds the function that sets a situation up as a row of the table."""

    def add(arrange: Callable[[Any], None]) -> None:
        SITUATIONS.append(Situation(arrange, state, says, options))

    return add


# On this host


@situation("running", r"iteration 7 of 100", r"last beat 3\.\d s ago", r"2\.5 s a step")
def a_run_that_trains(stage):
    stage.status()
    stage.beat()


@situation("running", "starting on ", "iteration 0 of 100")
def a_run_that_has_been_loading_weights_for_20_minutes(stage):
    stage.status(age=20 * MINUTE)
    stage.beat(phase="starting", iteration=0, step_time=None, age=20 * MINUTE)


@situation("running", "no rank was heard yet")
def a_run_that_was_started_just_now(stage):
    stage.status(age=2)


@situation("running", "saving on ")
def a_save_that_takes_20_minutes(stage):
    stage.status()
    stage.beat(phase="saving", age=20 * MINUTE)


@situation("running", "5 min a step")
def a_beat_of_40_minutes_ago_where_a_step_takes_5(stage):
    stage.status(age=HOUR)
    stage.beat(step_time=300.0, age=40 * MINUTE)


@situation(
    "stalled", r"rank 0 .* was training, iteration 7 of 100, last beat 40 min ago", "is there"
)
def a_beat_of_40_minutes_ago_where_a_step_takes_seconds(stage):
    stage.status(age=HOUR)
    stage.beat(age=40 * MINUTE)


@situation("stalled", "longer than 60 s", options=("--stale-after", "1m"))
def a_beat_older_than_the_user_allows(stage):
    stage.status()
    stage.beat(age=70)


@situation(
    "stalled", "rank 1 .* was evaluating, iteration 6", "is stopped", "silent as well: rank 0"
)
def one_rank_that_hangs_and_one_that_waits_for_it(stage):
    stage.status(age=HOUR)
    stage.beat(0, world_size=2, age=10 * MINUTE)
    stage.beat(
        1, world_size=2, age=9 * MINUTE, iteration=6, phase="evaluating", process=stage.stopped()
    )


@situation("stalled", r"^stalled: .*rank 2 .* was saving", options=("--stale-after", "5m"))
def one_rank_of_three_whose_heartbeat_stopped(stage):
    stage.status(age=HOUR)
    stage.beat(0, world_size=3)
    stage.beat(1, world_size=3)
    stage.beat(2, world_size=3, age=10 * MINUTE, phase="saving")


@situation("running", "note: no heartbeat of rank 1")
def one_rank_of_two_that_was_never_heard(stage):
    stage.status()
    stage.beat(0, world_size=2)


@situation("finished")
def a_finished_run(stage):
    stage.status("finished", age=48 * HOUR, process=stage.dead())
    stage.beat(phase="finished", iteration=100, age=48 * HOUR, process=stage.dead())


@situation("finished")
def a_finished_run_whose_launcher_was_killed_before_it_said_so(stage):
    stage.status(process=stage.dead())
    stage.beat(phase="finished", iteration=100, process=stage.dead())


@situation("failed", "rank 1 on h ended with SIGKILL", "last log lines:", r"  the end")
def a_failed_run(stage):
    stage.status("failed", exit_status=1, message="rank 1 on h ended with SIGKILL")
    stage.beat(process=stage.dead())
    stage.log("the beginning\nthe end\n")


@situation("failed", "no space for x", "  of rank 1")
def a_failed_run_names_the_error_and_shows_the_log_of_the_rank(stage):
    stage.status("failed", exit_status=2, message="rank 1 on h ended with exit status 2")
    stage.beat(0, world_size=2, process=stage.dead())
    stage.beat(1, world_size=2, process=stage.dead(), phase="failed", message="no space for x")
    stage.log("of rank 0\n")
    stage.log("of rank 1\n", "logs/rank_1.txt")


@situation("failed", r"iteration 9 .*: rank 1 on h ended with SIGKILL\n", "  of rank 1")
def a_failed_run_shows_the_culprit_not_the_rank_that_lost_contact_with_it(stage):
    stage.status("failed", exit_status=1, message="rank 1 on h ended with SIGKILL")
    stage.beat(0, world_size=2, iteration=9, phase="failed", message="lost", process=stage.dead())
    stage.beat(1, world_size=2, process=stage.dead())
    stage.log("of rank 0\n")
    stage.log("of rank 1\n", "logs/rank_1.txt")


@situation("failed", "saved at iteration 7", "the same command does")
def a_preempted_run_that_nothing_will_start_again(stage):
    stage.status("preempted", exit_status=75)
    stage.beat(phase="preempted", process=stage.dead())


@situation("gone", "died without a word")
def a_run_whose_processes_were_killed(stage):
    stage.status(process=stage.dead())
    stage.beat(process=stage.dead())


@situation("gone", "died without a word")
def a_run_whose_process_number_another_process_has_now(stage):
    stage.status(process=stage.reused())
    stage.beat(process=stage.reused())


@situation("failed", "rank 1 died without a word while others live")
def one_rank_of_two_that_was_killed_just_now(stage):
    stage.status()
    stage.beat(0, world_size=2)
    stage.beat(1, world_size=2, process=stage.dead())


@situation("gone", "died before a rank was heard")
def a_launcher_that_was_killed_at_the_start(stage):
    stage.status(process=stage.dead())


@situation("gone", "was started again since", options=("--stale-after", "1s"))
def a_host_that_was_started_again(stage):
    stage.status(process=stage.of_earlier_boot(), age=HOUR)
    stage.beat(process=stage.of_earlier_boot(), age=HOUR)


@situation("scheduled", "will start it again: rank 3 died")
def a_restart_that_is_pending(stage):
    stage.status("restarting", message="rank 3 died")
    stage.beat(process=stage.dead(), age=90)


@situation("gone", "ended before it could start it again")
def a_restart_whose_launcher_died(stage):
    stage.status("restarting", process=stage.dead())
    stage.beat(process=stage.dead(), age=90)


@situation("stalled", "a restart on .* pending for")
def a_restart_that_never_comes(stage):
    stage.status("restarting", age=HOUR)


# What should fool nobody


@situation("stalled", "no rank was heard")
def a_heartbeat_of_an_earlier_attempt(stage):
    stage.status(age=HOUR)
    stage.beat(attempt="an earlier one", age=1)


@situation("stalled", "rank 0 ", "note: no heartbeat of rank 1")
def a_rank_that_beats_beside_the_old_beat_of_another(stage):
    stage.status(age=HOUR)
    stage.beat(0, world_size=2, age=HOUR)
    stage.beat(1, world_size=2, attempt="an earlier one", age=1)


@situation("running", "iteration 7", "note: status.json is of an earlier start")
def the_status_of_an_earlier_attempt_beside_a_heart_that_beats(stage):
    stage.status("failed", attempt="an earlier one", age=HOUR)
    stage.beat()


@situation("running", r"last beat 3\.\d s ago")
def a_clock_set_forward_by_a_day_since_the_beat(stage):
    stage.status()
    stage.beat(time=time.time() - 24 * HOUR)


@situation("stalled", "last beat 1 h ago")
def a_clock_set_back_by_a_day_since_the_beat(stage):
    stage.status(age=2 * HOUR)
    stage.beat(time=time.time() + 24 * HOUR, age=HOUR)


@situation("running", "note: heartbeats of rank 0 cannot be written")
def a_full_disk_and_a_heart_that_beats(stage):
    stage.status(age=2 * HOUR)
    stage.beat(age=HOUR, unwritten=HOUR - 3)


@situation("stalled", "last beat 50 min ago", "note: heartbeats of rank 0 cannot be written")
def a_full_disk_and_a_heart_that_stopped(stage):
    stage.status(age=2 * HOUR)
    stage.beat(age=HOUR, unwritten=10 * MINUTE)


@situation("running", "iteration 7", "note: .*rank_1.json is damaged")
def a_heartbeat_that_is_half_there(stage):
    stage.status()
    stage.beat(0, world_size=2)
    path = stage.run_dir / "heartbeats" / "rank_0.json"
    (path.parent / "rank_1.json").write_text(path.read_text()[:100])


@situation("running", "note: .*rank_1.json is damaged")
def a_heartbeat_that_is_a_list(stage):
    stage.status()
    stage.beat(0, world_size=2)
    (stage.run_dir / "heartbeats" / "rank_1.json").write_text("[1, 2]")


@situation("gone", "nothing was started in it", "note: .*rank_0.json is damaged")
def a_heartbeat_whose_time_is_no_number(stage):
    stage.beat(uptime=float("nan"))


@situation("running", "iteration 7", "note: .*status.json is damaged")
def a_status_of_zeros(stage):
    stage.beat()
    (stage.run_dir / "status.json").write_bytes(bytes(4096))


@situation("gone", "nothing was started in it")
def an_empty_run_directory(stage):
    stage.run_dir.mkdir()


@situation("gone", "there is no such directory")
def a_run_that_was_deleted(stage):
    stage.beat()
    shutil.rmtree(stage.run_dir)


@situation("running", "iteration 7")
def a_run_started_by_torchrun_before_status_was_written(stage):
    stage.beat()


# On another host


@situation("running", "on node17")
def a_run_on_another_host(stage):
    stage.status(process=stage.elsewhere())
    stage.beat(process=stage.elsewhere())


@situation("stalled", "on node17", "cannot be looked at", options=("--stale-after", "1s"))
def a_silent_run_on_another_host(stage):
    stage.status(process=stage.elsewhere(), age=HOUR)
    stage.beat(process=stage.elsewhere(), age=HOUR)


@situation("running", "last beat 0.0 s ago", options=("--stale-after", "10s"))
def a_run_on_another_host_whose_clock_is_an_hour_behind(stage):
    stage.status(process=stage.elsewhere(), age=HOUR)
    process = stage.elsewhere()
    stage.beat(process=process, age=HOUR)
    threading.Timer(1.5, lambda: stage.beat(process=process, age=HOUR - 1, count=10)).start()


@situation("running", "clock of the run's host is 36.. s ahead", options=("--stale-after", "1s"))
def a_run_on_another_host_whose_clock_is_an_hour_ahead(stage):
    stage.status(process=stage.elsewhere(), age=HOUR)
    stage.beat(process=stage.elsewhere(), age=-HOUR)


# Under Slurm


@situation("scheduled", r"Slurm job 12 is PENDING \(Resources\)", options=("--slurm-job", "big"))
def a_job_that_waits(stage):
    stage.squeue("12|PENDING|0:00|Resources")


@situation("scheduled", "CONFIGURING", options=("--slurm-job", "big"))
def a_job_whose_nodes_boot(stage):
    stage.squeue("12|CONFIGURING|0:03|None")


@situation("scheduled", "PENDING")
def a_preempted_run_whose_job_was_requeued(stage):
    stage.status("preempted", exit_status=75, slurm_job="12", process=stage.elsewhere())
    stage.beat(phase="preempted", process=stage.elsewhere())
    stage.squeue("12|PENDING|0:00|BeginTime")


@situation("scheduled", "REQUEUED")
def a_run_on_a_node_that_failed_beats_no_more_but_looks_young(stage):
    stage.status(slurm_job="12", process=stage.elsewhere())
    stage.beat(process=stage.elsewhere())
    stage.squeue("12|REQUEUED|0:00|None")


@situation("scheduled", "COMPLETING after the run saved")
def a_preempted_run_whose_job_is_being_requeued(stage):
    stage.status("preempted", exit_status=75, slurm_job="12", process=stage.elsewhere(), age=5)
    stage.squeue("12|COMPLETING|1:00:00|None")


@situation("stalled", "will not start by itself")
def a_job_that_was_requeued_but_held(stage):
    stage.status("failed", slurm_job="12", process=stage.elsewhere())
    stage.squeue("12|REQUEUE_HOLD|0:00|None")


@situation("stalled", "JobHeldUser", "scontrol release 12", options=("--slurm-job", "12"))
def a_job_that_somebody_holds(stage):
    stage.squeue("12|PENDING|0:00|JobHeldUser")


@situation("stalled", "SUSPENDED")
def a_job_that_is_suspended(stage):
    stage.status(slurm_job="12", process=stage.elsewhere())
    stage.beat(process=stage.elsewhere())
    stage.squeue("12|SUSPENDED|1:00:00|None")


@situation("running", "iteration 7")
def a_job_that_runs(stage):
    stage.status(slurm_job="12", process=stage.elsewhere())
    stage.beat(process=stage.elsewhere())
    stage.squeue("12|RUNNING|2-01:00:00|None")


@situation("running", "RUNNING since 60 s", options=("--slurm-job", "12"))
def a_job_that_has_just_begun(stage):
    stage.run_dir.mkdir()
    stage.squeue("12|RUNNING|1:00|None")


@situation("running", "RUNNING since 60 s")
def a_requeued_job_that_runs_again_beside_the_old_failure(stage):
    stage.status("failed", slurm_job="12", age=HOUR, process=stage.elsewhere())
    stage.beat(phase="failed", age=HOUR, process=stage.elsewhere())
    stage.squeue("12|RUNNING|1:00|None")


@situation("failed", "the disk is full")
def a_run_that_failed_in_a_job_that_still_runs(stage):
    stage.status("failed", slurm_job="12", message="the disk is full", process=stage.elsewhere())
    stage.squeue("12|RUNNING|1:00:00|None")


@situation("stalled", "never told of itself", options=("--slurm-job", "12"))
def a_job_that_runs_for_hours_and_trains_nothing(stage):
    stage.run_dir.mkdir()
    stage.squeue("12|RUNNING|5:00:00|None")


@situation("stalled", "rank 0 .* on node17", options=("--stale-after", "1s"))
def a_silent_run_in_a_job_that_runs(stage):
    stage.status(slurm_job="12", process=stage.elsewhere(), age=HOUR)
    stage.beat(process=stage.elsewhere(), age=HOUR)
    stage.squeue("12|RUNNING|2:00:00|None")


@situation("finished")
def a_finished_run_whose_job_completed(stage):
    stage.status("finished", slurm_job="12", process=stage.elsewhere())
    stage.squeue("12|COMPLETED|2:00:00|None")


@situation("gone", "COMPLETED, and the run had not finished")
def a_job_that_completed_without_its_run(stage):
    stage.status(slurm_job="12", process=stage.elsewhere())
    stage.beat(process=stage.elsewhere())
    stage.squeue()
    stage.sacct("12|COMPLETED|7200|None")


def _ended_job(state: str) -> Callable[[Any], None]:
    def arrange(stage: Any) -> None:
        stage.status(slurm_job="12", process=stage.elsewhere())
        stage.beat(process=stage.elsewhere())
        stage.squeue()
        stage.sacct(f"12|{state}|7200|None")

    arrange.__name__ = f"a_job_that_sacct_calls_{state}"
    return arrange


for _state in (
    "FAILED",
    "CANCELLED by 1000",
    "TIMEOUT",
    "NODE_FAIL",
    "PREEMPTED",
    "OUT_OF_MEMORY",
    "BOOT_FAIL",
    "DEADLINE",
):
    situation("failed", f"Slurm job 12 is {_state.split()[0]}")(_ended_job(_state))


@situation(
    "running", "note: Slurm cannot be asked: squeue: No such file", options=("--slurm-job", "x")
)
def no_squeue_on_this_host(stage):
    stage.status(process=stage.elsewhere())
    stage.beat(process=stage.elsewhere())


@situation(
    "running", "note: Slurm cannot be asked: squeue: slurm_load_jobs error: Unable to contact"
)
def a_controller_that_is_down(stage):
    stage.status(slurm_job="12", process=stage.elsewhere())
    stage.beat(process=stage.elsewhere())
    fail = "echo 'slurm_load_jobs error: Unable to contact slurm controller' >&2; exit 1"
    stage.command("squeue", fail)
    stage.command("sacct", fail)


@situation("gone", "note: Slurm knows no job 12", options=("--slurm-job", "12"))
def a_job_that_slurm_has_forgotten(stage):
    stage.run_dir.mkdir()
    stage.command("squeue", "echo 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1")
    stage.sacct()


@situation("running", "iteration 7", options=("--slurm-job", "other"))
def an_old_failed_job_of_that_name_beside_a_run_by_hand(stage):
    stage.status()
    stage.beat()
    stage.squeue("11|FAILED|1:00|None")


@pytest.mark.parametrize("row", [pytest.param(row, id=row.arrange.__name__) for row in SITUATIONS])
def test_pulse_tells(stage: Any, row: Situation) -> None:
    row.arrange(stage)
    result = stage.pulse(*row.options)
    assert result.stdout.startswith(f"{row.state}: {stage.run_dir}: "), result
    assert result.returncode == EXIT_STATUS[row.state]
    assert result.stderr == ""
    for pattern in row.says:
        assert re.search(pattern, result.stdout), result.stdout


def test_the_table_has_every_state_and_more_than_fifteen_rows() -> None:
    assert {row.state for row in SITUATIONS} == set(EXIT_STATUS)
    names = [row.arrange.__name__ for row in SITUATIONS]
    assert len(names) == len(set(names)) > 15


def test_json_holds_what_the_words_say(stage: Any) -> None:
    stage.status("failed", exit_status=1, message="rank 1 died", slurm_job="12")
    stage.beat(world_size=2, phase="failed", message="oh", age=20)
    stage.beat(1, world_size=2, iteration=6, process=stage.stopped(), age=30)
    stage.log("one\n\x1b[2Jtwo\n")
    stage.squeue("12|FAILED|1:00|NonZeroExitCode")
    result = stage.pulse("--json")
    assert result.returncode == 1
    values = json.loads(result.stdout)
    assert values["state"] == "failed"
    assert values["exit_status"] == 1
    assert (values["iteration"], values["iterations"], values["step_time"]) == (6, 100, 2.5)
    assert values["remaining"] == 94 * 2.5
    assert values["age"] == pytest.approx(30, abs=5)
    assert values["slurm_job"] == {
        "id": "12",
        "state": "FAILED",
        "reason": "NonZeroExitCode",
        "elapsed": 60.0,
    }
    assert [(r["rank"], r["phase"], r["process"]) for r in values["ranks"]] == [
        (0, "failed", "alive"),
        (1, "training", "stopped"),
    ]
    assert values["log"] == ["one", " [2Jtwo"]


def test_what_an_earlier_pulse_saw_outweighs_the_clock_of_another_host(stage: Any) -> None:
    stage.status(process=stage.elsewhere())
    process = stage.elsewhere()
    stage.beat(process=process, age=-HOUR)  # its clock is ahead, so its age cannot be known
    assert stage.pulse("--stale-after", "1s").stdout.startswith("running: ")
    time.sleep(1.2)
    result = stage.pulse("--stale-after", "1s")
    assert result.stdout.startswith("stalled: "), result.stdout


def test_every_goes_on_until_the_run_has_finished(stage: Any) -> None:
    stage.status()
    stage.beat()
    finish = threading.Timer(1.5, lambda: stage.status("finished"))
    finish.start()
    result = stage.pulse("--every", "1s")
    assert result.returncode == 0
    states = [line.partition(":")[0] for line in result.stdout.splitlines()]
    assert states[0] == "running"
    assert states[-1] == "finished"
    assert states.count("finished") == 1


@pytest.mark.parametrize("text", ["20", "m", "0s", "-1m", "1w"])
def test_a_duration_that_is_none_is_refused(stage: Any, text: str) -> None:
    result = stage.pulse(f"--stale-after={text}")
    assert result.returncode == 2
    assert text in result.stderr
