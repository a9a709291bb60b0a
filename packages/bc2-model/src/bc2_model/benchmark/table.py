"""The measurements as text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from bc2_model.benchmark.measure import Row

BASES = ("eager, bias", "sdpa, no bias")
"""What times are compared with."""


def table(length: int, rows: Mapping[str, Row], reasons: Mapping[str, str]) -> Iterator[str]:
    """Yields the lines of one sequence length.

    Args:
        length: The sequence length.
        rows: What was measured, by name.
        reasons: Why others were not, by name.
    """
    bases = [name for name in BASES if name in rows and not rows[name].failure]
    yield f"sequence length {length}"
    head = f"  {'':16}{'forward ms':>12}{'backward ms':>12}{'peak MB':>9}"
    yield head + "".join(f"{'x ' + name:>16}" for name in bases)
    for name, row in rows.items():
        if row.failure:
            yield f"  {name:16}failed: {row.failure}"
            continue
        peak = "?" if row.peak is None else f"{row.peak / 2**20:.0f}"
        times = f"{min(row.forward) * 1e3:12.2f}{min(row.backward) * 1e3:12.2f}{peak:>9}"
        ratios = "".join(f"{row.total / rows[base].total:16.2f}" for base in bases)
        yield f"  {name:16}{times}{ratios}"
    for name, reason in reasons.items():
        yield f"  {name:16}not here: {reason}"
