"""Adds up what became of all rows, shard by shard in order."""

from __future__ import annotations

from collections import Counter

from bc2_data.manifest import Tally
from bc2_data.shards.plan import Plan
from bc2_data.shards.report import Losses, ShardReport


class Totals:
    """What became of the rows of a job.

    Args:
        plan: Knows where the rows of a shard stand.

    Attributes:
        rows: Rows read, by input.
        documents: Documents encoded.
        tokens: Tokens encoded.
        trained_tokens: Predictions that are trained.
        special_literals: How often each special token stood literally in a text.
        dropped: Rows that gave no document, by reason.
        truncated: Rows whose document lost its end, by reason.
    """

    def __init__(self, plan: Plan) -> None:
        self.rows: Counter[int] = Counter()
        self.documents = 0
        self.tokens = 0
        self.trained_tokens = 0
        self.special_literals: Counter[str] = Counter()
        self.dropped: dict[str, Tally] = {}
        self.truncated: dict[str, Tally] = {}
        self._plan = plan

    def add(self, report: ShardReport) -> None:
        """Adds the next shard."""
        self.rows[self._plan.shards[report.index].input] += report.rows
        self.documents += report.documents
        self.tokens += report.tokens
        self.trained_tokens += report.trained_tokens
        self.special_literals.update(report.special_literals)
        self._add_losses(self.dropped, report.dropped, report.index)
        self._add_losses(self.truncated, report.truncated, report.index)

    def describe_losses(self) -> str:
        """Returns the dropped rows by reason, as in ``no_text: 3, bad_row: 1``."""
        return ", ".join(f"{reason}: {tally.count:,}" for reason, tally in self.dropped.items())

    def _add_losses(self, tallies: dict[str, Tally], losses: dict[str, Losses], shard: int) -> None:
        source = self._plan.shards[shard].source
        for reason, lost in losses.items():
            tally = tallies.setdefault(reason, Tally())
            tally.add_many(
                lost.count, (f"{source.place(number)}: {why}" for number, why in lost.first)
            )
