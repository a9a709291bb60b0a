"""Which process wrote something, and whether it is still there."""

from __future__ import annotations

import os
import socket
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Condition = Literal["alive", "stopped", "dead", "rebooted", "unknown"]
"""What became of a process: ``stopped`` is one that SIGSTOP or a debugger holds, ``rebooted`` one
of a host that was started again since, ``unknown`` one that cannot be looked at from here."""


@dataclass(frozen=True, kw_only=True)
class ProcessIdentity:
    """A process of one boot of one host, which no later process is taken for.

    Attributes:
        host: Its host name.
        boot_id: The boot of that host's kernel.
        pid_namespace: Where its number counts: containers of one host have one each.
        pid: Its number, which another process gets some time after it has ended.
        start_ticks: When it started, in clock ticks since the boot: field 22 of proc(5)'s stat.
    """

    host: str
    boot_id: str
    pid_namespace: str
    pid: int
    start_ticks: int

    @classmethod
    def of_this_process(cls) -> ProcessIdentity:
        """Returns the identity of the calling process."""
        _, start_ticks = _stat(os.getpid())
        return cls(
            host=socket.gethostname(),
            boot_id=boot_id(),
            pid_namespace=_pid_namespace(),
            pid=os.getpid(),
            start_ticks=start_ticks,
        )

    def condition(self) -> Condition:
        """Looks at the process from the calling one."""
        if self.boot_id != boot_id():
            return "rebooted" if self.host == socket.gethostname() else "unknown"
        if self.pid_namespace != _pid_namespace():
            return "unknown"
        try:
            state, start_ticks = _stat(self.pid)
        except OSError:
            return _condition_by_signal(self.pid)
        if start_ticks != self.start_ticks or state in "ZXx":
            return "dead"
        return "stopped" if state in "Tt" else "alive"


def boot_id() -> str:
    """Returns what names this boot of this host's kernel."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def uptime() -> float:
    """Returns the seconds since the boot, sleep included; setting the clock does not change it."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def _pid_namespace() -> str:
    return os.readlink("/proc/self/ns/pid")


def _stat(pid: int) -> tuple[str, int]:
    """Returns the state letter and the start time of a process."""
    # The command's name comes before, in brackets, and may itself hold brackets and blanks.
    fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    return fields[0], int(fields[19])


def _condition_by_signal(pid: int) -> Condition:
    """Tells a process that has ended from one that /proc hides, as hidepid does."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return "dead"
    except OSError:
        pass
    return "unknown"
