"""A stage on which run directories, processes and Slurm are set up for `bc2-train pulse`."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

ATTEMPT = "0123456789abcdef"
PULSE = [str(Path(sys.executable).with_name("bc2-train")), "pulse"]


@dataclass
class Stage:
    """A run directory filled by hand, in the format that others read and write.

    Attributes:
        folder: Where everything is.
        environment: Of the commands that are run.
    """

    folder: Path
    environment: dict[str, str]
    _processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def run_dir(self) -> Path:
        return self.folder / "run"

    def beat(
        self, rank: int = 0, *, age: float = 3.0, unwritten: float = 0.0, **changes: Any
    ) -> None:
        """Writes a heartbeat of some seconds ago; `changes` replaces fields of it."""
        values = {
            "attempt": ATTEMPT,
            "rank": rank,
            "world_size": 1,
            "phase": "training",
            "iteration": 7,
            "iterations": 100,
            "step_time": 2.5,
            "count": 9,
            "time": time.time() - age,
            "uptime": _uptime() - age,
            "message": "",
            **changes,
        }
        values["process"] = changes.get("process") or self.alive()
        path = self.run_dir / "heartbeats" / f"rank_{rank}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(values))
        moment = values["time"] + unwritten
        os.utime(path, (moment, moment))

    def status(self, state: str = "running", *, age: float = 60.0, **changes: Any) -> None:
        """Writes status.json of some seconds ago."""
        values = {
            "state": state,
            "attempt": ATTEMPT,
            "time": time.time() - age,
            "uptime": _uptime() - age,
            "exit_status": None,
            "message": "",
            "slurm_job": None,
            **changes,
        }
        values["process"] = changes.get("process") or self.alive()
        self.run_dir.mkdir(exist_ok=True)
        (self.run_dir / "status.json").write_text(json.dumps(values))

    def log(self, text: str, name: str = "log.txt") -> None:
        path = self.run_dir / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def command(self, name: str, script: str) -> None:
        """Puts a shell script on the PATH."""
        path = self.folder / "bin" / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    def squeue(self, *jobs: str) -> None:
        """Makes squeue know these jobs: ``id|STATE|elapsed|reason``."""
        self.command("squeue", "".join(f"echo '{job}'\n" for job in jobs) or "true")

    def sacct(self, *jobs: str) -> None:
        self.command("sacct", "".join(f"echo '{job}'\n" for job in jobs) or "true")

    def alive(self) -> dict[str, Any]:
        """Starts a process; returns its identity."""
        process = subprocess.Popen(["sleep", "600"])
        self._processes.append(process)
        return identity(process.pid)

    def stopped(self) -> dict[str, Any]:
        process = self.alive()
        os.kill(process["pid"], signal.SIGSTOP)
        return process

    def dead(self) -> dict[str, Any]:
        process = self.alive()
        self._processes[-1].kill()
        self._processes[-1].wait()
        return process

    def reused(self) -> dict[str, Any]:
        """Returns the identity of a process that is dead, with the number of one that lives."""
        process = self.alive()
        return {**process, "start_ticks": process["start_ticks"] - 1}

    def elsewhere(self) -> dict[str, Any]:
        """Returns the identity of a process on another host."""
        return {**self.alive(), "host": "node17", "boot_id": "another"}

    def of_earlier_boot(self) -> dict[str, Any]:
        return {**self.alive(), "boot_id": "the one before"}

    def pulse(self, *options: str) -> subprocess.CompletedProcess[str]:
        return self.run(*PULSE, str(self.run_dir), *options)

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def close(self) -> None:
        for process in self._processes:
            process.kill()
            process.wait()


def identity(pid: int) -> dict[str, Any]:
    """Returns a process's identity as heartbeats and status.json hold it."""
    stat = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return {
        "host": socket.gethostname(),
        "boot_id": Path("/proc/sys/kernel/random/boot_id").read_text().strip(),
        "pid_namespace": os.readlink("/proc/self/ns/pid"),
        "pid": pid,
        "start_ticks": int(stat[19]),
    }


def _uptime() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    """A stage without Slurm, systemd and cron."""
    (tmp_path / "bin").mkdir()
    for tool in ("sleep", "cat", "sh", "env"):
        (tmp_path / "bin" / tool).symlink_to(f"/bin/{tool}")
    environment = {
        "PATH": str(tmp_path / "bin"),
        "HOME": str(tmp_path / "home"),
        "LOGNAME": "somebody",
    }
    stage = Stage(tmp_path, environment)
    yield stage
    stage.close()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 KiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)],
        capture_output=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip(f"cannot mount a small file system: {mounted.stderr.decode().strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)
