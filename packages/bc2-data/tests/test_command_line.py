from __future__ import annotations

import subprocess
import sys
import time
from typing import Any

import pytest

HEAVY = {"numpy", "pyarrow", "sentencepiece", "tqdm", "torch"}


@pytest.mark.parametrize("arguments", [["--help"], ["tokenize", "--help"], ["inspect", "--help"]])
def test_help_loads_nothing_heavy(arguments: list[str]) -> None:
    code = (
        "import sys; from bc2_data.cli import main\n"
        "try: main(sys.argv[1:])\n"
        "finally: sys.stderr.write(' '.join(name.split('.')[0] for name in sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True
    )
    assert not HEAVY & set(done.stderr.split())


def test_help_answers_in_half_a_second() -> None:
    command = [sys.executable, "-c", "from bc2_data.cli import main; main(['--help'])"]
    times = []
    for _ in range(5):  # the best of five, since the machine may be busy
        start = time.perf_counter()
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        times.append(time.perf_counter() - start)
        assert "tokenize" in done.stdout
    assert min(times) < 0.5


def test_help_teaches(cli: Any) -> None:
    outcome = cli("tokenize", "--help")
    assert outcome.status == 0
    assert "bc2-data tokenize --input alpaca.parquet" in outcome.out
    assert "--handler moss" in outcome.out


def test_no_command_shows_the_help(cli: Any) -> None:
    outcome = cli()
    assert outcome.status == 2
    assert "tokenize" in outcome.out


def test_a_missing_argument_hints_at_the_help(cli: Any) -> None:
    outcome = cli("tokenize")
    assert outcome.status == 2
    assert "hint: bc2-data tokenize --help" in outcome.err


def test_debug_shows_the_traceback(cli: Any) -> None:
    assert "Traceback" not in cli("inspect", "/nowhere/x").err
    assert "Traceback" in cli("inspect", "/nowhere/x", "--debug").err
