"""The step runner, with commands that stand in for bc2's own."""

import shlex
import sys
from pathlib import Path

import pytest

from bc2_train.demo import commands
from bc2_train.demo.commands import (
    Step,
    StepFailedError,
    command_line,
    find_script,
    run_command,
    run_steps,
)
from bc2_train.errors import TrainError


@pytest.fixture
def scripts(tmp_path, monkeypatch):
    """Returns a function that puts a shell script beside the running Python."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setattr(commands.sys, "executable", str(folder / "python"))

    def add(name: str, body: str) -> None:
        script = folder / name
        script.write_text(f"#!/bin/sh\n{body}\n")
        script.chmod(0o755)

    return add


def test_a_command_is_printed_before_its_output(scripts, tmp_path, capfd, monkeypatch):
    scripts("bc2-data", 'for a in "$@"; do echo "<$a>"; done')
    monkeypatch.chdir(tmp_path)
    run_command("bc2-data", "tokenize", "--input", Path("a b"), "--text-key", "it's")
    printed, *rest = capfd.readouterr().out.splitlines()
    assert shlex.split(printed) == [
        *("$", "bin/bc2-data", "tokenize", "--input", "a b", "--text-key", "it's"),
    ]
    assert rest == ["<tokenize>", "<--input>", "<a b>", "<--text-key>", "<it's>"]


def test_a_script_on_the_path_is_printed_by_its_name(scripts, tmp_path, capfd, monkeypatch):
    scripts("bc2-data", "true")
    monkeypatch.setenv("PATH", f"{tmp_path}/bin", prepend=":")
    run_command("bc2-data", "inspect")
    assert capfd.readouterr().out == "$ bc2-data inspect\n"


def test_a_long_command_is_broken_before_options_and_can_be_pasted(tmp_path):
    arguments = [part for i in range(20) for part in ("--set", f"key{i}=a 'quoted' value")]
    text = command_line([str(tmp_path / "bc2-train"), "run", *arguments])
    lines = text.split(" \\\n    ")
    assert len(lines) > 5
    assert all(line.startswith("--set ") for line in lines[1:])
    assert all(len(line) <= 96 for line in lines[1:])
    assert shlex.split(" ".join(lines))[1:] == ["run", *arguments]


@pytest.mark.parametrize(("body", "status"), [("exit 2", 2), ("exit 1", 1), ("exit 7", 1)])
def test_a_failed_command_is_named_and_ends_the_steps(scripts, capfd, body, status):
    scripts("bc2-ckpt", f"echo 'error: no weights' >&2; {body}")
    later = []
    steps = [
        Step("Convert", lambda: run_command("bc2-ckpt", "convert", "--to", "hf")),
        Step("Train", lambda: later.append("trained")),
    ]
    with pytest.raises(StepFailedError, match="convert --to hf") as caught:
        run_steps(steps)
    assert body.removeprefix("exit ") in caught.value.message
    assert caught.value.exit_status == status
    captured = capfd.readouterr()
    assert captured.err == "error: no weights\n"
    assert "[1/2] Convert" in captured.out
    assert "[2/2]" not in captured.out
    assert later == []


def test_a_killed_command_says_by_what(scripts):
    scripts("bc2-train", "kill -9 $$")
    with pytest.raises(StepFailedError, match="killed by signal 9") as caught:
        run_command("bc2-train", "run")
    assert caught.value.exit_status == 1


def test_every_step_has_a_heading_and_a_time(capfd):
    done = []
    run_steps([Step("First", lambda: done.append(1)), Step("Second", lambda: done.append(2))])
    assert done == [1, 2]
    lines = capfd.readouterr().out.splitlines()
    assert [line for line in lines if line.startswith("[")] == ["[1/2] First", "[2/2] Second"]
    assert sum(line.endswith(" s)") for line in lines) == 2


def test_a_command_that_is_not_installed_is_named(scripts, monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(TrainError, match="bc2-data is not installed") as caught:
        find_script("bc2-data")
    assert "install" in caught.value.hint


def test_bc2s_own_scripts_are_found_beside_python():
    assert find_script("bc2-train").startswith(sys.executable.rsplit("/", 1)[0])
