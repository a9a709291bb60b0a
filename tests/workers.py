"""Groups of processes that stay up, so that many multi-process tests pay for few starts.

Importing torch and megatron-core takes longer than most of these tests: one group of each size
lives for the whole test session, and a job is a function that every rank of it runs.
"""

from __future__ import annotations

import gc
import importlib
import multiprocessing
import os
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any


class WorkerGroup:
    """Processes joined over gloo that run jobs together.

    Args:
        size: How many.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self._processes: list[Any] = []
        self._pipes: list[Connection] = []

    def run(
        self, job: Callable[..., Any], *args: Any, timeout: float = 300, **options: Any
    ) -> list[Any]:
        """Runs a module-level function on every rank and returns their results by rank.

        Raises:
            AssertionError: A rank raised, with its traceback, or the group hung. The group is
                ended: other ranks may wait for the failed one for ever.
        """
        if not self._processes:
            self._start()
        for pipe in self._pipes:
            pipe.send((job.__module__, job.__qualname__, args, options))
        results: dict[int, Any] = {}
        deadline = time.monotonic() + timeout
        while len(results) < self.size:
            for rank, pipe in enumerate(self._pipes):
                if rank in results or not pipe.poll(0.01):
                    continue
                ok, result = pipe.recv()
                if not ok:
                    self.close()
                    raise AssertionError(f"rank {rank} of {self.size}:\n{result}")
                results[rank] = result
            if time.monotonic() > deadline:
                self.close()
                raise AssertionError(f"{job.__qualname__} did not end within {timeout} s")
        return [results[rank] for rank in range(self.size)]

    def close(self) -> None:
        """Ends the processes, and what they started: writers of checkpoints."""
        for process in self._processes:
            process.kill()
            with suppress(ProcessLookupError):  # it was alone, or had not begun
                os.killpg(process.pid, signal.SIGKILL)
            process.join()
        self._processes, self._pipes = [], []

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        for rank in range(self.size):
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(theirs, rank, self.size, port))
            process.start()
            theirs.close()
            self._processes.append(process)
            self._pipes.append(ours)


def _serve(pipe: Connection, rank: int, size: int, port: int) -> None:
    os.setpgid(0, 0)
    os.environ.update(
        RANK=str(rank),
        LOCAL_RANK=str(rank),
        WORLD_SIZE=str(size),
        MASTER_ADDR="127.0.0.1",
        MASTER_PORT=str(port),
    )
    sys.path.insert(0, str(Path(__file__).parent))
    import torch

    from bc2_train import runtime

    torch.set_num_threads(1)
    runtime.install("cpu")
    torch.distributed.init_process_group("gloo")
    while True:
        try:
            module, name, args, options = pipe.recv()
        except EOFError:  # the tests are over
            return
        try:
            function = getattr(importlib.import_module(module), name)
            pipe.send((True, function(*args, **options)))
        except BaseException:
            pipe.send((False, traceback.format_exc()))
        gc.collect()  # what a job leaves in cycles holds process groups, each of many threads
