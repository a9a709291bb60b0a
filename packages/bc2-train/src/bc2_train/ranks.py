"""What the processes of a run tell each other outside the model: agreement and waiting."""

from __future__ import annotations

from typing import Any, Protocol

import torch
import torch.distributed as dist


class Ranks(Protocol):
    """The processes of a run, seen from one of them."""

    rank: int
    size: int

    def barrier(self) -> None:
        """Waits for all."""
        ...

    def gather(self, value: Any) -> list[Any]:
        """Returns every rank's small picklable value, on every rank."""
        ...

    def any(self, flag: bool) -> bool:
        """Returns whether the flag is set on any rank."""
        ...


class DistributedRanks:
    """Ranks over torch.distributed.

    Args:
        device: Where the flags are reduced.
    """

    def __init__(self, device: torch.device) -> None:
        self.rank = dist.get_rank()
        self.size = dist.get_world_size()
        self._device = device

    def barrier(self) -> None:
        """Waits for all."""
        dist.barrier()

    def gather(self, value: Any) -> list[Any]:
        """Returns every rank's value; see `Ranks.gather`."""
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value)
        return values

    def any(self, flag: bool) -> bool:
        """Returns whether the flag is set on any rank."""
        votes = torch.tensor(int(flag), device=self._device)
        dist.all_reduce(votes, op=dist.ReduceOp.MAX)
        return bool(votes)


class SingleRank:
    """A run of one process that needs no torch.distributed."""

    rank = 0
    size = 1

    def barrier(self) -> None:
        """Returns at once."""

    def gather(self, value: Any) -> list[Any]:
        """Returns the value alone."""
        return [value]

    def any(self, flag: bool) -> bool:
        """Returns the flag."""
        return flag
