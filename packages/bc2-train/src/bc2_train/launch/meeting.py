"""Host 0's side of what the launchers of a job agree on; see `bc2_train.launch.hosts`."""

from __future__ import annotations

import contextlib
import dataclasses
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

from bc2_train.errors import TrainError
from bc2_train.exit_status import PEER_LOST
from bc2_train.launch.line import Line
from bc2_train.launch.rendezvous import Rendezvous
from bc2_train.launch.restarts import Ending, Restarts, joint
from bc2_train.launch.workers import Attempt

_POLL = 0.1  # seconds
_FAREWELL = 5.0  # seconds


class Meeting:
    """Listens on the master port, in a thread of its own, until the job is over.

    Args:
        rendezvous: Who is expected.
        processes: Workers on every host.
        config: SHA-256 of the configuration, which must be the same on all hosts.
        new_attempt: Makes an attempt.
        restarts: Decides what follows one.
        silence: Seconds after which a host counts as lost.

    Raises:
        TrainError: The port is taken.
    """

    def __init__(
        self,
        rendezvous: Rendezvous,
        *,
        processes: int,
        config: str,
        new_attempt: Callable[[], Attempt],
        restarts: Restarts,
        silence: float,
    ) -> None:
        self._expected = {
            "nodes": rendezvous.nnodes,
            "processes": processes,
            "config": config,
        }
        self._nodes = rendezvous.nnodes
        self._new_attempt = new_attempt
        self._restarts = restarts
        self._silence = silence
        self._guests: dict[int, _Guest] = {}
        self._closed = False
        try:
            self._server = socket.create_server(("", rendezvous.master_port), backlog=1024)
        except OSError as error:
            raise TrainError(
                f"port {rendezvous.master_port} of this host cannot be listened on: {error}",
                "choose another --master-port, the same on all hosts",
            ) from error
        self._server.setblocking(False)
        self._thread = threading.Thread(target=self._run, name="meeting", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Ends the meeting; hosts that are still there take host 0 for lost."""
        self._closed = True  # by now host 0 itself has heard the decision, or is in trouble
        self._thread.join()
        self._server.close()
        for guest in self._guests.values():
            guest.line.close()

    def _run(self) -> None:
        again = True
        while again and not self._closed:
            if not self._gather():
                return
            attempt = dataclasses.asdict(self._new_attempt())
            for guest in self._guests.values():
                guest.tell("start", attempt)
            endings = self._watch()
            decision = self._restarts.decide(joint(endings))
            for guest in self._guests.values():
                guest.tell("decision", dataclasses.asdict(decision))
            self._see_off()
            again = decision.delay is not None

    def _gather(self) -> bool:
        """Waits for all hosts; returns whether they have come."""
        waiting: list[Line] = []
        while len(self._guests) < self._nodes:
            if self._closed:
                return False
            with contextlib.suppress(BlockingIOError):
                waiting.append(Line(self._server.accept()[0]))
            for line in list(waiting):
                try:
                    for kind, values in line.receive():
                        if kind == "hello":
                            self._welcome(line, values)
                            waiting.remove(line)
                except (OSError, TypeError, ValueError, KeyError):
                    waiting.remove(line)  # no launcher, or one that is gone again
                    line.close()
            for node, guest in list(self._guests.items()):
                guest.listen(self._silence)
                if guest.ending is not None:
                    del self._guests[node]
            time.sleep(_POLL)
        for line in waiting:
            line.close()
        return True

    def _welcome(self, line: Line, hello: dict[str, Any]) -> None:
        guest = _Guest(line, int(hello["node"]), str(hello["host"]))
        why, hint = "", ""
        if hello["nodes"] != self._nodes or hello["processes"] != self._expected["processes"]:
            why = f"{guest} counts {hello['nodes']} hosts of {hello['processes']} processes, "
            why += f"host 0 {self._nodes} of {self._expected['processes']}"
            hint = "give all hosts the same --nnodes and --nproc-per-node"
        elif hello["config"] != self._expected["config"]:
            why = f"{guest} has another configuration than host 0"
            hint = "give all hosts the same recipe and the same --set options"
        elif guest.node in self._guests:
            why = f"{guest} has the number of {self._guests[guest.node]}"
            hint = "give each host a --node-rank of its own"
        if why:
            guest.tell("refused", {"why": why, "hint": hint})
            line.close()
            return
        self._guests[guest.node] = guest

    def _watch(self) -> list[Ending]:
        """Waits until the workers of all hosts have ended; returns how, in that order."""
        endings: list[Ending] = []
        open_ = list(self._guests.values())
        failure: Ending | None = None
        while open_ and not self._closed:
            for guest in list(open_):
                guest.listen(self._silence)
                if guest.ending is not None:
                    open_.remove(guest)
                    endings.append(guest.ending)
                    if guest.ending.failed and failure is None:
                        failure = guest.ending
                        for other in open_:
                            other.tell("end", {"why": failure.message})
            time.sleep(_POLL)
        return endings or [Ending(status=PEER_LOST, message="host 0 has ended")]

    def _see_off(self) -> None:
        """Lets the hosts hang up first: closing a line that still holds words loses the last."""
        deadline = time.monotonic() + _FAREWELL
        guests = list(self._guests.values())
        while time.monotonic() < deadline and not all(guest.has_left() for guest in guests):
            time.sleep(_POLL)
        for guest in guests:
            guest.line.close()
        self._guests = {}


class _Guest:
    """The launcher of one host."""

    def __init__(self, line: Line, node: int, host: str) -> None:
        self.line = line
        self.node = node
        self._name = f"host {node} ({host}, {line.address})"
        self.ending: Ending | None = None

    def __str__(self) -> str:
        return self._name

    def listen(self, silence: float) -> None:
        """Takes in what it says; that it is lost is an `ending` as well."""
        if self.ending is not None:
            return
        try:
            for kind, values in self.line.receive():
                if kind == "ended":
                    self.ending = Ending(**values)
            if self.line.silent_for() > silence:
                raise OSError(f"nothing heard for {silence:.0f} s")
        except (OSError, TypeError) as error:
            self.ending = self.ending or Ending(
                status=PEER_LOST, message=f"host 0 lost contact with {self}: {error}"
            )

    def tell(self, kind: str, values: dict[str, Any]) -> None:
        """Sends a message, where there is somebody to take it."""
        with contextlib.suppress(OSError):
            self.line.send(kind, values)

    def has_left(self) -> bool:
        """Returns whether it has closed its end."""
        try:
            self.line.receive()
        except OSError:
            return True
        return False
