"""What is known about a finished shard; its JSON file is the shard's mark of completion."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path

from bc2_data.encoding import Encoded, Finding
from bc2_data.manifest import EXAMPLES
from bc2_data.shards.columns import ColumnCheck, attempt_at


@dataclass(frozen=True, slots=True)
class Progress:
    """What was done since the last one.

    Attributes:
        size: Bytes of input read.
        documents: Documents encoded.
        tokens: Tokens encoded.
    """

    size: int
    documents: int
    tokens: int


@dataclass(kw_only=True)
class Losses:
    """Rows that were dropped or shortened for one reason.

    Attributes:
        count: How many.
        first: The first of them: the number, as their source counts, and what was found.
    """

    count: int = 0
    first: list[tuple[int, str]] = field(default_factory=list)

    def add(self, finding: Finding) -> None:
        """Counts one row."""
        self.count += 1
        if len(self.first) < EXAMPLES:
            self.first.append((finding.number, finding.why))


@dataclass(kw_only=True)
class ShardReport:
    """What became of the rows of one shard.

    Attributes:
        index: The shard.
        rows: Rows read.
        size: Bytes of input read.
        documents: Documents encoded.
        tokens: Tokens encoded.
        trained_tokens: Predictions that are trained.
        dropped: Rows that gave no document, by reason.
        truncated: Rows whose document lost its end, by reason.
        special_literals: How often each special token stood literally in a text.
        columns: What its files hold.
    """

    index: int
    rows: int = 0
    size: int = 0
    documents: int = 0
    tokens: int = 0
    trained_tokens: int = 0
    dropped: dict[str, Losses] = field(default_factory=dict)
    truncated: dict[str, Losses] = field(default_factory=dict)
    special_literals: dict[str, int] = field(default_factory=dict)
    columns: dict[str, ColumnCheck] = field(default_factory=dict)

    def add(self, size: int, encoded: Encoded) -> Progress:
        """Counts one batch.

        Args:
            size: Bytes of input that it took.
            encoded: What became of its rows.
        """
        progress = Progress(size, len(encoded.documents), len(encoded.documents.ids))
        self.rows += len(encoded.documents) + len(encoded.dropped)
        self.size += progress.size
        self.documents += progress.documents
        self.tokens += progress.tokens
        self.trained_tokens += encoded.documents.count_trained()
        for losses, findings in (
            (self.dropped, encoded.dropped),
            (self.truncated, encoded.truncated),
        ):
            for finding in findings:
                losses.setdefault(finding.reason, Losses()).add(finding)
        return progress

    def save(self, folder: Path) -> None:
        """Marks the shard as complete; its columns must have their names already."""
        path = report_path(folder, self.index)
        attempt = attempt_at(path)
        attempt.write_text(json.dumps(asdict(self)), encoding="utf-8")
        os.replace(attempt, path)

    @classmethod
    def load(cls, path: Path) -> ShardReport | None:
        """Reads what `save` wrote; None where it is not there or damaged."""
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            for name in ("dropped", "truncated"):
                content[name] = {
                    reason: Losses(count=losses["count"], first=[*map(tuple, losses["first"])])
                    for reason, losses in content[name].items()
                }
            content["columns"] = {
                name: ColumnCheck(**check) for name, check in content["columns"].items()
            }
            return cls(**content)
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None


def report_path(folder: Path, shard: int) -> Path:
    """Returns where the report of a finished shard stands."""
    return folder / f"shard-{shard:06}.json"
