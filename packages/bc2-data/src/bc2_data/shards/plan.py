"""How the inputs are cut into shards: a function of the files, not of who works on them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from bc2_data.errors import DataError
from bc2_data.sources import PART_BYTES, Source
from bc2_data.sources.location import Location

# Small jobs are cut finer, so that several workers have something to do.
_SHARDS_OF_A_SMALL_JOB = 64
_LEAST_BYTES = 1 << 20


@dataclass(frozen=True)
class Input:
    """A file that is read.

    Attributes:
        location: Where it is.
        size: Bytes; None where its storage does not tell.
        modified: When it was last written to, in nanoseconds; None where that is not known.
    """

    location: Location
    size: int | None
    modified: int | None

    @classmethod
    def at(cls, location: Location) -> Input:
        """Looks at a file.

        Raises:
            DataError: It cannot be read.
        """
        modified = location.local_path.stat().st_mtime_ns if location.is_local else None
        return cls(location, location.size(), modified)

    def now(self) -> Input:
        """Looks at it again."""
        return Input.at(self.location)


@dataclass(frozen=True)
class Shard:
    """A part of the work.

    Attributes:
        index: Its place among all shards of the job, from 0.
        input: Whose rows it holds: an index into `Plan.inputs`.
        source: Its rows.
        begins_source: Whether no other shard holds earlier rows of the same file.
    """

    index: int
    input: int
    source: Source
    begins_source: bool


@dataclass(frozen=True)
class Plan:
    """All shards of a job, in the order of their rows.

    Attributes:
        inputs: The files, in order; an archive stands once for all of its members.
        shards: Each file has at least one.
    """

    inputs: list[Input]
    shards: list[Shard]


@dataclass(frozen=True)
class Part:
    """Which part of a job one machine does.

    Attributes:
        rank: Number of the part, from 0.
        world_size: Number of parts.
    """

    rank: int
    world_size: int

    def __post_init__(self) -> None:
        if not 0 <= self.rank < self.world_size:
            raise DataError(
                f"--rank {self.rank} does not fit --world-size {self.world_size}",
                f"ranks run from 0 to {self.world_size - 1}",
            )

    @property
    def suffix(self) -> str:
        """What the part's output prefix ends with; the names sort by rank."""
        return f".part-{self.rank:05}-of-{self.world_size:05}"

    def of(self, shards: Sequence[Shard]) -> Sequence[Shard]:
        """Returns the shards of this part: consecutive ones, about as many as every part has."""
        first = len(shards) * self.rank // self.world_size
        end = len(shards) * (self.rank + 1) // self.world_size
        return shards[first:end]


def make_plan(sources: Iterable[Source]) -> Plan:
    """Cuts sources into shards.

    Raises:
        DataError: A file cannot be read.
    """
    locations, owners = _group(sources)
    inputs = [Input.at(location) for location in locations]
    total = sum(file.size or 0 for file in inputs)
    size = min(PART_BYTES, max(_LEAST_BYTES, total // _SHARDS_OF_A_SMALL_JOB))
    shards: list[Shard] = []
    for source, owner in owners:
        for number, part in enumerate(source.split(size)):
            shards.append(Shard(len(shards), owner, part, begins_source=number == 0))
    return Plan(inputs, shards)


def _group(sources: Iterable[Source]) -> tuple[list[Location], list[tuple[Source, int]]]:
    """Groups sources by file: the members of one archive belong together."""
    locations: list[Location] = []
    owners: list[tuple[Source, int]] = []
    members: set[str | None] = set()
    for source in sources:
        member = source.file.member
        # The same file may be given twice; then it is two inputs.
        if not locations or source.location != locations[-1] or member in members:
            locations.append(source.location)
            members = set()
        members.add(member)
        owners.append((source, len(locations) - 1))
    return locations, owners
