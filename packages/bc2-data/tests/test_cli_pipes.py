"""A reader that goes away is no error; any other broken pipe is."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

COMMAND = [sys.executable, "-c", "import sys; from bc2_data.cli import main; sys.exit(main())"]


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("repeats", [1, 5000])  # what fits the buffer of stdout, and what does not
def test_a_reader_that_goes_away(made: Any, repeats: int, unbuffered: str) -> None:
    prefix: Path = made([{"text": "some text " * repeats}])
    reading, writing = os.pipe()
    os.close(reading)
    arguments = ["inspect", str(prefix), "--doc", "0"]
    done = subprocess.run(
        COMMAND + arguments,
        stdout=writing,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
        env={**os.environ, "PYTHONUNBUFFERED": unbuffered},
    )
    os.close(writing)
    assert done.stderr == ""
    assert done.returncode == 0


def test_another_broken_pipe_is_an_error(cli: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise BrokenPipeError(32, "Broken pipe")

    monkeypatch.setattr("bc2_data.merging.merge", broken)
    outcome = cli("merge", "a", "--output-prefix", "b")
    assert outcome.status == 2
    assert outcome.err.startswith("error: [Errno 32] Broken pipe\nhint: ")
