"""What one pulse remembers for the next.

It is kept in the user's state folder (``$XDG_STATE_HOME/bc2-train/pulse``), not in the run
directory: it must outlive a run that is deleted and a disk that is full, and two people who watch
one run must each be told.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path

from bc2_data import atomic
from bc2_train import schema
from bc2_train.errors import TrainError
from bc2_train.heartbeat import Beat
from bc2_train.process_identity import boot_id, uptime


@dataclass(frozen=True, kw_only=True)
class Sighting:
    """When pulses saw a beat, by the clock of the host on which they ran.

    Attributes:
        beat: Its attempt and count.
        boot_id: Of the host of the pulses.
        first: Its uptime in seconds when this beat was first seen.
        last: The same when it was last seen.
    """

    beat: str
    boot_id: str
    first: float
    last: float


@dataclass(frozen=True, kw_only=True)
class Memory:
    """What is remembered of one run.

    Attributes:
        told: The state that each alert command was last told.
        sightings: The beats seen, by rank.
    """

    told: dict[str, str] = field(default_factory=dict)
    sightings: dict[str, Sighting] = field(default_factory=dict)

    def sighting(self, rank: int) -> Sighting | None:
        """Returns what is known of a rank's beat, if that was in this boot."""
        seen = self.sightings.get(str(rank))
        return seen if seen and seen.boot_id == boot_id() else None

    def having_seen(self, beats: dict[int, Beat]) -> Memory:
        """Returns this memory after a look at beats."""
        now = uptime()
        sightings = {}
        for rank, beat in beats.items():
            seen, name = self.sighting(rank), name_of(beat)
            first = seen.first if seen and seen.beat == name else now
            sightings[str(rank)] = Sighting(beat=name, boot_id=boot_id(), first=first, last=now)
        return dataclasses.replace(self, sightings=sightings)

    def having_told(self, command: str, state: str) -> Memory:
        """Returns this memory after an alert command was told a state."""
        return dataclasses.replace(self, told={**self.told, command: state})


def name_of(beat: Beat) -> str:
    """Returns what tells a beat from every other of its rank."""
    return f"{beat.attempt} {beat.count} {beat.unwritten:.0f}"


def memory_file(run_dir: Path) -> Path:
    """Returns where the memory of a run is, whether or not the run exists."""
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(state) / "bc2-train" / "pulse" / f"{name_of_run(run_dir)}.json"


def name_of_run(run_dir: Path) -> str:
    """Returns a name fit for a file that no other run of this host has."""
    path = run_dir.resolve()
    digest = hashlib.sha256(os.fsencode(path)).hexdigest()[:8]
    readable = "".join(c if c.isascii() and (c.isalnum() or c in "-_") else "-" for c in path.name)
    return f"{readable or 'run'}-{digest}"


def recall(run_dir: Path) -> Memory:
    """Returns what is remembered of a run; nothing where that is absent or damaged."""
    try:
        values = json.loads(memory_file(run_dir).read_bytes())
        return schema.build(Memory, values)
    except (OSError, AttributeError, ValueError, RecursionError, TrainError):
        return Memory()


def remember(run_dir: Path, memory: Memory) -> None:
    """Keeps a memory for the next pulse.

    Raises:
        OSError: It cannot be written.
        Bc2Error: One of its parents is a file.
    """
    atomic.write_text(memory_file(run_dir), json.dumps(asdict(memory), indent=2) + "\n")
