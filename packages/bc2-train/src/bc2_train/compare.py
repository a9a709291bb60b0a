"""Does one run follow another? The acceptance test of the AscendSpeed README."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from bc2_train.errors import TrainError
from bc2_train.losses import load_losses


class ComparisonError(TrainError):
    """The losses differ by more than was allowed."""

    exit_status = 1


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """The losses of two runs at the iterations that both have.

    Attributes:
        iterations: In order.
        losses: Of the run, one an iteration.
        reference: Of the reference, one an iteration.
    """

    iterations: list[int]
    losses: list[float]
    reference: list[float]

    @property
    def absolute(self) -> list[float]:
        """|loss - reference| at every iteration."""
        return [abs(a - b) for a, b in zip(self.losses, self.reference, strict=True)]

    @property
    def relative(self) -> list[float]:
        """|loss - reference| / |reference| at every iteration."""
        pairs = zip(self.absolute, self.reference, strict=True)
        return [error / abs(b) if b else float("inf") for error, b in pairs]

    @property
    def worst(self) -> int:
        """The position of the largest relative error; NaN counts as larger than any number."""
        # NaN compares false with everything, so it is looked for first.
        errors = self.relative
        return next(
            (i for i, error in enumerate(errors) if error != error),
            max(range(len(errors)), key=errors.__getitem__),
        )

    def within(self, limit: float) -> bool:
        """Returns whether no relative error is above the limit, or NaN."""
        return self.relative[self.worst] <= limit


def compare(run: Path, reference: Path) -> Comparison:
    """Returns the losses of two runs side by side.

    Args:
        run: A run directory or a training log.
        reference: The same.

    Raises:
        TrainError: One of them holds no losses, or they have no iteration in common.
    """
    return align(load_losses(run), load_losses(reference))


def align(losses: Mapping[int, float], reference: Mapping[int, float]) -> Comparison:
    """Returns a comparison at the iterations that both have."""
    common = sorted(losses.keys() & reference.keys())
    if not common:
        raise TrainError(
            "the two runs have no iteration in common: "
            f"one has {_span(losses)}, the other {_span(reference)}"
        )
    return Comparison(
        iterations=common,
        losses=[losses[i] for i in common],
        reference=[reference[i] for i in common],
    )


def describe(comparison: Comparison, limit: float) -> str:
    """Returns the errors and the verdict in a few lines."""
    worst, relative, absolute = comparison.worst, comparison.relative, comparison.absolute
    verdict = "within" if comparison.within(limit) else "ABOVE"
    return "\n".join(
        [
            f"iterations compared: {len(relative)}, {comparison.iterations[0]} to "
            f"{comparison.iterations[-1]}",
            f"largest relative error: {relative[worst]:.3e} at iteration "
            f"{comparison.iterations[worst]} ({comparison.losses[worst]:.6f} against "
            f"{comparison.reference[worst]:.6f})",
            f"mean relative error: {sum(relative) / len(relative):.3e}",
            f"largest absolute error: {max(absolute):.3e}, "
            f"mean {sum(absolute) / len(absolute):.3e}",
            f"verdict: {verdict} the limit of {limit:g}",
        ]
    )


def _span(losses: Mapping[int, float]) -> str:
    return f"{min(losses)} to {max(losses)}"
