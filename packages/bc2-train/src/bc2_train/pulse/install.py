"""Sets up the regular pulse of a run with systemd or cron, whichever this user has."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from bc2_data import atomic
from bc2_train.errors import TrainError
from bc2_train.pulse.durations import show_duration
from bc2_train.pulse.memory import name_of_run

_KEPT_VARIABLES = ("PATH", "XDG_STATE_HOME", "SLURM_CONF")
"""What the pulse needs of the environment in which it is installed."""

_HINT_ELSEWHERE = "bc2-train pulse RUN --every 1h --alert CMD, left running in tmux, does the same"


class Scheduler(Protocol):
    """What starts commands regularly."""

    def plan(self, name: str, command: Sequence[str], period: float) -> list[str]:
        """Returns in lines what `install` would change."""
        ...

    def install(self, name: str, command: Sequence[str], period: float) -> None:
        """Starts a command every `period` seconds, in place of an earlier one of that name."""
        ...

    def uninstall(self, name: str) -> bool:
        """Ends that; returns whether there was something to end."""
        ...


class Systemd:
    """Timers of the user's own systemd."""

    def plan(self, name: str, command: Sequence[str], period: float) -> list[str]:
        """Shows the two unit files; see `Scheduler.plan`."""
        lines = []
        for path, text in self._units(name, command, period).items():
            lines += [f"write {path}:", *(f"  {line}" for line in text.splitlines())]
        return [*lines, f"run systemctl --user enable --now {name}.timer"]

    def install(self, name: str, command: Sequence[str], period: float) -> None:
        """Writes both units and starts the timer; see `Scheduler.install`."""
        for path, text in self._units(name, command, period).items():
            atomic.write_text(path, text)
        _output(["systemctl", "--user", "daemon-reload"])
        _output(["systemctl", "--user", "enable", f"{name}.timer"])
        _output(["systemctl", "--user", "restart", f"{name}.timer"])

    def uninstall(self, name: str) -> bool:
        """Stops the timer and removes both units; see `Scheduler.uninstall`."""
        files = [path for path in self._paths(name) if path.exists()]
        if not files:
            return False
        _output(["systemctl", "--user", "disable", "--now", f"{name}.timer"])
        for path in files:
            path.unlink()
        _output(["systemctl", "--user", "daemon-reload"])
        return True

    def _paths(self, name: str) -> tuple[Path, Path]:
        configuration = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
        folder = Path(configuration) / "systemd" / "user"
        return folder / f"{name}.service", folder / f"{name}.timer"

    def _units(self, name: str, command: Sequence[str], period: float) -> dict[Path, str]:
        service, timer = self._paths(name)
        environment = "".join(
            f"Environment={_systemd_word(f'{key}={value}')}\n" for key, value in _environment()
        )
        words = " ".join(_systemd_word(word).replace("$", "$$") for word in command)
        return {
            service: f"[Unit]\nDescription=Pulse of a bc2 training run\n\n"
            f"[Service]\nType=oneshot\n{environment}ExecStart={words}\n",
            timer: "[Unit]\nDescription=Regular pulse of a bc2 training run\n\n"
            f"[Timer]\nOnActiveSec=0\nOnUnitActiveSec={period:.0f}s\n\n"
            "[Install]\nWantedBy=timers.target\n",
        }


