"""What deterministic mode does, in a process of its own since it cannot be undone."""

from __future__ import annotations

import json
import subprocess
import sys

SCRIPT = """
import json, os, torch
from bc2_train import runtime

def put():
    torch.zeros(3).put_(torch.tensor([0]), torch.ones(1))

put()
for kind in ("cpu", "cuda", "npu"):
    runtime.make_deterministic(kind)
names = ("CUBLAS_WORKSPACE_CONFIG", "NCCL_ALGO", "HCCL_DETERMINISTIC")
try:
    put()
except RuntimeError as error:
    print(json.dumps([str(error), *(os.environ[name] for name in names)]))
"""


def test_libraries_are_told_and_other_operators_are_an_error() -> None:
    result = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=120, check=False
    )
    assert result.returncode == 0, result.stderr
    error, *variables = json.loads(result.stdout)
    assert "does not have a deterministic implementation" in error
    assert variables == [":4096:8", "Ring", "true"]
