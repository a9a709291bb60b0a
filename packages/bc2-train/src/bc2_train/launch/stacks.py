"""Shows where a process hangs: its Python stacks, and what the kernel says of it."""

from __future__ import annotations

import contextlib
import faulthandler
import os
import signal
import time
from pathlib import Path

from bc2_train.launch.logs import Log

DUMP_SIGNAL = signal.SIGUSR2
"""At which a worker writes the stacks of its threads to stderr."""

_PATIENCE = 5.0  # seconds for the stacks to come
_MOST_LINES = 200
_PARTS_OF_STACKS = ("Thread ", "Current thread ", "  File ", "  ...")


def dump_on_signal() -> None:
    """Makes this process write the Python stacks of all of its threads when it is asked to.

    The handler is in C: it answers while the interpreter waits in a collective or a system call.
    """
    faulthandler.register(DUMP_SIGNAL, all_threads=True)


def stacks(pid: int, log: Log) -> list[str]:
    """Returns the state of a worker and its Python stacks, which go into its log.

    A process that was stopped is made to go on: it could not answer otherwise, and is about to be
    ended.

    Args:
        pid: The worker, which has called `dump_on_signal`.
        log: Where its stderr goes.
    """
    lines = [_state(pid)]
    before = log.size()
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, DUMP_SIGNAL)
        os.kill(pid, signal.SIGCONT)
    deadline = time.monotonic() + _PATIENCE
    found: list[str] = []
    while time.monotonic() < deadline:
        time.sleep(0.2)
        # Once it goes on, it may write other lines as well.
        lines_since = log.lines(since=before, most=_MOST_LINES)
        written = [line for line in lines_since if line.startswith(_PARTS_OF_STACKS)]
        if found and written == found:
            return lines + found
        found = written
    if not found:
        lines.append("it gave no Python stack: it is held inside the kernel, or was starting")
    return lines + found


def _state(pid: int) -> str:
    """Returns what proc(5) says of a process."""
    folder = Path(f"/proc/{pid}")
    try:
        fields = dict(line.split(":\t", 1) for line in (folder / "status").read_text().splitlines())
        state = fields["State"].strip()
    except (OSError, KeyError, ValueError):
        return f"process {pid} is gone"
    text = f"process {pid}, state {state}, {fields.get('Threads', '?').strip()} threads"
    with contextlib.suppress(OSError):
        place = (folder / "wchan").read_text().strip()
        if place and place != "0":
            text += f", waits in {place}"
    return text
