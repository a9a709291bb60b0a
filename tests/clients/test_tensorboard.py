"""TensorBoard's own reader shows the run that metrics.jsonl tells of."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

accumulator = pytest.importorskip(
    "tensorboard.backend.event_processing.event_accumulator", reason="tensorboard is not installed"
)

KEYS = {
    "lm-loss-training/lm loss": "loss",
    "grad-norm/grad-norm": "grad_norm",
    "learning-rate/learning-rate": "lr",
}


def test_every_step_is_there_with_its_values(finished_run: Path) -> None:
    events = accumulator.EventAccumulator(str(finished_run / "tensorboard"))
    events.Reload()
    lines = (finished_run / "metrics.jsonl").read_text().splitlines()
    steps = [json.loads(line) for line in lines]
    assert [step["iteration"] for step in steps] == list(range(1, 9))
    for tag, key in KEYS.items():
        scalars = events.Scalars(tag)
        assert [scalar.step for scalar in scalars] == [step["iteration"] for step in steps]
        values = [scalar.value for scalar in scalars]
        assert values == pytest.approx([step[key] for step in steps], rel=1e-6)
        samples = [scalar.step for scalar in events.Scalars(f"{tag} vs samples")]
        assert samples == [step["consumed_samples"] for step in steps]
