"""Starts the processes of one host, watches them, and starts them again where that is allowed.

Where there are several hosts, each has a launcher, and those agree over the master port on when an
attempt starts, when it has ended, and whether there is another (`bc2_train.launch.hosts`).
"""

from __future__ import annotations

from bc2_train.launch.launcher import launch
from bc2_train.launch.rendezvous import Rendezvous

__all__ = ["Rendezvous", "launch"]
