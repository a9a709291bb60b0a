"""Alerts: once per change of state, and never lost."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

TELL = 'cat >> "$BC2_RUN.told"; echo "$BC2_PREVIOUS_STATE>$BC2_STATE" >> "$BC2_RUN.changes"'


def changes(stage: Any) -> list[str]:
    file = Path(f"{stage.run_dir}.changes")
    return file.read_text().splitlines() if file.exists() else []


def told(stage: Any) -> str:
    return Path(f"{stage.run_dir}.told").read_text()


def running(stage: Any) -> None:
    stage.status()
    stage.beat()


def failed(stage: Any) -> None:
    stage.status("failed", message="rank 1 died")
    stage.log("the last line\n")


def test_each_change_is_told_once(stage: Any) -> None:
    for arrange in (running, running, failed, failed, running, failed):
        arrange(stage)
        stage.pulse("--alert", TELL)
    assert changes(stage) == ["running>failed", "failed>running", "running>failed"]


def test_the_message_is_the_answer_with_the_last_log_lines(stage: Any) -> None:
    failed(stage)
    result = stage.pulse("--alert", TELL)
    assert changes(stage) == [">failed"]
    assert told(stage) == result.stdout
    assert "rank 1 died" in result.stdout
    assert result.stdout.endswith("last log lines:\n  the last line\n")


def test_a_run_that_goes_well_from_the_first_pulse_on_is_no_news(stage: Any) -> None:
    running(stage)
    stage.pulse("--alert", TELL)
    assert changes(stage) == []


def test_an_alert_that_failed_is_tried_again(stage: Any) -> None:
    running(stage)
    flag = stage.folder / "mail-works"
    command = f"{TELL}; test -e {flag}"
    stage.pulse("--alert", command)
    failed(stage)
    result = stage.pulse("--alert", command)
    assert "error: the alert command ended with status 1" in result.stderr
    flag.touch()
    for _ in range(2):
        assert stage.pulse("--alert", command).stderr == ""
    assert changes(stage) == ["running>failed"] * 2


def test_a_look_by_hand_takes_no_alert_away(stage: Any) -> None:
    running(stage)
    stage.pulse("--alert", TELL)
    failed(stage)
    stage.pulse()
    stage.pulse("--alert", "true")
    assert changes(stage) == []
    stage.pulse("--alert", TELL)
    assert changes(stage) == ["running>failed"]


def test_a_deleted_run_is_told_once(stage: Any) -> None:
    running(stage)
    stage.pulse("--alert", TELL)
    stage.run_dir.rename(stage.folder / "away")
    for _ in range(2):
        stage.pulse("--alert", TELL)
    assert changes(stage) == ["running>gone"]


def test_without_a_memory_each_pulse_alerts_and_says_why(stage: Any) -> None:
    (stage.folder / "home").write_text("a file where a folder should be")
    failed(stage)
    for _ in range(2):
        result = stage.pulse("--alert", TELL)
        assert result.returncode == 1
        assert "error: pulses cannot remember anything: " in result.stderr
    assert changes(stage) == [">failed"] * 2
    assert "so this may come again: " in told(stage)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"told": 3}', "\0" * 512])
def test_a_damaged_memory_counts_as_none(stage: Any, text: str) -> None:
    failed(stage)
    stage.pulse("--alert", TELL)
    (memory,) = (stage.folder / "home").rglob("run-*.json")
    memory.write_text(text)
    result = stage.pulse("--alert", TELL)
    assert (result.returncode, result.stderr) == (1, "")
    assert changes(stage) == [">failed"] * 2
