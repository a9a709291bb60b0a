"""Runs what docs/data.md and the README tell a reader to type, in the order in which they do."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import bc2_data

REPOSITORY = Path(__file__).resolve().parents[3]
GUIDE = REPOSITORY / "docs" / "data.md"
README = REPOSITORY / "packages" / "bc2-data" / "README.md"

ALPACA = [{"instruction": "Add 1 and 2.", "input": "", "output": "3", "text": "Add: 3"}] * 3
MOSS = [{"chat": {"turn_1": {"Human": "<|Human|>: hi<eoh>\n", "MOSS": "<|MOSS|>: yes<eom>\n"}}}]


def blocks(page: Path) -> list[tuple[str, str]]:
    """Returns language and text of the blocks to be run; ```bash needs more than a test has."""
    found = re.findall(r"^```(\w+)\n(.*?)^```", page.read_text(encoding="utf-8"), re.M | re.S)
    return [(language, text) for language, text in found if language in {"sh", "python"}]


@pytest.fixture
def folder(tmp_path: Path, write_rows: Any, tokenizer_dir: Path) -> Path:
    """A folder that holds what the pages take for granted, and the command in ``bin/``."""
    for name in ("Baichuan2-7B-Base", "Baichuan2-13B-Base"):
        shutil.copytree(tokenizer_dir, tmp_path / name)
    write_rows("alpaca.parquet", ALPACA).rename(tmp_path / "alpaca.parquet")
    write_rows("moss.jsonl", MOSS).rename(tmp_path / "moss-003-sft-no-tools.jsonl")
    command = tmp_path / "bin" / "bc2-data"
    command.parent.mkdir()
    code = "import sys; from bc2_data.cli import main; sys.exit(main())"
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -c "{code}" "$@"\n')
    command.chmod(0o755)
    return tmp_path


@pytest.mark.parametrize("page", [GUIDE, README], ids=lambda page: page.name)
def test_every_command_does_what_it_says(folder: Path, page: Path) -> None:
    environment = {**os.environ, "PATH": f"{folder / 'bin'}:{os.environ['PATH']}"}
    assert len(blocks(page)) > 2
    for language, text in blocks(page):
        interpreter = ["bash", "-euo", "pipefail"] if language == "sh" else [sys.executable]
        done = subprocess.run(
            [*interpreter, "-c", text], cwd=folder, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, f"{text}\n{done.stderr}"


def test_the_messages_in_the_table_are_those_of_the_program() -> None:
    """A text in the source may be cut into several literals; what stands in braces varies."""
    source = "".join(
        path.read_text(encoding="utf-8") for path in Path(bc2_data.__file__).parent.rglob("*.py")
    )
    joined = re.sub(r"\"\s*f?\"", "", source)
    table = GUIDE.read_text(encoding="utf-8").partition("| message | what to do |")[2]
    messages = re.findall(r"^\| `(.+?)` \|", table, re.M)
    assert len(messages) > 15
    for message in messages:
        for fragment in message.split("..."):
            assert fragment.strip(" :") in joined, message


def test_every_option_of_the_guide_exists(cli: Any) -> None:
    commands = ("tokenize", "pack", "merge", "inspect", "verify")
    known = set(re.findall(r"--[a-z-]+", "".join(cli(name, "--help").out for name in commands)))
    used = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", GUIDE.read_text(encoding="utf-8")))
    others = {"--set", "--array", "--cpus-per-task", "--dependency", "--job-name", "--output"}
    assert used - known - others - {"--parsable", "--requeue"} == set()
