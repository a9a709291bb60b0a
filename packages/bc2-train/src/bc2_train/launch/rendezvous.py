"""How the hosts of a job find each other."""

from __future__ import annotations

import socket
from dataclasses import dataclass

from bc2_train.errors import TrainError


@dataclass(frozen=True, kw_only=True)
class Rendezvous:
    """How the hosts of a job find each other.

    Attributes:
        nnodes: Hosts.
        node_rank: Which of them this is, counted from 0.
        master_addr: Address of host 0.
        master_port: A free port there, on which the launchers meet; of no use to one host.

    Raises:
        TrainError: They do not describe a job.
    """

    nnodes: int = 1
    node_rank: int = 0
    master_addr: str = "127.0.0.1"
    master_port: int = 0

    def __post_init__(self) -> None:
        if self.nnodes < 1:
            raise TrainError(f"--nnodes is {self.nnodes}", "count the hosts, this one included")
        if not 0 <= self.node_rank < self.nnodes:
            raise TrainError(
                f"--node-rank is {self.node_rank} of {self.nnodes} hosts",
                f"hosts are counted from 0 to {self.nnodes - 1}: give each its own, "
                "and all of them the same --nnodes",
            )
        if not 0 <= self.master_port < 65536:
            raise TrainError(f"--master-port is {self.master_port}", "choose one below 65536")
        if self.nnodes > 1 and not self.master_port:
            raise TrainError(
                f"{self.nnodes} hosts have no port to meet on",
                "give all of them the same --master-port, such as 29500, free on host 0",
            )


def free_port() -> int:
    """Returns a port of this host that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("", 0))
        return int(probe.getsockname()[1])