class Cron:
    """Lines of the user's crontab, each marked with its name."""

    def plan(self, name: str, command: Sequence[str], period: float) -> list[str]:
        """Shows the line; see `Scheduler.plan`."""
        return ["add to the crontab:", f"  {self._line(name, command, period)}"]

    def install(self, name: str, command: Sequence[str], period: float) -> None:
        """Adds the line, or replaces it; see `Scheduler.install`."""
        line = self._line(name, command, period)
        self._write([*self._others(name, self._read()), line])

    def uninstall(self, name: str) -> bool:
        """Removes the line; see `Scheduler.uninstall`."""
        lines = self._read()
        others = self._others(name, lines)
        if len(others) == len(lines):
            return False
        self._write(others)
        return True

    def _line(self, name: str, command: Sequence[str], period: float) -> str:
        variables = " ".join(f"{key}={shlex.quote(value)}" for key, value in _environment())
        # The answer itself would be mailed at every pulse: the alert is what tells of it.
        call = f"env {variables} {shlex.join(command)} >/dev/null".replace("%", r"\%")
        _refuse_line_breaks(call)
        return f"{_cron_times(period)} {call} # {name}"

    def _others(self, name: str, lines: list[str]) -> list[str]:
        return [line for line in lines if not line.endswith(f" # {name}")]

    def _read(self) -> list[str]:
        result = subprocess.run(["crontab", "-l"], capture_output=True, text=True, check=False)
        if result.returncode and "no crontab" not in result.stderr:
            raise TrainError(f"crontab -l failed: {result.stderr.strip()}", _HINT_ELSEWHERE)
        return result.stdout.splitlines() if result.returncode == 0 else []

    def _write(self, lines: list[str]) -> None:
        _output(["crontab", "-"], "".join(f"{line}\n" for line in lines))


def find_scheduler() -> Scheduler:
    """Returns what this user has.

    Raises:
        TrainError: Neither a systemd of the user's own nor cron.
    """
    if shutil.which("systemctl") and _answers(["systemctl", "--user", "show-environment"]):
        return Systemd()
    if shutil.which("crontab"):
        return Cron()
    raise TrainError(
        "neither systemd (systemctl --user) nor cron (crontab) is there for this user",
        _HINT_ELSEWHERE,
    )


def pulse_command(run_dir: Path, options: Sequence[str]) -> list[str]:
    """Returns the command line of one pulse that works from anywhere.

    Args:
        run_dir: The run directory.
        options: Options of ``bc2-train pulse``.
    """
    program = Path(sys.executable).with_name("bc2-train")
    return [str(program), "pulse", str(run_dir.resolve()), *options]


def unit_name(run_dir: Path) -> str:
    """Returns the name of a run's pulse among the user's timers."""
    return f"bc2-pulse-{name_of_run(run_dir)}"


def _environment() -> list[tuple[str, str]]:
    return [(key, os.environ[key]) for key in _KEPT_VARIABLES if os.environ.get(key)]


def _systemd_word(text: str) -> str:
    """Quotes a word for a unit file, see systemd.syntax(7) and, for %, systemd.unit(5)."""
    _refuse_line_breaks(text)
    escaped = re.sub(r'([\\"])', r"\\\1", text).replace("%", "%%")
    return f'"{escaped}"'


def _refuse_line_breaks(text: str) -> None:
    if "\n" in text:
        raise TrainError(
            f"{text!r} holds a line break", "put a longer alert into a script and give its path"
        )


def _cron_times(period: float) -> str:
    """Returns the five fields of a crontab for a period in seconds.

    Raises:
        TrainError: Cron has no such period.
    """
    minutes, seconds = divmod(round(period), 60)
    hours, rest = divmod(minutes, 60)
    if seconds == 0 and minutes and 60 % minutes == 0 and hours == 0:
        return f"*/{minutes} * * * *"
    # Not on the hour, when everybody's jobs start.
    if seconds == 0 and rest == 0 and hours and 24 % hours == 0:
        return f"7 */{hours} * * *" if hours < 24 else "7 6 * * *"
    raise TrainError(
        f"cron cannot start something every {show_duration(period)}",
        "choose --every so that it divides an hour or a day: 10m, 30m, 1h, 6h",
    )


def _answers(command: Sequence[str]) -> bool:
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def _output(command: Sequence[str], text: str = "") -> None:
    result = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    if result.returncode:
        raise TrainError(
            f"{shlex.join(command)} failed: {result.stderr.strip()}",
            _HINT_ELSEWHERE,
        )
