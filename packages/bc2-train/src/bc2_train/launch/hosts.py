"""What the launchers of a job agree on: when an attempt starts, and what follows it.

Host 0 listens on the master port (`bc2_train.launch.meeting`); the launcher of every host, that
one's too, connects to it for each attempt. They exchange one JSON object a line:

====================================  ==========================================================
a launcher says                       host 0 answers
====================================  ==========================================================
``hello``: host, config, processes    ``start``: the attempt, when all have come; or ``refused``
``alive``, every second               ``alive``, every second
``ended``: an `Ending`                ``end``, to the others, where it is a failure
                                       ``decision``: a `Decision`, when all have ended
====================================  ==========================================================

A launcher that is not heard for as long as a rank may be silent counts as lost, on both sides. That
is how a link that was cut, or a host without power, is told by name: nothing closes a connection
then.
"""

from __future__ import annotations

import dataclasses
import socket
import time
from typing import Protocol

from bc2_train.errors import TrainError
from bc2_train.exit_status import PEER_LOST
from bc2_train.launch.line import Line
from bc2_train.launch.rendezvous import Rendezvous
from bc2_train.launch.restarts import Decision, Ending, Restarts
from bc2_train.launch.signals import StopSignal
from bc2_train.launch.workers import Attempt

_RETRY = 0.5  # seconds between two tries to reach host 0


class Hosts(Protocol):
    """The hosts of a job, seen from the launcher of one."""

    def begin(self) -> Attempt | None:
        """Returns the attempt that starts now, on all hosts; None where it is asked to end."""
        ...

    def trouble(self) -> Ending | None:
        """Returns why the attempt is over whatever the workers of this host do, or None."""
        ...

    def conclude(self, ending: Ending) -> Decision:
        """Tells how the workers of this host ended; returns what follows, when all have."""
        ...


class OneHost:
    """A job of one host.

    Args:
        new_attempt: Makes an attempt.
        restarts: Decides what follows one.
    """

    def __init__(self, new_attempt: NewAttempt, restarts: Restarts) -> None:
        self._new_attempt = new_attempt
        self._restarts = restarts

    def begin(self) -> Attempt | None:
        """Returns the attempt."""
        return self._new_attempt()

    def trouble(self) -> Ending | None:
        """Returns None: there is no other host."""
        return None

    def conclude(self, ending: Ending) -> Decision:
        """Returns what follows."""
        return self._restarts.decide(ending)


class NewAttempt(Protocol):
    """Makes an attempt."""

    def __call__(self) -> Attempt:
        """Returns it."""
        ...


class ManyHosts:
    """A job of several hosts.

    Args:
        rendezvous: How they find each other.
        processes: Workers on this host.
        config: SHA-256 of the configuration, which must be the same on all hosts.
        restarts: Decides where host 0 is lost; elsewhere host 0 does.
        silence: Seconds after which host 0 counts as lost.
        patience: Seconds for all hosts to come.
        stop: Ends the waiting.
    """

    def __init__(
        self,
        rendezvous: Rendezvous,
        *,
        processes: int,
        config: str,
        restarts: Restarts,
        silence: float,
        patience: float,
        stop: StopSignal,
    ) -> None:
        self._rendezvous = rendezvous
        # Host 0 need not reach itself at the address by which others do.
        self._master = rendezvous.master_addr if rendezvous.node_rank else "127.0.0.1"
        self._hello = {
            "node": rendezvous.node_rank,
            "nodes": rendezvous.nnodes,
            "processes": processes,
            "host": socket.gethostname(),
            "config": config,
        }
        self._restarts = restarts
        self._silence = silence
        self._patience = patience
        self._stop = stop
        self._line: Line | None = None
        self._trouble: Ending | None = None

    def begin(self) -> Attempt | None:
        """Returns the attempt, when all hosts have come.

        Raises:
            TrainError: They do not come, or host 0 refuses this one.
        """
        deadline = time.monotonic() + self._patience
        address = f"{self._rendezvous.master_addr}:{self._rendezvous.master_port}"
        said = "nothing listens there yet"
        self._trouble = None
        while time.monotonic() < deadline and not self._stop.requested:
            try:
                if self._line is None:
                    self._line = Line.to(self._master, self._rendezvous.master_port)
                    self._line.send("hello", self._hello)
                    said = "not all hosts have come"
                if (reply := self._next()) is not None:
                    return reply
                self._stop.wait(0.1)
            except OSError as error:
                said = str(error)
                self._hang_up()
                self._stop.wait(_RETRY)
        if self._stop.requested:
            self._hang_up()
            return None
        raise TrainError(
            f"host {self._rendezvous.node_rank} ({socket.gethostname()}) has waited "
            f"{self._patience:.0f} s for the others at {address}: {said}",
            "start the same command on every host, each with its own --node-rank; "
            "--master-addr is an address of host 0 that all of them reach",
        )

    def _next(self) -> Attempt | None:
        assert self._line is not None
        if self._line.silent_for() > self._silence:
            raise OSError(f"host 0 has not answered for {self._silence:.0f} s")
        for kind, values in self._line.receive():
            if kind == "refused":
                raise TrainError(str(values["why"]), str(values["hint"]))
            if kind == "start":
                return Attempt(**values)
        return None

    def trouble(self) -> Ending | None:
        """Returns why the attempt is over: host 0 says so, or is not heard any more."""
        if self._trouble is None:
            try:
                self._trouble = self._listen()
            except OSError as error:
                self._trouble = self._lost(str(error))
        return self._trouble

    def conclude(self, ending: Ending) -> Decision:
        """Returns what host 0 decides, or this launcher itself where that one is lost."""
        try:
            if self._line is None:
                return self._restarts.decide(ending)
            self._line.send("ended", dataclasses.asdict(ending))
            while True:
                for kind, values in self._line.receive():
                    if kind == "decision":
                        return Decision(**values)
                if self._line.silent_for() > self._silence:
                    raise OSError(f"nothing heard for {self._silence:.0f} s")
                time.sleep(0.1)
        except OSError as error:
            # Who lost host 0 cannot know that the job has finished; a restart finds that out.
            return self._restarts.decide(self._lost(str(error)))
        finally:
            self._hang_up()

    def _listen(self) -> Ending | None:
        if self._line is None:
            return None
        for kind, values in self._line.receive():
            if kind == "end":
                return Ending(status=PEER_LOST, message=str(values["why"]), victim=True)
        if self._line.silent_for() > self._silence:
            raise OSError(f"nothing heard for {self._silence:.0f} s")
        return None

    def _lost(self, why: str) -> Ending:
        self._hang_up()
        message = (
            f"host {self._rendezvous.node_rank} ({socket.gethostname()}) lost contact with host 0 "
            f"at {self._rendezvous.master_addr}:{self._rendezvous.master_port}: {why}"
        )
        return Ending(status=PEER_LOST, message=message, victim=True, asked=self._stop.requested)

    def _hang_up(self) -> None:
        if self._line is not None:
            self._line.close()
        self._line = None
