"""The regular pulse, with scripts in the place of systemctl and crontab."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import pytest

PULSE = (str(Path(sys.executable).with_name("bc2-train")), "pulse")
OTHERS = "MAILTO=me\n0 3 * * * backup # nightly\n"


def install(stage: Any, *options: str) -> Any:
    return stage.run(*PULSE, "install", str(stage.run_dir), *options)


def uninstall(stage: Any) -> Any:
    return stage.run(*PULSE, "uninstall", str(stage.run_dir))


@pytest.fixture
def crontab(stage: Any) -> Path:
    """A cron whose table is this file; absent at first, as that of a new user."""
    file = stage.folder / "crontab.txt"
    stage.command(
        "crontab",
        f'if [ "$1" = - ]; then cat > {file}; elif [ -e {file} ]; then cat {file}\n'
        "else echo 'no crontab for somebody' >&2; exit 1; fi",
    )
    return file


@pytest.fixture
def systemd(stage: Any) -> Path:
    """A systemd of the user's own that notes what it is asked to do in this file."""
    file = stage.folder / "systemctl.txt"
    stage.command("systemctl", f'echo "$@" >> {file}')
    return file


def units(stage: Any) -> list[Path]:
    return sorted((stage.folder / "home" / ".config" / "systemd" / "user").glob("*"))


def test_the_line_in_the_crontab_tells_of_a_failure_in_cron_s_bare_environment(
    stage: Any, crontab: Path
) -> None:
    told = stage.folder / "told of 100% and \"$x\" 'y'"
    alert = f'cat > "{stage.folder}/told of 100% and \\"\\$x\\" \'y\'"'
    result = install(stage, "--alert", alert, "--stale-after", "1h30m")
    assert result.returncode == 0, result.stderr
    (line,) = crontab.read_text().splitlines()
    assert line in result.stdout
    assert line.startswith("7 */1 * * * ")
    assert "--stale-after=5400s" in line
    stage.status("failed", message="rank 1 died")
    command = line.split(None, 5)[5]
    # As cron reads it: the command ends at the first % that has no backslash.
    command = re.split(r"(?<!\\)%", command)[0].replace(r"\%", "%")
    bare = stage.run("/usr/bin/env", "-i", f"HOME={stage.folder}/home", "/bin/sh", "-c", command)
    assert (bare.returncode, bare.stdout, bare.stderr) == (1, "", "")
    assert "rank 1 died" in told.read_text()


def test_other_lines_of_the_crontab_stay(stage: Any, crontab: Path) -> None:
    crontab.write_text(OTHERS)
    install(stage, "--alert", "true")
    install(stage, "--alert", "true", "--every", "10m")
    lines = crontab.read_text().splitlines()
    assert lines[:2] == OTHERS.splitlines()
    assert len(lines) == 3
    assert lines[2].startswith("*/10 * * * * ")
    assert uninstall(stage).returncode == 0
    assert crontab.read_text() == OTHERS
    again = uninstall(stage)
    assert again.returncode == 2
    assert "no pulse of " in again.stderr


def test_a_crontab_that_cannot_be_read_is_not_replaced(stage: Any, crontab: Path) -> None:
    stage.command("crontab", f'echo denied >&2; echo "$@" >> {crontab}; exit 1')
    result = install(stage, "--alert", "true")
    assert result.returncode == 2
    assert "crontab -l failed: denied" in result.stderr
    assert crontab.read_text() == "-l\n"


@pytest.mark.parametrize("period", ["7m", "90m", "45s", "5h"])
def test_a_period_that_cron_has_not(stage: Any, crontab: Path, period: str) -> None:
    result = install(stage, "--alert", "true", "--every", period)
    assert result.returncode == 2
    assert "cron cannot start something every" in result.stderr
    assert not crontab.exists()


def test_a_timer_of_systemd(stage: Any, systemd: Path) -> None:
    result = install(stage, "--alert", 'echo "$BC2_STATE" 100%', "--every", "90m")
    assert result.returncode == 0, result.stderr
    service, timer = units(stage)
    assert service.stem == timer.stem
    assert "OnUnitActiveSec=5400s" in timer.read_text()
    text = service.read_text()
    assert f'ExecStart="{PULSE[0]}" "pulse" "{stage.run_dir}"' in text
    assert r'"--alert=echo \"$$BC2_STATE\" 100%%"' in text
    assert f'Environment="PATH={stage.folder}/bin"' in text
    assert f"--user restart {timer.name}" in systemd.read_text()
    assert uninstall(stage).returncode == 0
    assert units(stage) == []
    assert f"--user disable --now {timer.name}" in systemd.read_text()


def test_a_dry_run_shows_all_and_changes_nothing(stage: Any, systemd: Path, crontab: Path) -> None:
    result = install(stage, "--alert", "true", "--dry-run")
    assert result.returncode == 0
    assert "OnUnitActiveSec=3600s" in result.stdout
    assert result.stdout.endswith("dry run: nothing was changed\n")
    assert units(stage) == []
    assert systemd.read_text() == "--user show-environment\n"


def test_cron_where_systemd_has_no_session_of_the_user(stage: Any, crontab: Path) -> None:
    stage.command("systemctl", "echo 'Failed to connect to bus' >&2; exit 1")
    assert install(stage, "--alert", "true").returncode == 0
    assert crontab.exists()


def test_neither_is_there(stage: Any) -> None:
    result = install(stage, "--alert", "true")
    assert result.returncode == 2
    assert "neither systemd " in result.stderr
    assert "--every 1h" in result.stderr


@pytest.mark.parametrize("options", [(), ("--alert", "one\ntwo")], ids=["none", "two lines"])
def test_an_alert_that_cannot_be_installed(
    stage: Any, crontab: Path, options: tuple[str, ...]
) -> None:
    result = install(stage, *options)
    assert result.returncode == 2
    assert "alert" in result.stderr
    assert not crontab.exists()
