"""Runs the examples as they stand."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = sorted((Path(__file__).resolve().parents[1] / "examples").glob("*.py"))
END = {
    "attention_in_your_model.py": "step 60: loss 0.0",
    "convert_checkpoint.py": "lm_head.weight (400, 80): the same",
    "tokenise.py": "of it is trained",
    "train.py": "It is",
}
"""What the last line of each example holds."""


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.name)
def test_the_example_runs(example: Path, tmp_path: Path) -> None:
    result = subprocess.run(
        [sys.executable, str(example), str(tmp_path / "folder")],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert result.returncode == 0, result.stderr
    assert END[example.name] in result.stdout.splitlines()[-1]
