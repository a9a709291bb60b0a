"""Tells a command of the user's each change of a run's state, once."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path

from bc2_data.command import print_error
from bc2_data.errors import Bc2Error
from bc2_train.pulse.memory import Memory, remember
from bc2_train.pulse.verdict import GOOD, State

_TIMEOUT = 60.0  # seconds that an alert may take


def alert_and_remember(
    run_dir: Path, memory: Memory, command: str | None, state: State, message: Sequence[str]
) -> None:
    """Runs the alert command where the state has changed, and keeps all for the next pulse.

    The first pulse alerts of a bad state only: a run that goes well is what everybody expects. An
    alert that fails is tried again by the next pulse. Where nothing can be remembered the command
    runs at every pulse with a bad state, and says why it does: too often is better than never.

    Args:
        run_dir: The run directory.
        memory: What earlier pulses left, and what this one saw.
        command: For the shell, with the message on its stdin and BC2_RUN, BC2_STATE and
            BC2_PREVIOUS_STATE (empty at first) in its environment; None = no alert.
        state: The run's state.
        message: The lines of the answer.
    """
    previous = memory.told.get(command, "") if command else state
    news = state != previous and (previous != "" or state not in GOOD)
    after = memory.having_told(command, state) if command else memory
    unkept = _keep(run_dir, memory if news else after)
    if command is None or not news:
        return
    note = f"note: pulses cannot remember what they told, so this may come again: {unkept}"
    lines = [*message, note] if unkept else message
    if _run(command, lines, BC2_RUN=str(run_dir), BC2_STATE=state, BC2_PREVIOUS_STATE=previous):
        _keep(run_dir, after)


def _keep(run_dir: Path, memory: Memory) -> str:
    """Remembers; returns what kept it from doing so."""
    try:
        remember(run_dir, memory)
    except (OSError, Bc2Error) as error:
        print_error(f"pulses cannot remember anything: {error}", "set XDG_STATE_HOME to a folder")
        return str(error)
    return ""


def _run(command: str, message: Sequence[str], **environment: str) -> bool:
    """Returns whether the command ended well; says so where it did not."""
    process = subprocess.Popen(
        command,
        shell=True,
        stdin=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
        start_new_session=True,
    )
    try:
        process.communicate("".join(f"{line}\n" for line in message), timeout=_TIMEOUT)
    except subprocess.TimeoutExpired:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        what = f"has not ended within {_TIMEOUT:.0f} s"
    else:
        if process.returncode == 0:
            return True
        what = f"ended with status {process.returncode}"
    print_error(f"the alert command {what}: {command}", "the next pulse tries it again")
    return False
