"""How a worker process begins, and what it does until nobody has a task for it."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from multiprocessing.context import ForkContext, SpawnContext
from pathlib import Path
from typing import Any

from bc2_data.launchers import Task
from bc2_data.launchers.failure import Failure

# Linux alone has these folders.
_THREADS = Path("/proc/self/task")
_DESCRIPTORS = Path("/proc/self/fd")
_STANDARD_STREAMS = (0, 1, 2)

StartContext = ForkContext | SpawnContext


class Done:
    """What a worker sends when a task is finished."""


def start_context(prepare: Callable[[], object]) -> StartContext:
    """Returns how workers are to be started: as copies of this process, or afresh.

    A copy has all that this process has prepared at once. But a lock that another thread held at
    that moment stays locked in the copy for ever, so it is made only of a process without other
    threads. (Importing pyarrow starts one, NumPy's OpenBLAS starts some unless told not to.)

    Args:
        prepare: What a worker needs before its first task; called if workers will inherit it.
    """
    if _has_one_thread():
        prepare()
        if _has_one_thread():
            return multiprocessing.get_context("fork")
    return multiprocessing.get_context("spawn")


@contextmanager
def interrupts_held() -> Iterator[None]:
    """Makes an interrupt wait until the block ends.

    A process that is started in it never hears one: who started it sees to it.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def serve(connection: Connection, *, is_copy: bool) -> None:
    """Carries out one task after the other until there are no more, or nobody listens.

    Args:
        connection: Brings tasks, and takes what they yield.
        is_copy: Whether this process is a copy of the one that started it.
    """
    if is_copy:
        _let_go_of_inherited_files(connection.fileno())
    with suppress(EOFError, BrokenPipeError, ConnectionResetError):
        while True:
            for message in _messages(connection.recv()):
                connection.send(message)


def _messages(task: Task[Any]) -> Iterator[Any]:
    try:
        yield from task
    except Exception as error:
        yield Failure.of(error)
    else:
        yield Done()


def _has_one_thread() -> bool:
    return _THREADS.is_dir() and len(os.listdir(_THREADS)) == 1


def _let_go_of_inherited_files(own: int) -> None:
    """Lets go of what the process that this one is a copy of has open.

    Else that process would hold its locks beyond its death, and no worker would see the other end
    of its pipe close. The numbers stay taken, by nothing: objects of that process live on here, and
    might close theirs.

    Args:
        own: The descriptor to keep besides the standard streams.
    """
    nothing = os.open(os.devnull, os.O_RDWR)
    for descriptor in map(int, os.listdir(_DESCRIPTORS)):
        if descriptor not in (own, nothing, *_STANDARD_STREAMS):
            os.dup2(nothing, descriptor, inheritable=False)
    os.close(nothing)
